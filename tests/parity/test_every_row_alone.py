"""One row's part of a sum is the same bits in any company: convolutions, attention, embeddings and recurrent layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedround.learning import gradients
from fedround.learning.batch import Batch
from fedround.learning.gradients import Clip, chunk_for, clipped_sum, maps
from fedround.learning.objective import Objective
from fedround.learning.tasks import Classify
from fedround.privacy.noise import GRID

ROWS, FEATURES = 33, 9
CLIP = Clip(0.7, 0.7 / GRID)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attend = nn.Embedding(11, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.embed(x.long())
        return self.out(self.norm(h + self.attend(h, h, h)[0]).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell, self.out = kind(1, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.cell(x[:, :, None])[0][:, -1])


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(FEATURES, 3)

    def forward(self, x):
        h = x.clone()
        h[:, 0] = 1
        h += 1
        return self.out(h)


MODELS = {
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 3, 3)), nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(),
                                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5, 3)),
    "embedding": lambda: nn.Sequential(Whole(), nn.Embedding(11, 7), nn.Flatten(), nn.Linear(7 * FEATURES, 3)),
    "attention": Attention,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "in place": InPlace,
}
ANYWHERE = [name for name in MODELS if name != "attention"]


class Whole(nn.Module):
    def forward(self, x):
        return x.long()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 11, (ROWS, FEATURES), generator=generator).float(), torch.arange(ROWS) % 3


def built(kind: str) -> tuple[Objective, dict[str, torch.Tensor], bool]:
    torch.manual_seed(3)
    model = MODELS[kind]().requires_grad_(False)
    objective, parameters = Objective(model, Classify(classes=3)), dict(model.named_parameters())
    return objective, parameters, maps(
        objective, parameters, Batch({"x": torch.zeros(1, FEATURES)}, {"y": torch.zeros(1, dtype=torch.int64)}))


def summed(of: tuple[Objective, dict[str, torch.Tensor], bool], x_BF, y_B, counts_B=None) -> tuple[np.ndarray, int]:
    objective, parameters, together = of
    batch = Batch({"x": x_BF}, {"y": y_B})
    return clipped_sum(objective, parameters, batch, CLIP, counts_B=counts_B, chunk=32, together=together)


@pytest.mark.parametrize("kind", MODELS)
def test_a_row_that_is_replaced_by_nothing_takes_its_own_part_with_it_and_moves_nothing_else(kind, rows):
    """The unit `record`, to the last bit: 33 rows are one chunk and one row more, which is the case that went wrong."""
    of, (x_BF, y_B) = built(kind), rows
    whole, within = summed(of, x_BF, y_B)
    assert np.array_equal(whole, np.trunc(whole))
    moved = 0
    for gone in (0, 7, 31, 32):
        only, others = torch.arange(ROWS) == gone, torch.arange(ROWS) != gone
        part, without = summed(of, x_BF, y_B, only)[0], summed(of, x_BF, y_B, others)
        assert np.array_equal(whole - without[0], part)
        assert within - without[1] in (0, 1)
        assert np.linalg.norm(part) <= CLIP.norm / CLIP.cell
        company = torch.where(only[:, None], x_BF, 10 - x_BF), torch.where(only, y_B, 2 - y_B)
        assert np.array_equal(summed(of, *company, only)[0], part), "whatever the others are"
        moved += np.count_nonzero(part)
    assert moved > 20


@pytest.mark.parametrize("kind", ANYWHERE)
def test_and_where_a_row_stands_makes_no_difference(kind, rows):
    """Attention is left out: torch computes it by other instructions at another place of a batch. A row that is replaced by
    nothing keeps its place, so no promise rests on this."""
    of, (x_BF, y_B) = built(kind), rows
    whole = summed(of, x_BF, y_B)[0]
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    assert np.array_equal(summed(of, x_BF[order], y_B[order])[0], whole)
    alone = [summed(of, x_BF[row:row + 1], y_B[row:row + 1])[0] for row in range(ROWS)]
    assert np.array_equal(sum(alone), whole)


@pytest.mark.parametrize(("kind", "expected"), [("convolution", True), ("attention", True), ("lstm", False), ("gru", False)])
def test_what_torch_cannot_map_over_rows_is_known_before_any_row_is_seen(kind, expected):
    assert built(kind)[2] is expected


@pytest.mark.parametrize("kind", ["convolution", "lstm"])
def test_a_loop_over_rows_is_the_slow_twin(kind, rows):
    objective, parameters, _ = built(kind)
    total = 0.0
    for x_F, y in zip(*rows, strict=True):
        weights = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        loss = nn.functional.cross_entropy(torch.func.functional_call(objective.model, weights, (x_F[None],)), y[None])
        found = torch.autograd.grad(loss, [weights[name] for name in sorted(weights)])
        row_D = torch.cat([part.reshape(-1) for part in found]).double().numpy()
        total = total + row_D * min(1.0, CLIP.norm / np.linalg.norm(row_D))
    assert summed(built(kind), *rows)[0] * CLIP.cell == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("kind", ["embedding", "lstm"])
def test_attack_a_row_on_which_the_model_raises_an_error_is_no_exception(kind, rows, monkeypatch):
    """An embedding has no place 77: one record made a whole round end without an answer."""
    of, (x_BF, y_B) = built(kind), rows
    if kind == "lstm":
        forward = of[0].model.forward
        monkeypatch.setattr(of[0].model, "forward", lambda x: forward(x if float(x.max()) < 77 else x[None, None]))
    x_BF[5, 2] = 77.0
    others = torch.arange(ROWS) != 5
    assert np.array_equal(summed(of, x_BF, y_B)[0], summed(of, torch.where(others[:, None], x_BF, 0), y_B, others)[0])


def test_a_model_that_works_for_no_row_is_an_error(rows):
    of = Objective(nn.Linear(5, 3), Classify(classes=3)), {}, True
    with pytest.raises(RuntimeError):
        clipped_sum(of[0], dict(of[0].model.named_parameters()), Batch({"x": rows[0]}, {"y": rows[1]}), CLIP)


def test_rows_are_computed_by_public_numbers_of_them(monkeypatch, rows):
    """Not by how many were drawn: the last chunk of a batch is as long as all others."""
    seen = []
    real = gradients._gradient_of_each_row

    def spy(objective, parameters, batch):
        seen.append(batch.rows)
        return real(objective, parameters, batch)

    monkeypatch.setattr(gradients, "_gradient_of_each_row", spy)
    of, (x_BF, y_B) = built("convolution"), rows
    seen.clear()
    for count in (1, 31, 32, 33):
        summed(of, x_BF[:count], y_B[:count])
    assert seen == [32, 32, 32, 32, 32]
    assert [chunk_for(batch) for batch in (0.3, 1, 32, 128, 200, 256, 1000, 65536)] == [32, 32, 32, 64, 64, 128, 256, 256]
