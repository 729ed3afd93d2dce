"""The unit `person`: what a promise for all rows of one person costs, and what it says of records."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from pydantic import ValidationError

from fedround.errors import BudgetError
from fedround.learning.spec import LocalTraining
from fedround.learning.trees.spec import Axis, Trees
from fedround.privacy.accounting import epsilon
from fedround.privacy.ledger import Charge, charge, create, held, spent
from fedround.privacy.persons import epsilon_of_person
from fedround.privacy.quick import epsilon_at_most
from fedround.privacy.spec import (
    DpFtrl,
    DpSgd,
    GaussianCounts,
    GaussianUpdate,
    NoMechanism,
    PersonPrivacy,
    RecordPrivacy,
    RowSum,
)
from fedround.privacy.units import dearest, noise_of_one
from fedround.rounds.campaign import across_units, course, mechanism_for
from fedround.statistics import Bounded, GlmSums, LocalEvaluation

DELTA = 1e-5
PLAIN = DpSgd(noise_multiplier=1.1, clip_norm=1.0, sampling_rate=0.1, steps=20)
OURS = PLAIN.model_copy(update={"rows_per_person": 5})
COUNTS = GaussianCounts(noise_std=20.0, rows_per_person=5)
PERSON = PersonPrivacy(epsilon=5.0, delta_dp=DELTA, rounds=3, person="customer", rows_per_person=5)
TRAINING, EVALUATION = LocalTraining(local_steps=10, batch_size=64), LocalEvaluation(noise_std=100.0)


def test_a_person_pays_for_a_clipped_mean_what_a_record_pays_for_its_clipped_gradient():
    for mechanism, own in ((PLAIN, OURS), (PLAIN.model_copy(update={"count_noise_std": 8.0}),
                                           OURS.model_copy(update={"count_noise_std": 8.0}))):
        assert epsilon([own] * 3, DELTA, "person") == epsilon([mechanism] * 3, DELTA, "record")


def test_for_a_sum_of_means_a_person_pays_what_a_record_pays_for_its_row_and_a_record_for_twice_as_far():
    mine, plain = RowSum(noise_multiplier=6.0, rows_per_person=5), RowSum(noise_multiplier=6.0)
    assert epsilon([mine, COUNTS], DELTA, "person") == epsilon([plain, GaussianCounts(noise_std=4.0)], DELTA)
    assert epsilon([mine], DELTA) == epsilon([RowSum(noise_multiplier=3.0)], DELTA)
    assert epsilon([plain], DELTA, "person") == math.inf
    assert noise_of_one(mine) == 6.0
    for unit in ("record", "person"):
        assert epsilon(dearest([(mine, COUNTS), (mine,)]), DELTA, unit) == epsilon([mine, COUNTS], DELTA, unit)
    mixed = dearest([(mine, COUNTS), (plain,)])
    assert epsilon(mixed, DELTA) >= max(epsilon([mine, COUNTS], DELTA), epsilon([plain], DELTA))


def test_trees_keep_their_promise_to_persons():
    trees = Trees(rounds=3, axes=(Axis(),))
    applied = mechanism_for(PERSON, trees, EVALUATION, 500)
    assert (applied.kind, applied.rows_per_person) == ("row_sum", 5)
    assert 4.99 < across_units(PERSON, applied, EVALUATION)["person"] <= 5.0


def test_of_counts_a_person_pays_for_all_rows_in_one_cell():
    assert epsilon([COUNTS], DELTA, "person") == epsilon([GaussianCounts(noise_std=4.0)], DELTA)


@pytest.mark.parametrize(("rate", "steps"), [(0.1, 20), (0.5, 4)])
def test_a_record_of_a_person_is_exchanged_within_the_ball_as_a_second_accountant_says(rate, steps):
    """Without one of its rows a person's clipped mean is any other vector of the ball."""
    event = SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(1.1)), steps)
    oracle = PLDAccountant(NeighboringRelation.REPLACE_ONE).compose(event).get_epsilon(DELTA)
    ours = epsilon([OURS.model_copy(update={"sampling_rate": rate, "steps": steps})], DELTA, "record")
    assert oracle * (1 - 1e-4) <= ours <= oracle * 1.005
    assert ours > epsilon([PLAIN.model_copy(update={"sampling_rate": rate, "steps": steps})], DELTA, "record")


