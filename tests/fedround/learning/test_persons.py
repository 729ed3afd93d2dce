"""A person's rows are one: what is drawn, clipped, counted and noised is the person's, however many rows there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning.batch import Batch
from fedround.learning.examples import Examples
from fedround.learning.gradients import LARGEST_CHUNK, Clip, RowGradients, clipped_sum
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.objective import Objective
from fedround.learning.persons import NOBODY, count, ids_of, persons_of
from fedround.learning.recipe import initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy.noise import FINE
from fedround.privacy.spec import DpSgd

KEY = b"k" * 32
CLIP = Clip(0.6, 0.6 / FINE)
MOST = 3


# -- whose rows -----------------------------------------------------------------------------------------------------------


def test_a_whole_number_is_one_person_however_it_is_written_and_what_is_missing_is_nobody():
    value_N = np.array([7, 7.0, "007", "7", None, float("nan"), "x", "", 2.0 ** 60, 10 ** 17], dtype=object)
    assert ids_of(value_N) == ["7"] * 4 + ["", "", "x", "", "", str(10 ** 17)]
    assert count(value_N) == 3


people = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40)


@given(people, st.integers(1, 4), st.data())
def test_each_person_has_the_agreed_number_of_rows_at_most_all_of_them_rows_that_count(whose, most, data):
    counts_N = np.array(data.draw(st.lists(st.booleans(), min_size=len(whose), max_size=len(whose))))
    person_N = np.array(whose, dtype=object)
    found = persons_of(person_N, counts_N, most, KEY)
    assert found.row_PK.shape == (len(set(whose)), most)
    for one, row_K in zip(sorted(set(whose)), found.row_PK, strict=True):
        used = row_K[row_K != NOBODY]
        assert len(set(used)) == len(used) == min(most, int(counts_N[person_N == one].sum()))
        assert all(person_N[row] == one and counts_N[row] for row in used)
    assert found.used(len(whose)).sum() == (found.row_PK != NOBODY).sum()


@given(people, st.integers(1, 3), st.data())
def test_which_rows_of_a_person_are_used_depends_on_no_other_person(whose, most, data):
    """Other people's rows go, come and move; the person's own stay in their order."""
    person_N = np.array(whose, dtype=object)
    before = persons_of(person_N, np.ones(len(whose), bool), most, KEY)
    others = data.draw(st.lists(st.sampled_from("bcdef"), max_size=20))
    own = [place for place, one in enumerate(whose) if one == "a"]
    mixed = sorted([(data.draw(st.floats(0, 1)), "b") for _ in others])
    again = ["a"] * len(own) + [one for _, one in mixed]
    after = persons_of(np.array(again, dtype=object), np.ones(len(again), bool), most, KEY)
    if own:
        chosen = [own.index(row) for row in before.row_PK[0] if row != NOBODY]
        assert chosen == [row for row in after.row_PK[0].tolist() if row != NOBODY]


def test_another_key_chooses_others():
    value_N, all_N = np.array(["a"] * 50, dtype=object), np.ones(50, bool)
    one, other = (persons_of(value_N, all_N, 5, key).row_PK for key in (KEY, b"o" * 32))
    assert (one != other).any()


# -- the sum --------------------------------------------------------------------------------------------------------------

MODELS = {
    "layers": lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 1)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 5, 2), nn.Flatten(), nn.Linear(5, 1)),
}


def cells(model, x_BF, y_B, counts_B, chunk=32 * MOST) -> tuple[np.ndarray, int]:
    objective, parameters = Objective(model), {name: value.detach() for name, value in model.named_parameters()}
    batch = Batch({"x": x_BF}, {"y": y_B})
    of_rows = RowGradients.tried(objective, parameters, batch)
    return clipped_sum(of_rows, parameters, batch, CLIP, counts_B=counts_B.clone(), chunk=chunk, each=MOST)


def a_batch(persons: int, seed: int, scale: float):
    generator = torch.Generator().manual_seed(seed)
    x_BF = torch.randn(persons * MOST, 4, generator=generator) * scale
    return x_BF, (torch.rand(len(x_BF), generator=generator) < 0.5).long(), torch.rand(len(x_BF), generator=generator) < 0.7


@pytest.mark.parametrize("kind", MODELS)
def test_it_is_the_loop_over_persons_each_ones_mean_clipped(kind):
    torch.manual_seed(1)
    model, (x_BF, y_B, counts_B) = MODELS[kind](), a_batch(20, 2, 3.0)
    total, within = 0.0, 0
    for person in range(20):
        rows = [row for row in range(person * MOST, (person + 1) * MOST) if counts_B[row]]
        if not rows:
            continue
        model.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x_BF[rows])[:, 0], y_B[rows].float()).backward()
        parts = dict(model.named_parameters())
        mean_D = np.concatenate([parts[name].grad.numpy().ravel() for name in sorted(parts)]).astype(float)
        norm = np.linalg.norm(mean_D)
        total, within = total + mean_D * min(1.0, CLIP.norm / norm), within + (norm <= CLIP.norm)
    found, counted = cells(model, x_BF, y_B, counts_B)
    assert found * CLIP.cell == pytest.approx(total, abs=1e-4)
    assert 0 < counted == within < 20


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(sorted(MODELS)), st.integers(0, 10 ** 6), st.integers(1, 40), st.sampled_from([1.0, 1e3, 1e18]),
       st.data())
def test_attack_one_person_moves_the_sum_by_her_own_cells_and_no_further_than_the_clip_norm(kind, seed, persons, scale, data):
    """To the last bit, whoever else is in the batch, and however extreme the rows are."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model, (x_BF, y_B, counts_B) = MODELS[kind](), a_batch(persons, seed, scale)
    gone = data.draw(st.integers(0, persons - 1))
    hers = slice(gone * MOST, (gone + 1) * MOST)
    if data.draw(st.booleans()):
        x_BF[hers] = float("inf")
    without_B = counts_B.clone()
    without_B[hers] = False
    whole, within = cells(model, x_BF, y_B, counts_B)
    less, fewer = cells(model, x_BF, y_B, without_B)
    moved_D = whole - less
    assert np.linalg.norm(moved_D) * CLIP.cell <= CLIP.norm
    assert within - fewer in (0, 1)
    alone, _ = cells(model, x_BF[hers], y_B[hers], counts_B[hers])
    assert (moved_D == alone).all()


