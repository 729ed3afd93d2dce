"""A row's gradient by every layer that a recipe may use: what a tape makes of one pass, against a loop with autograd."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from fedround.learning.by_rows import by_parameter
from fedround.learning.tape import Tape
from tests.layers import MODELS, built, drawn

ROWS = 7


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def loss_of(model: nn.Module):
    return lambda weights, x_P, y: cross_entropy(functional_call(model, dict(weights), (x_P[None],)), y[None])


def by_tape(model: nn.Module, x_BP, y_B):
    parameters = {name: part.detach() for name, part in model.named_parameters()}
    shapes = {name: part.shape for name, part in parameters.items()}
    return by_parameter(shapes, *Tape(loss_of(model))(parameters, (len(y_B),), x_BP, y_B))


def by_loop(model: nn.Module, x_BP, y_B) -> dict[str, torch.Tensor]:
    found = []
    for x_P, y in zip(x_BP, y_B, strict=True):
        model.zero_grad()
        cross_entropy(model(x_P[None]), y[None]).backward()
        found.append({name: torch.zeros_like(part) if part.grad is None else part.grad.clone()
                      for name, part in model.named_parameters()})
    return {name: torch.stack([row[name].flatten() for row in found]) for name in found[0]}


@pytest.mark.parametrize("kind", MODELS)
def test_one_pass_gives_every_row_the_gradient_that_a_loop_gives_it(kind):
    model = built(kind)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        ours, theirs = by_tape(model, *drawn(ROWS)), by_loop(model, *drawn(ROWS))
    for name, expected_BD in theirs.items():
        if name not in ours:
            assert not expected_BD.any(), f"{name} takes part"
            continue
        part = ours[name]
        assert part.dense().numpy() == pytest.approx(expected_BD.numpy(), rel=1e-4, abs=2e-6)
        squares_B = part.dense().double().square().sum(1)
        assert part.squares().numpy() == pytest.approx(squares_B.numpy(), rel=1e-6, abs=1e-12)
        total_D = torch.zeros(expected_BD.shape[1], dtype=torch.int64)
        share_B = torch.rand(len(expected_BD), dtype=torch.float64) * 1e12
        exact_BD = part.dense().double() * share_B[:, None]
        longest = float(exact_BD.norm(dim=1).max())
        part.add_to(total_D, share_B, longest)
        rounding_D = 2 ** -22 * exact_BD.abs().sum(0)       # cells are products of float32
        cut = max(2 * longest ** 0.5 + 1, longest * len(expected_BD) / 2 ** 29)     # of two vectors each, or to 32 bits
        assert ((total_D - exact_BD.sum(0)).abs() <= len(expected_BD) * cut + rounding_D).all()
    assert set(ours) <= set(theirs)
