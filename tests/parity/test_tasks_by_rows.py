"""A row's clipped gradient for every kind of task: inputs by name, masks, labels at places, several heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedround.learning.batch import Batch
from fedround.learning.gradients import Clip, RowGradients, clipped_sum
from fedround.learning.objective import Objective
from fedround.learning.tasks import Classify, Count, NextToken, Regress, Several, Survive, Tag, Task
from fedround.privacy.noise import FINE

ROWS, PLACES, WORDS = 33, 5, 11
CLIP = Clip(0.2, 0.2 / FINE)


class Reader(nn.Module):
    """Words with a mask, and numbers beside them; one answer for a row or for each place, or two by name."""

    def __init__(self, sizes: dict[str, int], *, by_place: bool):
        super().__init__()
        self.embed, self.cell, self.by_place = nn.Embedding(WORDS, 6), nn.GRU(6, 6, batch_first=True), by_place
        self.numbers, self.heads = nn.Linear(2, 6), nn.ModuleDict({name: nn.Linear(6, size) for name, size in sizes.items()})

    def forward(self, words, there, numbers):
        told = self.cell(self.embed(words))[0].masked_fill(~there[:, :, None], 0) + self.numbers(numbers)[:, None]
        if not self.by_place:
            told = told.sum(1) / there.sum(1, keepdim=True).clamp(min=1)
        made = {name: head(told) for name, head in self.heads.items()}
        return made.get("one", made)


TASKS: dict[str, tuple[Task, dict[str, int], bool]] = {
    "classify": (Classify(classes=3), {"one": 3}, False),
    "regress": (Regress(bounds=(-2.0, 2.0)), {"one": 1}, False),
    "count": (Count(max=9), {"one": 1}, False),
    "survive": (Survive(edges=(1.0, 2.0, 4.0)), {"one": 3}, False),
    "tag": (Tag(tags=4), {"one": 4}, True),
    "next token": (NextToken(vocabulary=WORDS), {"one": WORDS}, True),
    "several": (Several(heads={"ill": Classify(), "dose": Regress(bounds=(0.0, 5.0))}), {"ill": 1, "dose": 1}, False),
    "labels missing": (Several(heads={"ill": Classify(), "dose": Regress(bounds=(0.0, 5.0))}, may_miss=("ill", "dose")),
                       {"ill": 1, "dose": 1}, False),
}


def case(kind: str) -> tuple[RowGradients, dict[str, torch.Tensor], Batch]:
    torch.set_num_threads(1)
    torch.manual_seed(2)
    task, sizes, by_place = TASKS[kind]
    model = Reader(sizes, by_place=by_place).requires_grad_(False)
    length_N = torch.arange(ROWS) % PLACES + 1
    targets = {name: torch.from_numpy(array) for name, array in task.made_up(ROWS, ()).items()}
    if by_place:
        labels = torch.randint(0, sizes["one"], (ROWS, PLACES))
        targets = {"y": torch.where(torch.arange(PLACES) < length_N[:, None], labels, -1)}
    batch = Batch({"words": torch.randint(0, WORDS, (ROWS, PLACES)), "there": torch.arange(PLACES) < length_N[:, None],
                   "numbers": torch.randn(ROWS, 2)}, targets)
    parameters = dict(model.named_parameters())
    return RowGradients.tried(Objective(model, task), parameters, batch), parameters, batch


@pytest.mark.parametrize("kind", TASKS)
def test_it_is_the_loop_over_rows_and_a_row_takes_its_own_part_with_it(kind):
    of_rows, parameters, batch = case(kind)
    assert of_rows.together
    names, total, clipped = sorted(parameters), 0.0, 0
    for row in range(ROWS):
        weights = {name: parameters[name].clone().requires_grad_() for name in names}
        loss = of_rows.objective.losses(weights, batch.at(slice(row, row + 1))).sum()
        found = torch.autograd.grad(loss, [weights[name] for name in names])
        row_D = torch.cat([part.reshape(-1) for part in found]).double().numpy()
        norm = np.linalg.norm(row_D)
        total, clipped = total + row_D * CLIP.norm / max(CLIP.norm, norm), clipped + (norm > CLIP.norm)
    whole, within = clipped_sum(of_rows, parameters, batch, CLIP, chunk=32)
    assert whole * CLIP.cell == pytest.approx(total, abs=1e-5)
    assert ROWS - within == clipped > 0
    only = torch.arange(ROWS) == 9
    part, without = (clipped_sum(of_rows, parameters, batch, CLIP, chunk=32, counts_B=some)[0] for some in (only, ~only))
    assert np.array_equal(whole - without, part)
    assert 0 < np.linalg.norm(part) <= CLIP.norm / CLIP.cell


@pytest.mark.parametrize("kind", TASKS)
def test_padding_changes_nothing(kind):
    """Other words where the mask says that there is none; the recurrent layer reads forward, so nothing comes back."""
    of_rows, parameters, batch = case(kind)
    other = batch._replace(inputs={**batch.inputs, "words": torch.where(
        batch.inputs["there"], batch.inputs["words"], (batch.inputs["words"] + 3) % WORDS)})
    assert not torch.equal(other.inputs["words"], batch.inputs["words"])
    one, same = (clipped_sum(of_rows, parameters, some, CLIP, chunk=32)[0] for some in (batch, other))
    assert np.array_equal(one, same)