@pytest.mark.parametrize("rows", [1, 3, 50, 300])
def test_a_chunk_holds_whole_persons(rows):
    of_rows = RowGradients(Objective(MODELS["layers"]()))
    for expected in (0.3, 12.0, 5000.0):
        assert of_rows.chunk_for(expected, rows) % rows == 0
        assert of_rows.chunk_for(expected, rows) <= max(LARGEST_CHUNK, rows)


# -- training -------------------------------------------------------------------------------------------------------------


class Everybody:
    """Draws everybody, and no noise."""

    def random(self, size):
        return np.zeros(size)

    def normal(self, scale, size):
        return np.full(size, 0.5)

    def cells(self, size):
        return np.zeros(size, np.int64)


def trained(recipe, examples: Examples, whose: np.ndarray, most: int = 50, noise=None, **mechanism):
    how = DpSgd(**{"noise_multiplier": 1.0, "clip_norm": 0.05, "sampling_rate": 1.0, "steps": 1, "rows_per_person": most,
                   **mechanism})
    training = LocalTraining(local_steps=1, batch_size=64, learning_rate=1.0)
    lesson = Lesson(initial_tensors(recipe, 0), examples, persons=persons_of(whose, examples.counts_N, most, KEY))
    return train(recipe, lesson, training, how, noise or Everybody(), UNGUARDED)


def as_if_gone(examples: Examples, gone: np.ndarray) -> Examples:
    return Examples(examples.inputs, examples.targets, examples.counts_N & ~gone)


def test_attack_a_person_with_fifty_rows_moves_an_update_by_one_clip_norm_and_single_rows_by_many(recipe):
    """Fifty alike rows of one person. Where records are protected they move the sum fifty times as far as was promised to
    a person; where persons are, once."""
    generator = np.random.default_rng(3)
    x_NF = generator.normal(size=(150, 3)).astype(np.float32)
    x_NF[:50] = [40.0, -40.0, 40.0]
    examples, whose = Examples(x_NF, np.ones(150, np.int64)), np.array([0] * 50 + [*range(1, 101)])
    hers = whose == 0
    clip_norm, learning_rate = 0.05, 1.0

    def moved(run, size: int) -> float:
        one, other = (flatten(run(rows).delta).astype(float) for rows in (examples, as_if_gone(examples, hers)))
        return float(np.linalg.norm(one - other)) * size / (learning_rate * clip_norm)

    training = LocalTraining(local_steps=1, batch_size=150, learning_rate=learning_rate)
    records = DpSgd(noise_multiplier=1.0, clip_norm=clip_norm, sampling_rate=1.0, steps=1)
    assert moved(lambda rows: train(recipe, Lesson(initial_tensors(recipe, 0), rows), training, records, Everybody(),
                                    UNGUARDED), 150) > 45
    assert 0.9 < moved(lambda rows: trained(recipe, rows, whose), 101) <= 1 + 1e-4


def test_who_is_drawn_depends_on_persons_alone(recipe, examples):
    """One draw for each person, in each step; and the count of gradients within the clip norm is of persons."""
    asked = []

    class Spy(Everybody):
        def random(self, size):
            asked.append(size)
            return super().random(size)

    whose = np.arange(40) % 7
    found = trained(recipe, examples, whose, noise=Spy(), count_noise_std=0.001, clip_norm=100.0)
    assert asked == [1, 7]
    assert found.within_clip == pytest.approx(1.0, abs=0.01)


def test_a_person_none_of_whose_rows_count_keeps_her_place_and_adds_nothing(recipe, examples):
    whose = np.arange(40) % 8
    gone = as_if_gone(examples, whose == 3)
    left = examples.at(whose != 3)
    one = flatten(trained(recipe, gone, whose).delta) * 8
    other = flatten(trained(recipe, left, whose[whose != 3]).delta) * 7
    assert one == pytest.approx(other, abs=1e-6)


def test_a_mechanism_of_persons_needs_to_know_whose_rows_are_whose(recipe, examples):
    training = LocalTraining(local_steps=1, batch_size=64)
    how = DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=1.0, steps=1)
    persons = persons_of(np.arange(40), examples.counts_N, 2, KEY)
    for mechanism, known in ((how, persons), (how.model_copy(update={"rows_per_person": 2}), None),
                             (how.model_copy(update={"rows_per_person": 3}), persons)):
        with pytest.raises(ContractError, match="whose rows are whose"):
            train(recipe, Lesson(initial_tensors(recipe, 0), examples, persons=known), training, mechanism, Everybody(),
                  UNGUARDED)
