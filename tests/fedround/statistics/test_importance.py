"""Columns replaced by public values: one record moves its own places only, and the numbers are those of a loop over rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.replaced import replaced, side_by_side
from fedround.learning.tasks import CLASSIFY, Regress, Scored
from fedround.privacy.noise import stream
from fedround.privacy.spec import GaussianCounts
from fedround.statistics import Importance, ModelSums, Release, Scores, release
from fedround.values import parse
from tasks.importance import read

# Arrays stand in the order of their names: "w" first, then "x".
PUBLIC = ((3.0, 0.0, 0.25), (2.0, 1.0, 0.5), (7.0, 0.5, 1.0), (5.0, 0.125, 0.0))
OF = ({"column": "word", "places": (0,)}, {"column": "both", "places": (1, 2)})
MODEL = "5e" * 32
REGRESS = Regress(bounds=(0.0, 1.0))


class Rows:
    """Held-out rows; the first number is the model's score, and what the task adds up of a row may be anything."""

    def __init__(self, examples: Examples, task=CLASSIFY):
        self.examples, self.task = examples, task

    def scores(self):
        kept = self.examples.at(self.examples.counts_N)
        return {"score": kept.inputs["x"][:, 0].astype(np.float64), "truth": kept.targets["y"]}

    def summands(self):
        return self.task.summands(Scored(self.scores()))

    def replaced(self, public_KP, places, key):
        return Rows(replaced(self.examples, public_KP, places, key), self.task)


def rows(numbers, task=CLASSIFY) -> Rows:
    table = np.array(numbers, np.float32).reshape(-1, 2)
    word_N = np.arange(len(table)) % 5
    kind = np.int64 if task is CLASSIFY else np.float32
    return Rows(Examples({"w": word_N, "x": table}, (table[:, 1] > 0.5).astype(kind)), task)


def asked(noise_std: float = 0.0, judged=None, **changes) -> Importance:
    judged = judged or Scores(noise_std=0.0, bins=4)
    return parse(Importance, {"noise_std": noise_std, "model": MODEL, "judged": judged.model_dump(), "of": OF,
                              "public": PUBLIC, **changes}, "asked")


def noise(number: int = 0):
    return stream(bytes(32), b"importance", str(number).encode())


SUMS = ModelSums(noise_std=0.0, names=REGRESS.summed, longest=REGRESS.longest)
SHARES = st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=8)


@given(SHARES, st.data())
@pytest.mark.parametrize(("judged", "task"), [(None, CLASSIFY), (SUMS, REGRESS)], ids=["counts", "sums"])
def test_one_record_less_moves_the_numbers_by_one_at_most(judged, task, numbers, data):
    """What the price rests on; also where a record counts for nothing, and keeps its place."""
    gone = data.draw(st.integers(0, len(numbers) - 1))
    whole, statistic = rows(numbers, task), asked(judged=judged)
    less = np.arange(len(numbers)) != gone
    silent = Rows(Examples(whole.examples.inputs, whole.examples.targets, less), task)
    for without in (Rows(whole.examples.at(less), task), silent):
        moved = statistic.noised(whole, noise()) - statistic.noised(without, noise())
        assert np.linalg.norm(moved) <= 1 + 1e-9
        loud = statistic.model_copy(update={"noise_std": 3.0})
        drawn = loud.noised(whole, noise()) - loud.noised(without, noise())
        assert np.linalg.norm(drawn) <= 1 + 1e-9, "the noise does not depend on the rows"


@given(SHARES)
def test_other_rows_do_not_change_what_a_row_gets(numbers):
    public_KP, both = np.array(asked().public), rows(numbers).examples
    together = replaced(both, public_KP, (0, 2), bytes.fromhex(MODEL))
    for place in range(len(numbers)):
        alone = replaced(both.at([place]), public_KP, (0, 2), bytes.fromhex(MODEL))
        assert (side_by_side(alone.inputs) == side_by_side(together.inputs)[[place]]).all()