def test_a_record_of_a_person_pays_for_twice_the_clip_norm_and_in_counts_for_one_that_goes_and_one_that_comes():
    whole = OURS.model_copy(update={"sampling_rate": 1.0, "steps": 4, "noise_multiplier": 8.0})
    assert epsilon([whole], DELTA) == epsilon([GaussianCounts(noise_std=4.0)] * 4, DELTA)
    assert epsilon([COUNTS], DELTA) == epsilon([GaussianCounts(noise_std=10.0)], DELTA)


def test_attack_a_row_that_goes_lets_one_in_whose_numbers_have_the_other_sign():
    """In a table of counts the two are √2 apart at most; in a regression's sums nearly 2, and that is what a record pays."""
    of = tuple(Bounded(column=f"x{place}", low=-1.0, high=1.0) for place in range(12))
    steps = GlmSums(family="logistic", of=of, outcome=Bounded(column="y", low=0.0, high=1.0), noise_std=0.0,
                    at=(0.0, 50.0, *[0.0] * 11))
    row_NC = np.ones((2, 12))
    row_NC[1, 0] = -1.0
    columns = {**{one.column: row_NC[:, [place]] for place, one in enumerate(of)}, "y": np.array([[0.0], [1.0]])}
    stays, comes = (steps.noised(SimpleNamespace(column=lambda name, row=row: columns[name][row]), None) for row in (0, 1))
    apart = float(np.linalg.norm(stays - comes))
    assert math.sqrt(2) < apart <= 2.0
    assert epsilon([GaussianCounts(noise_std=20.0 / apart)], DELTA) <= epsilon([COUNTS], DELTA)


@pytest.mark.parametrize("mechanism", [PLAIN, GaussianCounts(noise_std=9.0), NoMechanism(),
                                       DpFtrl(noise_multiplier=9.0, clip_norm=1.0, batch_size=8, steps=5)])
def test_what_was_noised_for_records_bounds_nothing_for_a_person_whose_rows_nobody_counted(mechanism):
    assert epsilon([mechanism], DELTA, "person") == math.inf
    assert epsilon([mechanism, OURS], DELTA, "person") == math.inf
    assert epsilon([OURS, COUNTS], DELTA, "site") == math.inf


def test_a_whole_update_costs_a_person_what_it_costs_a_record():
    update = GaussianUpdate(noise_multiplier=4.0, clip_norm=1.0)
    assert epsilon([update] * 3, DELTA, "person") == epsilon([update] * 3, DELTA, "record")


def test_the_quick_bound_is_above_for_both_units():
    for unit in ("person", "record"):
        assert epsilon_at_most([(OURS, 3), (COUNTS, 2)], DELTA, unit) >= epsilon([OURS] * 3 + [COUNTS] * 2, DELTA, unit)


@pytest.mark.parametrize("others", [[OURS], [OURS, COUNTS], [PLAIN], [GaussianCounts(noise_std=3.0)],
                                    [GaussianCounts(noise_std=15.0)], [OURS, COUNTS, COUNTS],
                                    [OURS.model_copy(update={"rows_per_person": 7})]])
def test_the_dearest_is_never_cheaper_for_anybody_whoever_was_told_apart(others):
    found = list(dearest([[OURS, COUNTS], others]))
    for unit in ("record", "person"):
        assert all(epsilon(found, DELTA, unit) >= epsilon(one, DELTA, unit) * (1 - 1e-6) for one in ([OURS, COUNTS], others))
    assert list(dearest([[OURS, COUNTS]] * 2)) == [OURS, COUNTS]


