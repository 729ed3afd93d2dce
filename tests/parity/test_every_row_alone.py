"""One row's part of a sum is the same bits in any company, for every layer that a recipe may use."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fedround.learning.batch import Batch
from fedround.learning.gradients import LARGEST_CHUNK, Clip, RowGradients, clipped_sum
from fedround.learning.objective import Objective
from fedround.learning.tasks import Classify
from fedround.privacy.noise import FINE
from tests import layers
from tests.layers import CLASSES, MODELS, PLACES, WORDS, Net, drawn

ROWS = 33
CLIP = Clip(0.7, 0.7 / FINE)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(PLACES, CLASSES)

    def forward(self, x):
        h = x.float().clone()
        h[:, 0] = 1
        h += 1
        return self.out(h)


def looks(m, x):
    return m.out(m.embed(x).mean(1)) * (2.0 if int(x.sum()) > 20 else 1.0)


def packed(m, x):
    """As recipes do it for sequences of unequal lengths."""
    lengths = (x != 0).sum(1)
    shorter = nn.utils.rnn.pack_padded_sequence(m.embed(x), lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
    return m.out(m.cell(shorter)[1][0][-1])


SLOW = {"looks at a number": lambda: Net(looks, embed=nn.Embedding(WORDS, 8), out=nn.Linear(8, CLASSES)),
        "packed": lambda: Net(packed, embed=nn.Embedding(WORDS, 8), cell=nn.LSTM(8, 5, batch_first=True),
                              out=nn.Linear(5, CLASSES))}
QUICK = ["linear", "convolution 2d", "encoder", "lstm", "gru", "tied twice", "attention, mask", "in place", *SLOW]
MODELS = {**MODELS, "in place": InPlace, **SLOW}
ANYWHERE = ["linear", "convolution 2d", "padding", "lstm", "gru", "attention", "tied", "in place", *SLOW]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    return drawn(ROWS)


def built(kind: str) -> tuple[RowGradients, dict[str, torch.Tensor]]:
    torch.manual_seed(3)
    model = MODELS[kind]().requires_grad_(False)
    parameters = dict(model.named_parameters())
    return RowGradients.tried(Objective(model, Classify(classes=CLASSES)), parameters, batch(*layers.drawn(1))), parameters


def batch(x_BP, y_B) -> Batch:
    return Batch({"x": x_BP}, {"y": y_B})


def summed(of, x_BP, y_B, counts_B=None) -> tuple[np.ndarray, int]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        return clipped_sum(*of, batch(x_BP, y_B), CLIP, counts_B=counts_B, chunk=32)


def check_alone(of, x_BP, y_B, gone: int) -> int:
    """The row that is replaced by nothing takes its own part with it; how many numbers are in that."""
    whole, within = summed(of, x_BP, y_B)
    assert np.array_equal(whole, np.trunc(whole))
    only, others = torch.arange(len(y_B)) == gone, torch.arange(len(y_B)) != gone
    part, without = summed(of, x_BP, y_B, only)[0], summed(of, x_BP, y_B, others)
    assert np.array_equal(whole - without[0], part)
    assert within - without[1] in (0, 1)
    assert np.linalg.norm(part) <= CLIP.norm / CLIP.cell
    company = torch.where(only[:, None], x_BP, (10 - x_BP) % WORDS), torch.where(only, y_B, 2 - y_B)
    assert np.array_equal(summed(of, *company, only)[0], part), "whatever the others are"
    return np.count_nonzero(part)


@pytest.mark.parametrize("kind", QUICK)
def test_a_row_that_is_replaced_by_nothing_takes_its_own_part_with_it_and_moves_nothing_else(kind, rows):
    """The unit `record`, to the last bit: 33 rows are one chunk and one row more, which is the case that went wrong."""
    assert sum(check_alone(built(kind), *rows, gone) for gone in (7, 32)) > 20


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind not in QUICK])
def test_every_layer_keeps_that_law(kind, rows):
    assert sum(check_alone(built(kind), *rows, gone) for gone in (0, 7, 31, 32)) > 20


@pytest.mark.parametrize("kind", ANYWHERE)
def test_and_where_a_row_stands_makes_no_difference_but_rounding(kind, rows):
    """At another place of a batch a row may be computed by other instructions: attention everywhere, products of matrices
    without AVX-512. A row that is replaced by nothing keeps its place, so no promise rests on this."""
    of, (x_BP, y_B) = built(kind), rows
    whole, rounding = summed(of, x_BP, y_B)[0], 1e-4 * CLIP.norm / CLIP.cell
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    assert np.linalg.norm(summed(of, x_BP[order], y_B[order])[0] - whole) < rounding
    alone = [summed(of, x_BP[row:row + 1], y_B[row:row + 1])[0] for row in range(0, ROWS, 8)]
    some = torch.arange(ROWS) % 8 == 0
    assert np.linalg.norm(sum(alone) - summed(of, x_BP, y_B, some)[0]) < rounding


@pytest.mark.parametrize(("kind", "expected"), [("convolution 2d", True), ("encoder", True), ("lstm", True), ("gru", True),
                                                ("packed", False), ("looks at a number", False)])
def test_what_torch_cannot_map_over_rows_is_known_before_any_row_is_seen(kind, expected):
    assert built(kind)[0].together is expected


@pytest.mark.parametrize("kind", ["convolution 2d", "lstm", "packed"])
def test_a_loop_over_rows_is_the_slow_twin(kind, rows):
    of_rows, parameters = built(kind)
    total = 0.0
    for x_P, y in zip(*rows, strict=True):
        weights = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        said = torch.func.functional_call(of_rows.objective.model, weights, (x_P[None],))
        loss = nn.functional.cross_entropy(said, y[None])
        found = torch.autograd.grad(loss, [weights[name] for name in sorted(weights)])
        row_D = torch.cat([part.reshape(-1) for part in found]).double().numpy()
        total = total + row_D * min(1.0, CLIP.norm / np.linalg.norm(row_D))
    assert summed((of_rows, parameters), *rows)[0] * CLIP.cell == pytest.approx(total, abs=1e-5)


# -- hostile rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "lstm", "tied"])
def test_attack_a_row_on_which_the_model_raises_an_error_is_no_exception(kind, rows):
    """An embedding has no place 77: one record made a whole round end without an answer."""
    of, (x_BP, y_B) = built(kind), rows
    x_BP[5, 2] = 77
    others = torch.arange(ROWS) != 5
    assert np.array_equal(summed(of, x_BP, y_B)[0], summed(of, torch.where(others[:, None], x_BP, 0), y_B, others)[0])


def of_numbers(*parts: nn.Module) -> tuple[RowGradients, dict[str, torch.Tensor]]:
    torch.manual_seed(3)
    model = nn.Sequential(*parts).requires_grad_(False)
    return RowGradients(Objective(model, Classify(classes=CLASSES))), dict(model.named_parameters())


HOSTILE = {
    "huge": 3e38, "large": 1e25, "tiny": 1e-38, "denormal": 1e-44, "nothing": 0.0, "infinite": float("inf"),
    "not a number": float("nan"), "mixed": torch.tensor([3e38, 1e-44, 0.0, -1.0, 1e20, float("nan")])}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("parts", [
    (nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES)),
    (nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, CLASSES))])
def test_attack_a_hostile_row_adds_no_more_than_the_clip_norm_and_moves_nothing_else(what, parts):
    of = of_numbers(*parts)
    x_BF, y_B = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(1)), torch.arange(ROWS) % CLASSES
    x_BF[7] = HOSTILE[what]
    whole, others = summed(of, x_BF, y_B)[0], torch.arange(ROWS) != 7
    without = summed(of, torch.where(others[:, None], x_BF, 0), y_B, others)[0]
    assert np.isfinite(whole).all()
    assert np.linalg.norm(whole - without) <= CLIP.norm / CLIP.cell
    assert np.array_equal(whole - without, summed(of, x_BF, y_B, ~others)[0])
    assert np.array_equal(summed(of, x_BF, y_B, others)[0], without), "what does not count adds nothing, whatever it is"


def test_attack_factors_whose_product_overflows_or_vanishes_are_clipped_as_the_vector_they_make():
    """What comes back is tiny where what goes in is huge: the row's vector is an ordinary one."""
    of = of_numbers(nn.Linear(6, CLASSES, bias=False))
    x_BF, y_B = torch.zeros(ROWS, 6), torch.arange(ROWS) % CLASSES
    x_BF[3, 0] = 3e38
    part = summed(of, x_BF, y_B)[0] * CLIP.cell
    assert np.linalg.norm(part) == pytest.approx(CLIP.norm, rel=1e-5)


