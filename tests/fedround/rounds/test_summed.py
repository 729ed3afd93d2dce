"""What members add up is what one site with all rows would have, and no record moves it further than its noise hides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from fedround import codec
from fedround.agreement import Agreement
from fedround.codec import schema_of
from fedround.errors import ContractError, ToleranceError
from fedround.federation import MORE_ROWS
from fedround.learning.examples import Examples, joined
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe, initial
from fedround.learning.spec import LocalTraining
from fedround.learning.trees.declared import builder_of
from fedround.learning.trees.spec import Axis, Trees
from fedround.learning.union.site import clipped_gradients
from fedround.learning.union.spec import UnionStep
from fedround.privacy.accounting import alone, epsilon
from fedround.privacy.noise import GRID, stream
from fedround.privacy.spec import DpSgd, GaussianCounts, RowSum
from fedround.records import Measure, Train
from fedround.rounds import server
from fedround.rounds.offer import offer
from fedround.rounds.server import Server
from fedround.rounds.site import Inputs, Kept, work
from fedround.rounds.summed import HELD_OUT_TOO, Added, Part, in_ring, layout, out_of, read
from fedround.secure_sums.spec import SecureSum, SumGroups
from fedround.statistics import Histogram, Importance, Scores
from fedround.terms import Together

RECIPE = Recipe("two", "0" * 64, lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), lambda rows: rows)
TREES = Trees(rounds=3, per_round=4, depth=2, axes=(Axis(low=-2, high=2),) * 3)
GROWING = Recipe("grown", "1" * 64, builder_of(TREES, RECIPE.task), lambda rows: rows, trees=TREES)
COMBINE = SecureSum(threshold=4, dropouts=1, colluders=1)
MEMBERS, ROWS = 5, 100
SHARED_BY = 3
SCORES, AGES = Scores(noise_std=6.0, bins=4), Histogram(noise_std=3.0, column="age", edges=(20.0, 40.0))
TERMS = {"name": "sums", "quorum": 4, "combine": COMBINE, "evaluation": {"noise_std": 6.0},
         "training": {"name": "union_step", "batch_size": 60, "learning_rate": 2.0},
         "privacy": {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 5, "clip_norm": 0.7}}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def agreed(**changes):
    found = Agreement.model_validate({**TERMS, **changes}).terms()
    return found.model_copy(update={"together": Together(members=MEMBERS, rows=ROWS)})


def rows_of(seed: int, count: int) -> tuple[Examples, np.ndarray]:
    generator = np.random.default_rng(seed)
    return (Examples(generator.normal(size=(count, 3)).astype(np.float32), generator.integers(0, 2, count)),
            generator.uniform(0, 90, 2 * count))


def inputs(train: Examples, ages: np.ndarray, recipe: Recipe = RECIPE) -> Inputs:
    base, begun = initial(recipe, 0)
    return Inputs(recipe, base, begun, {}, Kept(), train, train, {"age": ages}.__getitem__)


class Silent:
    """Every row is drawn, and no noise added."""

    def random(self, size):
        return np.zeros(size)

    def normal(self, scale, size):
        return np.zeros(size)

    def cells(self, size):
        return np.zeros(size, np.int64)


@dataclass(frozen=True)
class Draws:
    """`silent`: what shows the exact sums. Otherwise of one site and its secret."""

    secret: bytes | None = None

    def _of(self, *what):
        return Silent() if self.secret is None else stream(self.secret, *what)

    def statistic(self, place, private):
        return self._of(b"statistic", bytes([place]))

    def training(self, shift_D, private):
        return self._of(b"training")

    def persons(self):
        return bytes(32)


def asked(terms, asks, sites: list[Inputs], draws: list[Draws]):
    """The parts, every site's numbers on the ring, and the mechanisms."""
    offered = offer(asks, terms, 1, lambda _: True)
    size = codec.coordinates(terms.sent(schema_of(sites[0].base)))
    parts = layout(asks, terms, size, offered.mechanisms)
    told = [work(asks, terms, 1, bytes(32), one, offered, draw, UNGUARDED) for one, draw in zip(sites, draws, strict=True)]
    assert all(one.releases == () and one.declared is None and one.payload is None for one in told)
    return parts, [in_ring(parts, one.summand_S) for one in told], offered.mechanisms


def added(numbers):
    return np.add.reduce(numbers, dtype=np.uint32)