def test_only_what_is_made_of_the_column_comes_from_one_public_row_and_all_of_them_are_used():
    generator = np.random.default_rng(0)
    examples, public_KP = rows(generator.random((400, 2))).examples, np.array(asked().public)
    changed = side_by_side(replaced(examples, public_KP, (0, 2), b"k").inputs)
    assert (changed[:, 1] == side_by_side(examples.inputs)[:, 1]).all()
    drawn = np.array([np.flatnonzero((public_KP[:, [0, 2]] == row[[0, 2]]).all(axis=1))[0] for row in changed])
    assert np.bincount(drawn, minlength=4).min() > 60, "public rows are drawn alike"
    other = side_by_side(replaced(examples, public_KP, (0, 2), b"another").inputs)
    assert 0.1 < (other[:, 0] == changed[:, 0]).mean() < 0.45, "another model, other draws"
    with pytest.raises(ContractError, match="4 numbers, and the recipe makes 3"):
        replaced(examples, np.zeros((2, 4)), (0,), b"k")


def test_tables_are_those_of_the_judged_statistic_and_have_the_noise_that_is_charged():
    generator = np.random.default_rng(1)
    whole, statistic = rows(generator.random((500, 2))), asked()
    told = release(statistic, whole, noise())
    public_KP, key = np.array(statistic.public), bytes.fromhex(MODEL)
    expected = [statistic.judged.cells(one) for one in (
        whole, *(whole.replaced(public_KP, one.places, key) for one in statistic.of))]
    assert told.table == pytest.approx(np.array(expected))
    assert told.table.shape == (3, 2, 4)
    loud = asked(noise_std=20.0, judged=Scores(noise_std=0.0, bins=500))
    heard = release(loud, whole, noise())
    assert heard.mechanism == GaussianCounts(noise_std=20.0)
    still = release(loud.model_copy(update={"noise_std": 0.0}), whole, noise())
    drawn = np.array(heard.numbers) - np.array(still.numbers)
    assert drawn.std() == pytest.approx(20.0, rel=0.1)
    assert heard.is_possible
    lied = heard.model_copy(update={"numbers": (-1e5, *heard.numbers[1:])})
    assert not Release.model_validate(lied.model_dump()).is_possible


@pytest.mark.parametrize(("judged", "task"), [(None, CLASSIFY), (SUMS, REGRESS)], ids=["two classes", "a number"])
def test_a_margin_holds_the_drop_without_noise_in_about_95_of_100(judged, task):
    generator = np.random.default_rng(2)
    numbers = generator.random((1500, 2))
    numbers[:, 0] = np.clip(numbers[:, 1] + generator.normal(0, 0.2, 1500), 0, 1)
    whole, statistic = rows(numbers, task), asked(judged=judged)
    exact = {one.column: one.value for one in read(task, release(statistic, whole, noise()), 1).drops}
    assert exact["word"] == pytest.approx(0.0, abs=1e-12), "the score is not made of it"
    assert exact["both"] > 0.1
    loud, held = statistic.model_copy(update={"noise_std": 4.0}), []
    for number in range(30):
        told = read(task, release(loud, whole, noise(number)), 1)
        held += [abs(one.value - exact[one.column]) <= one.margin for one in told.drops]
    assert 0.86 <= np.mean(held) <= 1.0
    hidden = read(task, release(statistic.model_copy(update={"noise_std": 2000.0}), whole, noise()), 1)
    assert hidden.worth is None
    assert {one.value for one in hidden.drops} == {None}


@pytest.mark.parametrize(("changes", "words"), [
    ({"judged": Scores(noise_std=1.0, bins=4)}, "no noise of its own"), ({"noise_std": 9999.0}, "on each table"),
    ({"public": ((0.0, 1.0), (0.0,))}, "equally many numbers"), ({"public": ((0.0, 1.0),)}, "is said to make others"),
    ({"public": ((0.0, 1.0, 1e31),)}, "public"), ({"of": OF + OF[:1]}, "named twice"),
    ({"judged": Scores(noise_std=0.0, bins=1000), "of": [{"column": str(number), "places": (0,)} for number in range(9)]},
     "more than 10000")], ids=str)
def test_a_question_that_means_nothing_is_refused(changes, words):
    with pytest.raises(ContractError, match=words):
        asked(**changes)


def test_the_price_is_that_of_as_many_tables():
    """Gaussian noise composes by the sum of squared ratios: one release of all tables costs what one each would."""
    statistic = asked(noise_std=5.0)
    of_each = 1 / statistic.noise_of_one ** 2
    assert math.sqrt(3 * of_each) == pytest.approx(1 / statistic.noise_std)