@pytest.mark.parametrize("of_records", [GaussianCounts(noise_std=15.0), GaussianCounts(noise_std=5.0)])
@pytest.mark.parametrize("of_persons", [COUNTS, OURS.model_copy(update={"sampling_rate": 1.0, "noise_multiplier": 8.0})])
def test_the_dearest_is_never_cheaper_for_a_record_though_only_some_told_persons_apart(of_persons, of_records):
    """Of persons' rows one goes and another comes: what is noised for persons is worth half its noise."""
    found = dearest([[of_persons], [of_records]])
    assert all(epsilon(found, DELTA) >= epsilon([one], DELTA) for one in (of_persons, of_records))


def test_a_campaign_ends_within_its_epsilon_for_a_person_and_says_what_a_record_pays():
    mechanism = mechanism_for(PERSON, TRAINING, EVALUATION, 400)
    *_, last = course(PERSON, mechanism, EVALUATION)
    across = across_units(PERSON, mechanism, EVALUATION)
    assert 4.99 < last.total == across["person"] <= 5.0 < across["record"] < 12.5
    assert across["site"] == math.inf
    assert mechanism.rows_per_person == 5
    less = mechanism.model_copy(update={"noise_multiplier": mechanism.noise_multiplier - 0.001})
    assert [*course(PERSON, less, EVALUATION)][-1].total > 5.0
    assert mechanism_for(PERSON, TRAINING, EVALUATION, 400, apart=True) == mechanism     # a person may be on both sides


def test_without_counts_a_person_needs_the_noise_of_a_record_and_the_promise_for_records_is_worth_far_less():
    """What the unit is for: at epsilon 5 per record a person with five rows has 39 (privacy.md); here 5."""
    quiet = LocalEvaluation(noise_std=10_000.0)
    record = RecordPrivacy(epsilon=5.0, delta_dp=DELTA, rounds=3)
    ours, theirs = (mechanism_for(one, TRAINING, quiet, 400) for one in (PERSON, record))
    assert ours.noise_multiplier == pytest.approx(theirs.noise_multiplier, rel=2e-3)
    assert epsilon_of_person([(theirs, 5)] * 3, DELTA) > 25


def test_noise_is_measured_against_the_person_for_whom_it_was_made():
    assert (noise_of_one(OURS), noise_of_one(COUNTS)) == (1.1, 4.0)


def test_a_fixed_order_is_refused_in_words():
    with pytest.raises(ValidationError, match="rows lie in many batches"):
        PersonPrivacy(**PERSON.model_dump(exclude={"mechanism"}), mechanism="dp_ftrl")


# -- the ledger ----------------------------------------------------------------------------------------------------------


def line(plan: int, partition: str | None = None, **changes) -> Charge:
    return Charge(**{
        "federation": "clinics", "run": f"run-{plan}", "round": 1, "purpose": "train", "plan": f"{plan:064}",
        "mechanisms": (OURS, COUNTS), "delta_dp": DELTA, "utc": "2026-11-30T00:00:00Z", "partition": partition, **changes})


def test_for_a_person_partitions_add_up_and_the_policys_bound_holds(tmp_path):
    book = create(tmp_path / "ledger.jsonl", "people")
    for week in (1, 2):
        book = charge(book, line(week, f"2026-w0{week}-abcd1234"), 50.0, max_epsilon_person=12.0)
    one = create(tmp_path / "other.jsonl", "people")
    one = charge(one, line(1, "2026-w01-abcd1234"), 50.0)
    assert spent(book, DELTA, unit="record") == spent(one, DELTA, unit="record")           # a record is in one week
    assert spent(book, DELTA, unit="person") > 1.3 * spent(one, DELTA, unit="person")
    assert held(book, DELTA, unit="person") <= 12.0
    with pytest.raises(BudgetError, match="the epsilon of a person"):
        charge(book, line(3, "2026-w03-abcd1234"), 500.0, max_epsilon_person=held(book, DELTA, unit="person"))


def test_rows_to_train_on_and_rows_held_out_add_up_for_a_person(tmp_path):
    book = create(tmp_path / "ledger.jsonl", "people")
    book = charge(book, line(1, rows=("train", "validation")), 50.0, max_epsilon_person=50.0)
    assert spent(book, DELTA, unit="person") == epsilon([OURS, COUNTS], DELTA, "person")