@st.composite
def partitions(draw):
    cuts = sorted(draw(st.lists(st.integers(1, ROWS - 1), min_size=MEMBERS - 1, max_size=MEMBERS - 1, unique=True)))
    return np.split(np.arange(ROWS), cuts)


@pytest.mark.parametrize("recipe", [RECIPE, GROWING], ids=lambda recipe: recipe.name)
@given(parts_of=partitions())
@settings(max_examples=4, deadline=None)
def test_without_noise_any_partition_makes_the_step_that_all_rows_in_one_place_do(recipe, parts_of):
    """To the lattice: every site rounds by half a cell at most."""
    grown = {"training": TREES, "privacy": {**TERMS["privacy"], "rounds": 3, "clip_norm": 1.0}}
    terms = agreed(**({} if recipe is RECIPE else grown))
    whole, ages = rows_of(1, ROWS)
    asks = Train(statistics=(SCORES,))
    sites = [inputs(whole.at(own), ages[own], recipe) for own in parts_of]
    parts, told, mechanisms = asked(terms, asks, sites, [Draws()] * MEMBERS)
    one, alone_told, _ = asked(terms, asks, [inputs(whole, ages, recipe)], [Draws()])
    assert one == parts
    found, pooled = out_of(parts, added(told)), out_of(parts, alone_told[0])
    for part, ours, theirs in zip(parts, found, pooled, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=(MEMBERS + 1) / 2 * 2.0 ** -part.bits, rtol=0)
    step = read(asks, terms, [Added(found, MEMBERS, ROWS)], mechanisms)
    assert step.totals[0].table.sum() == pytest.approx(ROWS, abs=8 * MEMBERS * 2.0 ** -parts[1].bits)
    before = Server(sites[0].base)
    after = server.step(terms, recipe.task, before, step.delta_D, ["a"], {"a": 1.0})
    assert codec.schema_of(after.model) == codec.schema_of(before.model)


def test_the_step_is_the_mean_clipped_gradient_by_the_rows_that_are_expected():
    terms, (whole, ages) = agreed(), rows_of(1, ROWS)
    asks = Train(statistics=())
    parts, told, mechanisms = asked(terms, asks, [inputs(whole, ages)], [Draws()])
    (mechanism,) = mechanisms
    assert mechanism.sampling_rate == 0.6
    assert mechanism.clip_norm == 0.7
    base, _ = initial(RECIPE, 0)
    sum_D = clipped_gradients(RECIPE, Lesson(base, whole), UnionStep(batch_size=60), mechanism, parts[0].cells,
                              Silent()) * 0.7
    delta_D = read(asks, terms, [Added(out_of(parts, told[0]), MEMBERS, 50)], mechanisms).delta_D
    np.testing.assert_allclose(delta_D, -2.0 * sum_D / (0.6 * 50), atol=1e-3)
    assert np.abs(delta_D).max() > 0.1


@pytest.mark.parametrize("recipe", [RECIPE, GROWING], ids=lambda recipe: recipe.name)
def test_who_has_another_learner_than_was_agreed_adds_nothing(recipe):
    grown = {"training": TREES, "privacy": {**TERMS["privacy"], "rounds": 3, "clip_norm": 1.0}}
    whole, ages = rows_of(1, 20)
    other = replace(inputs(whole, ages, recipe), recipe=replace(recipe, trees=None if recipe is GROWING else TREES))
    with pytest.raises(ContractError, match="says (no )?TREES"):
        asked(agreed(**({} if recipe is RECIPE else grown)), Train(), [other], [Draws()])


def test_frozen_tensors_take_part_in_a_step_on_all_rows():
    terms, given_ = agreed(parts={"frozen": ("0.*",)}), inputs(*rows_of(1, ROWS))
    base, begun = initial(RECIPE, 0, terms.parts)
    moved = replace(begun, frozen={name: array + 1 for name, array in begun.frozen.items()})
    found = []
    for rest in (begun, moved):
        parts, told, _ = asked(terms, Train(), [replace(given_, base=base, begun=rest)], [Draws()])
        found += out_of(parts, told[0])
    assert np.abs(found[0] - found[1]).max() > 1e-3


HOSTILE = st.floats(width=32, allow_nan=False, allow_infinity=False)
"""A recipe gives finite numbers; what the model makes of them need not be finite."""


