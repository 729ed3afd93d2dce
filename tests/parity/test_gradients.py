"""The vectorised per-record gradients against two slow twins: a loop with autograd, and Opacus."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as logistic_loss

from fedround.learning import gradients
from fedround.learning.batch import Batch
from fedround.learning.gradients import Clip, RowGradients, clipped_sum, gradient_sum
from fedround.learning.objective import Objective
from fedround.learning.tasks import Classify
from fedround.privacy.noise import FINE

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


def named(batch) -> Batch:
    return Batch({"x": batch[0]}, {"y": batch[1]})


def ours(model, batch, clip_norm) -> np.ndarray:
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    if clip_norm is None:
        return gradient_sum(Objective(model), parameters, named(batch))
    clip = Clip(clip_norm, cell=clip_norm / FINE)
    return clipped_sum(RowGradients(Objective(model)), parameters, named(batch), clip)[0] * clip.cell


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
    from opacus.grad_sample import GradSampleModule  # takes seconds: not in every process

    wrapped = GradSampleModule(model, loss_reduction="sum")
    logistic_loss(wrapped(batch[0])[:, 0], batch[1], reduction="sum").backward()
    parts = dict(model.named_parameters())
    rows_BD = torch.cat([parts[name].grad_sample.flatten(1) for name in sorted(parts)], dim=1)
    return ((clip_norm / rows_BD.norm(dim=1)).clamp(max=1) @ rows_BD).detach().numpy()


def test_clipped_sum_equals_the_loop(model, batch):
    expected, norms = by_loop(model, batch, CLIP_NORM)
    assert min(norms) < CLIP_NORM < max(norms), "the case must clip some rows and leave others"
    assert ours(model, batch, CLIP_NORM) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("clip_norm", [None, 1.8])
def test_of_four_classes_each_rows_gradient_is_that_of_its_cross_entropy(clip_norm):
    torch.manual_seed(5)
    model, clip = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)), Clip(clip_norm or 1.0, 1 / FINE)
    features_BF, labels_B = torch.randn(33, 5), torch.arange(33) % 4
    expected, lengths = 0.0, []
    for x_F, y in zip(features_BF, labels_B, strict=True):
        model.zero_grad()
        (-torch.log_softmax(model(x_F), dim=0)[y]).backward()
        parts = dict(model.named_parameters())
        row_D = np.concatenate([parts[name].grad.numpy().ravel() for name in sorted(parts)]).astype(float)
        lengths.append(np.linalg.norm(row_D))
        expected = expected + row_D * (1.0 if clip_norm is None else min(1.0, clip_norm / lengths[-1]))
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    objective = Objective(model, Classify(classes=4))
    summed = (gradient_sum(objective, parameters, named((features_BF, labels_B))) if clip_norm is None else
              clipped_sum(RowGradients(objective), parameters, named((features_BF, labels_B)), clip)[0] * clip.cell)
    assert summed == pytest.approx(expected, abs=1e-5)
    assert min(lengths) < 1.8 < max(lengths)


@pytest.mark.filterwarnings("ignore:Full backward hook")       # Opacus hooks modules; our inputs need no gradient
def test_clipped_sum_equals_opacus(model, batch):
    assert ours(model, batch, CLIP_NORM) == pytest.approx(by_opacus(model, batch, CLIP_NORM), abs=1e-5)


def test_without_clipping_it_is_the_ordinary_gradient(model, batch):
    expected, _ = by_loop(model, batch, np.inf)
    assert ours(model, batch, None) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("clip_norm", [None, CLIP_NORM])
def test_chunks_do_not_change_the_sum(model, batch, clip_norm, monkeypatch):
    whole = ours(model, batch, clip_norm)
    monkeypatch.setattr(gradients, "CHUNK", 4)
    assert ours(model, batch, clip_norm) == pytest.approx(whole, abs=1e-5)


def test_one_row_never_exceeds_the_clip_norm_not_even_by_rounding(model, batch):
    features_BF, labels_B = batch
    for x_F, y in zip(features_BF * 100, labels_B, strict=True):
        assert np.linalg.norm(ours(model, (x_F[None], y[None]), 1e-3)) <= 1e-3


def cells(model, batch, clip: Clip, counts_B=None) -> np.ndarray:
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return clipped_sum(RowGradients(Objective(model)), parameters, named(batch), clip, counts_B=counts_B)[0]


@pytest.mark.parametrize("cell", [CLIP_NORM / FINE, CLIP_NORM / FINE * 3.7, 1e-4])
def test_the_sum_is_in_whole_cells_and_every_rows_part_is_the_same_in_any_company_to_the_last_bit(model, batch, cell):
    """What makes a record's influence exactly bounded: the sum without it differs by its own vector and by nothing else."""
    clip, everybody = Clip(CLIP_NORM, cell), torch.arange(len(batch[1]))
    whole = cells(model, batch, clip)
    assert whole.dtype == np.int64
    assert np.count_nonzero(whole) > 20
    alone = [cells(model, batch, clip, everybody == i) for i in everybody]
    assert np.array_equal(sum(alone), whole)
    for i in (0, 16, 32):
        left_out = whole - cells(model, batch, clip, everybody != i)
        assert np.array_equal(left_out, alone[i])
        assert np.linalg.norm(left_out) <= CLIP_NORM / cell


def test_attack_a_plain_float32_sum_moves_by_another_vector_than_the_record_that_left():
    """What whole cells answer (Casacuberta et al. 2022): a float sum is rounded anew everywhere when one row leaves."""
    rows = torch.randn(2000, 300, generator=torch.Generator().manual_seed(1))
    moved = (rows.sum(0) - rows[1:].sum(0)).double()
    assert (moved - rows[0].double()).norm() > 1e-5


def test_rows_within_the_clip_norm_are_counted(model, batch):
    _, norms = by_loop(model, batch, CLIP_NORM)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    _, within = clipped_sum(RowGradients(Objective(model)), parameters, named(batch), Clip(CLIP_NORM, CLIP_NORM / FINE))
    assert within == sum(norm <= CLIP_NORM for norm in norms)
    assert 0 < within < len(norms)