@pytest.mark.parametrize("kind", ["attention, mask", "encoder", "packed"])
def test_what_stands_behind_a_rows_end_is_nothing_and_no_rows_length_is_seen_by_another(kind):
    """The same words, in rows of other lengths: the model masks zeros, and rows are filled up to one public length."""
    of, (x_BP, y_B) = built(kind), drawn(ROWS)
    x_BP[:, 0] = 1                                      # a row of nothing has no mean
    only = torch.arange(ROWS) == 4
    part = summed(of, x_BP, y_B, only)[0]
    for length in (1, 3, PLACES):                       # of everybody else
        others = torch.where(torch.arange(PLACES) < length, x_BP.clamp(min=1), 0)
        assert np.array_equal(summed(of, torch.where(only[:, None], x_BP, others), y_B, only)[0], part)


# -- how many at once --------------------------------------------------------------------------------------------------


def test_rows_are_computed_by_public_numbers_of_them(rows):
    """Not by how many were drawn: the last chunk of a batch is as long as all others."""
    of_rows, parameters = built("convolution 2d")
    seen = []

    class Spy(RowGradients):
        def __call__(self, parameters, some):
            seen.append(some.rows)
            return super().__call__(parameters, some)

    for count in (1, 31, 32, 33):
        summed((Spy(of_rows.objective), parameters), *(part[:count] for part in rows))
    assert seen == [32, 32, 32, 32, 32]


def test_a_small_model_takes_a_batch_at_once_and_a_large_one_few_rows():
    def chunks(*parts: nn.Module) -> list[int]:
        of_rows, parameters = of_numbers(*parts)
        of_rows(parameters, batch(torch.zeros(2, 6), torch.zeros(2, dtype=torch.int64)))
        return [of_rows.chunk_for(expected) for expected in (0.3, 1, 32, 128, 65536)]

    assert chunks(nn.Linear(6, CLASSES)) == [32, 32, 64, 160, LARGEST_CHUNK]
    assert chunks(nn.Linear(6, 4096), nn.Linear(4096, 4096), nn.Linear(4096, CLASSES)) == [32, 32, 32, 32, 256]


def test_a_model_that_works_for_no_row_is_an_error(rows):
    of = of_numbers(nn.Linear(5, 3))
    with pytest.raises(RuntimeError):
        summed(of, rows[0].float(), rows[1])