@given(row=st.lists(HOSTILE, min_size=3, max_size=3), label=st.integers(0, 1))
@settings(max_examples=20, deadline=None)
def test_one_record_moves_the_sum_by_a_unit_at_most_whatever_it_is(row, label):
    others, _ = rows_of(2, 7)
    hostile = Examples(np.array([row], np.float32), np.array([label]))
    base, _ = initial(RECIPE, 0)
    mechanism, cells = DpSgd(noise_multiplier=1.0, clip_norm=0.7, sampling_rate=1.0, steps=1, shared_by=3), 2 ** 20

    def summed(examples: Examples) -> np.ndarray:
        return cells * clipped_gradients(RECIPE, Lesson(base, examples), UnionStep(batch_size=60), mechanism, cells, Silent())

    moved = summed(joined([others, hostile])) - summed(others)
    assert np.array_equal(moved, np.rint(moved))
    assert np.linalg.norm(moved) <= cells


@pytest.mark.parametrize("survivors", [SHARED_BY, 4, MEMBERS])
def test_the_noise_in_a_sum_is_that_of_all_who_added_theirs(survivors):
    """z sqrt(m / h) on each number; with h of them exactly what is charged."""
    edges = tuple(float(edge) for edge in range(999))
    ages = Histogram(noise_std=3.0, column="age", edges=edges)
    wide = Recipe("wide", "2" * 64, lambda: nn.Linear(3999, 1), lambda rows: rows)
    nothing = Examples(np.zeros((1, 3999), np.float32), np.zeros(1, np.int64), np.zeros(1, bool))
    terms, asks = agreed(training={**TERMS["training"], "batch_size": 1000}), Train(statistics=())
    sites = [inputs(nothing, np.full(2, 45.0), wide)] * survivors
    draws = [Draws(bytes([number]) * 32) for number in range(survivors)]
    parts, told, (mechanism,) = asked(terms, asks, sites, draws)
    noise_D, = out_of(parts, added(told))
    counts, told, _ = asked(terms, Measure(statistics=(ages,)), sites, draws)
    table, = out_of(counts, added(told))
    table[46] -= 2 * survivors
    for numbers, std in ((noise_D, mechanism.noise_multiplier), (table, 3.0)):
        scaled = numbers / (std * math.sqrt(survivors / SHARED_BY))
        assert stats.kstest(scaled, "norm").pvalue > 1e-4
        assert stats.chi2(len(scaled)).cdf(np.square(scaled).sum()) == pytest.approx(0.5, abs=0.4999)


def test_the_noise_of_a_sum_is_what_dp_sgd_on_all_rows_takes_and_every_site_offers_the_same():
    terms, asks = agreed(), Train(statistics=(SCORES,))
    offered = offer(asks, terms, 7, lambda _: True)
    assert offer(asks, terms, 70_000, lambda _: True, apart=True) == offered
    training, counts = offered.mechanisms
    assert (training.shared_by, counts.shared_by) == (SHARED_BY, SHARED_BY)
    own = DpSgd(noise_multiplier=training.noise_multiplier, clip_norm=0.7, sampling_rate=60 / ROWS, steps=1)
    campaign = [*[own] * 5, *[GaussianCounts(noise_std=6.0)] * 6]
    assert epsilon([*[training] * 5, *[counts] * 6], 1e-5) == epsilon(campaign, 1e-5) <= 8.0
    assert epsilon(map(alone, offered.mechanisms), 1e-5) > epsilon(offered.mechanisms, 1e-5)
    assert offered.louder(2.0) == offered
    assert {lot.mechanism.shared_by for lot in offered.campaign(())} == {SHARED_BY}


def test_a_total_says_the_noise_of_all_who_were_added_up():
    terms = agreed()
    offered = offer(Measure(statistics=(AGES,)), terms, 1, lambda _: True)
    found = read(Measure(statistics=(AGES,)), terms, [Added([np.array([4.0, 5.0, 6.0, 0.0])], MEMBERS, ROWS)],
                 offered.mechanisms)
    assert found.delta_D is None
    assert found.totals[0].noise_std == pytest.approx(3.0 * math.sqrt(MEMBERS / SHARED_BY))
    assert found.totals[0].numbers == (4.0, 5.0, 6.0, 0.0)


def test_a_total_without_noise_that_members_share_is_refused():
    for mechanism in (GaussianCounts(noise_std=3.0), RowSum(noise_multiplier=1.0, shared_by=3)):
        with pytest.raises(ContractError, match="noise that its members share"):
            read(Measure(statistics=(AGES,)), agreed(), [Added([np.zeros(4)], MEMBERS, ROWS)], (mechanism,))


