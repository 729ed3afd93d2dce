"""The vectorised per-record gradients against two slow twins: a loop with autograd, and Opacus."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as logistic_loss

from fedround.learning import train
from fedround.learning.train import gradient_sum

CLIP_NORM = 1.4      # between the rows' norms: some are clipped, some are not


@pytest.fixture
def model() -> nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 1))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(33, 5, generator=generator), (torch.rand(33, generator=generator) < 0.4).float()


def ours(model, batch, clip_norm) -> np.ndarray:
    return gradient_sum(model, {name: p.detach() for name, p in model.named_parameters()}, *batch, clip_norm)


def by_loop(model, batch, clip_norm) -> tuple[np.ndarray, list[float]]:
    total, norms = 0.0, []
    for x_F, y in zip(*batch, strict=True):
        model.zero_grad()
        logistic_loss(model(x_F[None])[0], y[None]).backward()
        gradients = dict(model.named_parameters())
        flat = np.concatenate([gradients[name].grad.numpy().ravel() for name in sorted(gradients)]).astype(float)
        norms.append(float(np.linalg.norm(flat)))
        total = total + flat * min(1.0, clip_norm / norms[-1])
    return total, norms


def by_opacus(model, batch, clip_norm) -> np.ndarray:
    wrapped = GradSampleModule(model, loss_reduction="sum")
    logistic_loss(wrapped(batch[0])[:, 0], batch[1], reduction="sum").backward()
    parts = dict(model.named_parameters())
    rows_BD = torch.cat([parts[name].grad_sample.flatten(1) for name in sorted(parts)], dim=1)
    return ((clip_norm / rows_BD.norm(dim=1)).clamp(max=1) @ rows_BD).detach().numpy()


def test_clipped_sum_equals_the_loop(model, batch):
    expected, norms = by_loop(model, batch, CLIP_NORM)
    assert min(norms) < CLIP_NORM < max(norms), "the case must clip some rows and leave others"
    assert ours(model, batch, CLIP_NORM) == pytest.approx(expected, abs=1e-5)


@pytest.mark.filterwarnings("ignore:Full backward hook")       # Opacus hooks modules; our inputs need no gradient
def test_clipped_sum_equals_opacus(model, batch):
    assert ours(model, batch, CLIP_NORM) == pytest.approx(by_opacus(model, batch, CLIP_NORM), abs=1e-5)


def test_without_clipping_it_is_the_ordinary_gradient(model, batch):
    expected, _ = by_loop(model, batch, np.inf)
    assert ours(model, batch, None) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("clip_norm", [None, CLIP_NORM])
def test_chunks_do_not_change_the_sum(model, batch, clip_norm, monkeypatch):
    whole = ours(model, batch, clip_norm)
    monkeypatch.setattr(train, "CHUNK", 4)
    assert ours(model, batch, clip_norm) == pytest.approx(whole, abs=1e-5)


def test_one_row_never_exceeds_the_clip_norm_not_even_by_rounding(model, batch):
    features_BF, labels_B = batch
    for x_F, y in zip(features_BF * 100, labels_B, strict=True):
        assert np.linalg.norm(ours(model, (x_F[None], y[None]), 1e-3)) <= 1e-3