def test_a_step_on_all_rows_is_noised_by_dp_sgd():
    with pytest.raises(ContractError, match="noised by dp_sgd, this one by row_sum"):
        read(Train(), agreed(), [Added([np.zeros(4)], MEMBERS, ROWS)], (RowSum(noise_multiplier=1.0, shared_by=3),))


def test_steps_at_the_sites_are_no_sum():
    terms = agreed().model_copy(update={"training": LocalTraining(local_steps=3, learning_rate=0.5)})
    mechanism = DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=0.5, steps=1)
    with pytest.raises(ContractError, match="steps at the sites"):
        read(Train(), terms, [Added([np.zeros(4)], MEMBERS, ROWS)], (mechanism,))


def test_a_person_moves_a_masked_sum_by_one_and_counts_by_all_rows():
    person = {"unit": "person", "person": "age", "rows_per_person": 3, "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 5}
    terms, asks = agreed(privacy=person), Train(statistics=(SCORES,))
    train = Examples(np.full((6, 3), 9.0, np.float32), np.array([0, 0, 0, 1, 1, 1]))
    one = inputs(train, np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0] * 2))
    parts, told, mechanisms = asked(terms, asks, [one], [Draws()])
    assert [one.rows_per_person for one in mechanisms] == [3, 3]
    update, scores = out_of(parts, told[0])
    assert 0 < np.linalg.norm(update) <= 2.0
    assert scores.sum() == pytest.approx(6.0, abs=0.1)


# -- the lattice -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2 ** 32 - 1))
@settings(max_examples=20)
def test_what_is_read_is_the_sum_of_what_was_on_the_lattice(seed):
    parts = (Part(3, 5, 1 << 20), Part(2, -2, 1 << 10))
    cells_S = np.repeat([1 << 20, 1 << 10], [3, 2])
    numbers_MS = (np.rint(np.random.default_rng(seed).normal(scale=1000, size=(MEMBERS, 5)) * cells_S) + 0.5) / cells_S
    found = out_of(parts, added([in_ring(parts, one_S) for one_S in numbers_MS]))
    exact = [np.rint(numbers_MS[:, :3] * 32).sum(0) / 32, np.rint(numbers_MS[:, 3:] / 4).sum(0) * 4]
    for ours, theirs in zip(found, exact, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("most", [None, 1, 7])
@pytest.mark.parametrize("rows", [ROWS, 10 ** 7])
def test_the_ring_has_room_for_all_that_members_may_have_and_no_room_is_given_away(most, rows):
    terms = agreed().model_copy(update={"together": Together(members=MEMBERS, rows=rows)})
    counts = GaussianCounts(noise_std=3.0, shared_by=SHARED_BY, rows_per_person=most)
    update = DpSgd(noise_multiplier=2.0, clip_norm=1.0, sampling_rate=0.5, steps=1, shared_by=SHARED_BY)
    parts = layout(Train(statistics=(SCORES,)), terms, 10, (update, counts))
    for part, std, each in zip(parts, (2.0, 3.0), (1, HELD_OUT_TOO * (most or 1)), strict=True):
        reach = (MORE_ROWS * rows * each + 12 * math.sqrt(MEMBERS) * std / math.sqrt(SHARED_BY)) * 2.0 ** part.bits
        assert reach < 2 ** 31
        assert rows == ROWS or reach > 2 ** 29.9, "coarser than the ring would allow"


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0, 8.0, 1000.0])
def test_a_members_noise_is_no_less_than_its_share_of_what_is_charged_with_what_rounding_may_add(noise):
    """Also where the share is a power of two, and the lattice would be met exactly."""
    terms = agreed().model_copy(update={"together": Together(members=6, rows=ROWS)})
    assert terms.shared_by == 4
    (part,) = layout(Measure(statistics=(AGES,)), terms, 0, (GaussianCounts(noise_std=noise, shared_by=4),))
    std = Fraction(GRID) / part.cells
    assert Fraction(noise) / 2 * (1 + Fraction(1, 2 ** 30)) <= std <= Fraction(noise) / 2 * (1 + Fraction(1, 2 ** 17))


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ContractError, match="5 numbers"):
        in_ring((Part(3, 5, 1), Part(2, 5, 1)), np.zeros(4))


def test_a_sum_that_could_leave_the_ring_is_refused_with_the_number():
    huge = agreed().model_copy(update={"together": Together(members=MEMBERS, rows=10 ** 11)})
    with pytest.raises(ToleranceError, match="ring"):
        layout(Train(), huge, 10, [DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=1e-6, steps=1, shared_by=3)])


@pytest.mark.parametrize(("mechanisms", "words"), [
    ([RowSum(noise_multiplier=1.0)], "share"), ([RowSum(noise_multiplier=1.0, shared_by=4)], "shared by 4"),
    ([], "0 mechanisms for 1 parts")])
def test_noise_that_is_not_shared_as_agreed_is_refused(mechanisms, words):
    with pytest.raises(ContractError, match=words):
        layout(Train(), agreed(), 10, mechanisms)


def test_a_statistic_without_noise_and_the_importance_of_columns_are_refused():
    exact, terms = Measure(statistics=(AGES.model_copy(update={"noise_std": 0.0}),)), agreed()
    with pytest.raises(ContractError, match="noise of more than 0"):
        layout(exact, terms, 0, offer(exact, terms, 1, lambda _: True).mechanisms)
    of = Importance.model_construct(noise_std=3.0)
    with pytest.raises(ContractError, match="importance of columns"):
        layout(Measure.model_construct(statistics=(of,)), terms, 0, (GaussianCounts(noise_std=3.0, shared_by=3),))


# -- what is agreed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "words"), [
    ({"aggregation": {"rule": {"name": "weighted_mean"}}}, "leave \\[aggregation\\] out"),
    ({"compression": {"name": "quantised", "bits": 8}}, "leave \\[compression\\] out"),
    ({"training": {"local_steps": 3}}, "union_step"),
    ({"privacy": {"unit": "none"}}, "without noise"),
    ({"privacy": {"unit": "site", "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 5}}, "unit 'site'"),
    ({"privacy": {**TERMS["privacy"], "mechanism": "dp_ftrl"}}, "dp_sgd"),
    ({"privacy": {**TERMS["privacy"], "adaptive": {}}}, "privacy.adaptive"),
    ({"parts": {"private": ["0.*"]}}, "parts.private"),
    ({"reputation": {"window": 3, "exclude_after": 2, "exclude_for": 2}}, "\\[reputation\\] goes by"),
    ({"incentive": {"points": 10}}, "\\[incentive\\] goes by"),
    ({"partitions": {"column": "day", "by": "week"}}, "\\[partitions\\] goes by"),
    ({"combine": None}, "union_step.*combine"),
])
def test_what_does_not_go_with_a_secure_sum_is_refused_in_words(changes, words):
    with pytest.raises(ValueError, match=words):
        Agreement.model_validate({**TERMS, **changes})


GROUPED = SecureSum(threshold=8, dropouts=0, colluders=1, groups=SumGroups(count=5, liars=2))


def test_what_a_liars_group_says_moves_the_step_no_further_than_the_other_groups_do():
    """By two loops; and a total of counts has the lie in it."""
    terms = agreed(combine=GROUPED, quorum=15).model_copy(update={"together": Together(members=15, rows=ROWS)})
    asks, generator = Train(statistics=(SCORES,)), np.random.default_rng(3)
    mechanisms = offer(asks, terms, 1, lambda _: True).mechanisms
    sums = [Added([generator.normal(size=7), generator.normal(size=8)], 3, 20.0) for _ in range(5)]
    assert terms.shared_by == 2
    for liars in ((), (0,), (1, 4), (2, 3)):
        lied = [Added([1e6 * one.totals[0] if place in liars else one.totals[0], one.totals[1]], 3, 20.0)
                for place, one in enumerate(sums)]
        found = read(asks, terms, lied, mechanisms)
        each = [read(asks, agreed(), [one], mechanisms).delta_D for one in lied]
        honest = [one for place, one in enumerate(each) if place not in liars]
        for place, value in enumerate(found.delta_D):
            values = sorted(one[place] for one in each)
            assert value == pytest.approx(values[2])
            assert min(one[place] for one in honest) <= value <= max(one[place] for one in honest)
    assert found.totals[0].table.sum() == pytest.approx(sum(one.totals[1].sum() for one in sums))
    with pytest.raises(ContractError, match="4 sums of groups, and the terms say 5"):
        read(asks, terms, sums[:4], mechanisms)
