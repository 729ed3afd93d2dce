"""A site's half of a round: what is offered is what is done, what is sent is what is kept count of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedround import codec
from fedround.agreement import Agreement
from fedround.codec import flatten, schema_of
from fedround.compression import wire
from fedround.compression.spec import Quantised, TopK
from fedround.errors import Cancelled, ContractError
from fedround.learning.examples import Examples
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.recipe import Recipe, initial
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.privacy.participation import times_left, times_paid
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianCounts, GaussianUpdate, NoMechanism, RowSum
from fedround.records import Evaluate, Measure, Train
from fedround.rounds.campaign import mechanism_for
from fedround.rounds.offer import offer
from fedround.rounds.site import (
    PERSONAL,
    PRIVATE,
    RESIDUAL,
    Inputs,
    Kept,
    Sent,
    declare,
    first_row_of,
    rest_at,
    send,
    shift_of,
    units_at,
    vectors_after,
    work,
)
from fedround.statistics import Bands, Decisions, Histogram, Importance, Scores, release

RECIPE = Recipe("two", "0" * 64, lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), lambda rows: rows)
SCORES, AGES = Scores(noise_std=5.0, bins=4), Histogram(noise_std=3.0, column="age", edges=(20.0, 40.0))
SEED = bytes(32)
RECORD = {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def agreed(**changes: object) -> Agreement:
    return Agreement.model_validate({
        "name": "rounds", "quorum": 1, "privacy": {"unit": "none"}, "aggregation": {"rule": {"name": "weighted_mean"}},
        "training": {"local_steps": 3, "batch_size": 16, "learning_rate": 0.5}} | changes)


@dataclass(frozen=True)
class Draws:
    """Every stream by its name, and who asked for it."""

    asked: list

    def _stream(self, *what: object):
        self.asked.append(what)
        return stream(SEED, str(what).encode())

    def statistic(self, place, private):
        return self._stream("statistic", place, tuple(private))

    def training(self, shift_D, private):
        return self._stream("training", None if shift_D is None else hashlib.sha256(shift_D).hexdigest(), tuple(private))

    def compression(self):
        return self._stream("compression")

    def personal(self):
        return self._stream("personal")

    def persons(self):
        return SEED


class Guard:
    """Nobody stops it, and its time is not up."""

    def __init__(self, *, stop: bool = False, late: bool = False):
        self._stop, self._late = stop, late

    def __call__(self) -> bool:
        return self._stop

    def time_is_up(self) -> bool:
        return self._late


def inputs(agreement: Agreement, kept: Kept | None = None, served=None, rows: int = 40) -> Inputs:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(2, rows, 3)).astype(np.float32), generator.integers(0, 2, (2, rows))
    base, begun = initial(RECIPE, 0, agreement.parts)
    columns = {"age": generator.uniform(0, 90, 2 * rows)}
    return Inputs(RECIPE, base, begun, served or {}, kept or Kept(), Examples(x[0], y[0]), Examples(x[1], y[1]),
                  columns.__getitem__)


def done(asks, agreement: Agreement, kept: Kept | None = None, served=None, number: int = 2, guard: Guard | None = None):
    given_, terms, draws = inputs(agreement, kept, served), agreement.terms(), Draws([])
    offered = offer(asks, terms, len(given_.train), lambda _: True)
    return work(asks, terms, number, SEED, given_, offered, draws, guard or Guard()), draws.asked, given_


def trained(agreement: Agreement, given_: Inputs, shift_D=None):
    """By hand: what the release of the training is, before it is packed."""
    mechanism = offer(Train(), agreement.terms(), len(given_.train), lambda _: True).training
    what = ("training", None if shift_D is None else hashlib.sha256(shift_D).hexdigest(), tuple(given_.rest.private))
    return train(RECIPE, given_.base, given_.train, agreement.training, mechanism, stream(SEED, str(what).encode()),
                 lambda: False, shift_D=shift_D, rest=given_.rest)


# -- what is offered ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("privacy", "kind"), [
    ({"unit": "none"}, NoMechanism), (RECORD, DpSgd), ({**RECORD, "mechanism": "dp_ftrl"}, DpFtrl),
    ({**RECORD, "unit": "site"}, GaussianUpdate)], ids=["none", "record", "ftrl", "site"])
def test_an_offer_to_train_is_the_mechanism_that_keeps_the_promise_and_the_statistics_that_may_leave(privacy, kind):
    terms = agreed(privacy=privacy).terms()
    offered, alone = (offer(Train(statistics=(SCORES,)), terms, 40, lambda _, may=may: may) for may in (True, False))
    assert isinstance(offered.training, kind)
    assert (offered.statistics, alone.statistics) == ((SCORES,), ())
    assert offered.mechanisms == (offered.training, GaussianCounts(noise_std=5.0))


@pytest.mark.parametrize("asks", [Evaluate(statistics=(SCORES,)), Measure(statistics=(SCORES, AGES))],
                         ids=lambda one: one.kind)
def test_a_question_that_asks_for_no_training_is_offered_none(asks):
    offered = offer(asks, agreed(privacy=RECORD).terms(), 40, lambda _: True)
    assert offered.training is None
    assert offered.mechanisms == tuple(one.mechanism for one in asks.statistics)


def test_a_louder_offer_has_more_noise_in_its_training_and_in_nothing_else():
    offered = offer(Train(statistics=(SCORES,)), agreed(privacy=RECORD).terms(), 40, lambda _: True)
    louder = offered.louder(1.25)
    assert 0 <= louder.training.noise_multiplier - 1.25 * offered.training.noise_multiplier < 0.001
    assert louder.training.noise_multiplier == round(louder.training.noise_multiplier, 3)
    assert louder.training.model_copy(update={"noise_multiplier": 1.0}) == offered.training.model_copy(
        update={"noise_multiplier": 1.0})
    assert louder.statistics == offered.statistics
    for asks, privacy in ((Evaluate(statistics=(SCORES,)), RECORD), (Train(statistics=(SCORES,)), {"unit": "none"})):
        quiet = offer(asks, agreed(privacy=privacy).terms(), 40, lambda _: True)
        assert quiet.louder(1.25) == quiet


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_what_is_offered_is_calibrated_for_rows_that_are_held_apart_or_not(apart):
    terms = agreed(privacy=RECORD).terms()
    offered = offer(Train(statistics=(SCORES,)), terms, 40, lambda _: True, apart=apart)
    assert offered.training == mechanism_for(terms.privacy, terms.training, terms.evaluation, 40, apart=apart)
    other = offer(Train(statistics=(SCORES,)), terms, 40, lambda _: True, apart=not apart)
    assert (offered.training.noise_multiplier < other.training.noise_multiplier) == apart, "or this law is about nothing"


# -- what is set aside -------------------------------------------------------------------------------------------------

DRIFT = {"columns": ({"column": "age", "edges": (40.0,)},), "noise_std": 7.0, "every": 2}
GROUPS = {"threshold": 0.5, "promotions": 3, "watched": ({"of": {"column": "sex", "values": (0, 1)}, "noise_std": 9.0},)}


def lots(offered, *, apart: bool, **more) -> dict:
    """How often what is set aside, by kind or noise, and by the rows it is of."""
    found = offered.campaign(offered.rows if apart else (), **more)
    assert len({lot.use for lot in found}) == len(found)
    return {(getattr(lot.mechanism, "noise_std", lot.mechanism.kind), lot.rows): lot.times for lot in found}


def test_what_trains_counts_and_measures_uses_rows_of_its_own_kind():
    terms = agreed(privacy=RECORD).terms()
    assert offer(Train(statistics=(SCORES,)), terms, 40, lambda _: True).rows == ("train", "validation")
    assert offer(Measure(statistics=(AGES,)), terms, 40, lambda _: True).rows == ("all",)
    assert offer(Evaluate(statistics=(SCORES,)), terms, 40, lambda _: True).rows == ("validation",)


@pytest.mark.parametrize("done", [0, 1, 2, 5, 9])
def test_a_campaign_sets_aside_the_rounds_that_are_left_the_last_scores_promotions_and_what_drift_still_counts(done):
    terms = agreed(privacy=RECORD, drift=DRIFT, groups=GROUPS).terms()
    offered, left = offer(Train(statistics=(SCORES,)), terms, 40, lambda _: True), max(1, 5 - done)
    measured = terms.drift.times(5) - terms.drift.times(min(done, 5))
    expected = {("dp_sgd", "train"): left, (5.0, "validation"): left + 1, (9.0, "validation"): 3, (7.0, "all"): measured}
    more = {"done": done, "groups": terms.groups, "drift": terms.drift}
    assert lots(offered, apart=True, **more) == {use: times for use, times in expected.items() if times}
    together = {("dp_sgd", "all"): left, (5.0, "all"): left + 1, (9.0, "all"): 3, (7.0, "all"): measured}
    assert lots(offered, apart=False, **more) == {use: times for use, times in together.items() if times}


def test_rows_in_their_order_pay_for_the_passes_that_are_left_wherever_the_next_one_begins():
    terms = agreed(privacy={**RECORD, "mechanism": "dp_ftrl", "rounds": 10}).terms()
    offered = offer(Train(), terms, 500, lambda _: True)
    assert times_paid(offered.training, 10) < times_left(offered.training, 10), "or this law is about nothing"
    assert lots(offered, apart=False) == {("dp_ftrl", "all"): times_paid(offered.training, 10)}
    assert lots(offered, apart=False, done=4) == {("dp_ftrl", "all"): times_left(offered.training, 6)}


def test_a_question_that_makes_no_model_sets_aside_itself_once_and_so_does_training_that_promises_nothing():
    terms = agreed(privacy=RECORD, drift=DRIFT, groups=GROUPS).terms()
    offered = offer(Measure(statistics=(AGES, SCORES)), terms, 40, lambda _: True)
    assert lots(offered, apart=True, groups=terms.groups, drift=terms.drift) == {(3.0, "all"): 1, (5.0, "validation"): 1}
    exact = offer(Train(statistics=(SCORES,)), agreed().terms(), 40, lambda _: True)
    assert lots(exact, apart=True, drift=terms.drift) == {("none", "train"): 1, (5.0, "validation"): 2}


# -- what is done ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", [Evaluate(statistics=(SCORES,)), Measure(statistics=(AGES, SCORES, AGES))],
                         ids=lambda one: one.kind)
def test_statistics_are_released_in_their_order_each_with_draws_of_its_own(asks):
    worked, asked, given_ = done(asks, agreed())
    assert asked == [("statistic", place, ()) for place in range(len(asks.statistics))]
    assert tuple(one.statistic for one in worked.releases) == asks.statistics
    assert (worked.declared, worked.payload) == (None, None)
    assert (worked.keeps.vectors, worked.keeps.models) == ({}, {})

    class Ages:
        column = staticmethod(given_.column)

    for place, one in enumerate(worked.releases):
        if one.statistic == AGES:
            assert one == release(AGES, Ages(), stream(SEED, str(("statistic", place, ())).encode()))


@pytest.mark.parametrize("privacy", [{"unit": "none"}, RECORD], ids=["none", "record"])
def test_an_update_is_that_of_training_and_travels_as_it_is(privacy):
    agreement = agreed(privacy=privacy)
    worked, asked, given_ = done(Train(statistics=(SCORES,)), agreement)
    assert asked == [("statistic", 0, ()), ("training", None, ())]
    expected = trained(agreement, given_)
    assert worked.payload == codec.encode(expected.delta)
    assert worked.declared.steps is worked.declared.rows is None
    assert worked.keeps.vectors == worked.keeps.models == {}


def test_what_leaves_depends_on_all_that_is_kept_and_its_noise_does_too():
    """A private part and a shift steer the release: the same noise under another one would tell their difference."""
    agreement = agreed(parts={"private": ("2.*",)}, training={"local_steps": 3, "learning_rate": 0.5, "algorithm": {
        "name": "scaffold"}})
    served = {"control": np.full(16, 0.1, np.float32)}
    worked, asked, given_ = done(Train(statistics=(SCORES,)), agreement, served=served)
    shift_D = shift_of(agreement.terms(), served, Kept())
    names = ("2.bias", "2.weight")
    assert sorted(asked[0][2]) == sorted(names)
    assert asked[1][1] == hashlib.sha256(shift_D).hexdigest()
    expected = trained(agreement, given_, shift_D)
    assert worked.payload == codec.encode(expected.delta)
    assert set(worked.keeps.models[PRIVATE]) == set(names)
    assert worked.keeps.vectors["control"].tolist() == agreement.training.algorithm.at_site(
        shift_D, flatten(expected.delta), agreement.training)["control"].tolist()


def test_a_private_part_and_a_personal_model_go_on_from_what_was_kept():
    parted = agreed(parts={"private": ("2.*",)})
    first, _, given_ = done(Train(), parted)
    second, _, again = done(Train(), parted, kept=first.keeps)
    assert rest_at(given_.begun, Kept()).private is given_.begun.private
    assert again.rest.private is first.keeps.models[PRIVATE]
    assert flatten(second.keeps.models[PRIVATE]).tolist() != flatten(first.keeps.models[PRIVATE]).tolist()
    beside = agreed(personal={"name": "ditto", "pull": 0.1})
    one, asked, _ = done(Train(), beside)
    two, _, _ = done(Train(), beside, kept=one.keeps)
    alone, _, _ = done(Train(), agreed())
    assert asked == [("training", None, ()), ("personal",)]
    assert one.payload == two.payload == alone.payload, "nothing that leaves depends on the personal model"
    assert flatten(one.keeps.models[PERSONAL]).tolist() != flatten(two.keeps.models[PERSONAL]).tolist()


def test_a_personal_model_is_pulled_towards_the_base_model_as_strongly_as_is_agreed():
    far, near = (np.linalg.norm(flatten(worked.keeps.models[PERSONAL]) - flatten(given_.base)) for worked, _, given_ in (
        done(Train(), agreed(personal={"name": "ditto", "pull": pull})) for pull in (0.01, 1.9)))
    assert near < 0.9 * far


def test_when_time_is_up_the_update_and_the_personal_model_have_the_steps_so_far():
    training = {"batch_size": 16, "learning_rate": 0.5, "partial": "keep"}
    long, short = (agreed(personal={"name": "ditto", "pull": 0.1}, training={**training, "local_steps": steps})
                   for steps in (3, 1))
    late, _, _ = done(Train(), long, guard=Guard(late=True))
    one, _, _ = done(Train(), short)
    assert (late.declared.steps, one.declared.steps) == (1, None)
    assert late.payload == one.payload
    assert flatten(late.keeps.models[PERSONAL]).tolist() == flatten(one.keeps.models[PERSONAL]).tolist()


def test_who_is_stopped_releases_nothing_and_who_holds_out_nothing_says_no_scores():
    with pytest.raises(Cancelled):
        done(Train(), agreed(), guard=Guard(stop=True))
    terms, given_ = agreed().terms(), inputs(agreed())
    bare = Inputs(given_.recipe, given_.base, NO_REST, {}, Kept(), given_.train, None, given_.column)
    asks = Evaluate(statistics=(SCORES,))
    with pytest.raises(ContractError, match="holds out no rows"):
        work(asks, terms, 1, SEED, bare, offer(asks, terms, 40, lambda _: True), Draws([]), Guard())


# -- from a delta to what leaves ---------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.floats(0.05, 0.5))
def test_what_arrives_and_what_waits_are_together_what_was_computed(rounds, share):
    how, kept, computed, arrived = TopK(share=share), Kept(), 0.0, 0.0
    for number in range(rounds):
        delta_D = np.random.default_rng(number).normal(size=50).astype(np.float32)
        sent = send(how, delta_D, kept, Draws([]), SEED)
        kept = Kept({RESIDUAL: sent.residual_D})
        computed, arrived = computed + delta_D, arrived + sent.arrives_D
        assert np.array_equal(sent.arrives_D, wire.expanded(sent.packed, how, 50, SEED))
    assert arrived + sent.residual_D == pytest.approx(computed, abs=1e-5)


def test_what_is_unbiased_leaves_nothing_over_and_what_is_whole_is_not_packed():
    delta_D, waiting = np.random.default_rng(0).normal(size=50).astype(np.float32), Kept({RESIDUAL: np.ones(50, np.float32)})
    rounded = send(Quantised(bits=8), delta_D, waiting, Draws([]), SEED)
    assert rounded.residual_D is None
    assert rounded.arrives_D == pytest.approx(delta_D, abs=0.05), "a residual of another compression is not added"
    whole = send(None, delta_D, waiting, Draws([]), SEED)
    assert (whole.packed, whole.residual_D) == (None, None)
    assert whole.arrives_D.tolist() == delta_D.tolist()


def test_a_compressed_updates_residual_is_kept_and_its_file_is_what_leaves():
    agreement = agreed(compression={"name": "top_k", "share": 0.3})
    first, _, given_ = done(Train(), agreement)
    second, _, _ = done(Train(), agreement, kept=first.keeps)
    delta_D = flatten(trained(agreement, given_).delta)
    arrives_D = wire.expanded(first.payload, agreement.compression, len(delta_D), SEED)
    assert first.keeps.vectors[RESIDUAL] == pytest.approx(delta_D - arrives_D, abs=1e-7)
    assert first.payload != second.payload
    assert len(first.payload) < len(codec.encode(given_.base))


# -- what is said of it ------------------------------------------------------------------------------------------------


def test_rows_and_steps_are_said_only_where_the_noise_cannot_be_known_without():
    training = agreed().training
    some = DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=0.4, steps=3)
    every, update = some.model_copy(update={"sampling_rate": 1.0}), GaussianUpdate(noise_multiplier=1.0, clip_norm=1.0)
    assert [declare(one, training, 9, 3, None).rows for one in (some, every, update, NoMechanism(), RowSum(
        noise_multiplier=1.0))] == [None, 9, None, None, 9]
    assert [declare(some, training, 9, steps, None).steps for steps in (2, 3)] == [2, None]
    assert declare(some, training, 9, 3, 0.7).within_clip == 0.7


def test_compressed_trees_leave_a_residual_and_nothing_else():
    trees = agreed(training={"name": "trees", "rounds": 2, "axes": ({"low": 0.0, "high": 1.0},)}).terms()
    sent, residual_D = np.ones(3, np.float32), np.full(3, 0.5, np.float32)
    assert vectors_after(trees, None, Sent(sent, b"", residual_D)) == {RESIDUAL: residual_D}
    assert vectors_after(trees, None, Sent(sent, b"", None)) == {}


def test_only_rows_in_their_order_begin_somewhere():
    ordered = DpFtrl(noise_multiplier=1.0, clip_norm=1.0, batch_size=4, steps=3)
    assert [first_row_of(ordered, number, 40) for number in (1, 2, 5)] == [0, 12, 8]
    assert first_row_of(NoMechanism(), 5, 40) == 0


def test_what_is_kept_is_called_as_the_files_at_sites_are():
    assert (RESIDUAL, PRIVATE, PERSONAL) == ("residual", "private", "personal")


def test_frozen_tensors_stay_as_they_begin():
    begun = Rest({"a": np.zeros(2, np.float32)}, {"b": np.ones(2, np.float32)})
    own = {"a": np.full(2, 3.0, np.float32)}
    found = rest_at(begun, Kept(models={PRIVATE: own}))
    assert found.private is own
    assert found.frozen is begun.frozen
    assert schema_of(found.whole) == schema_of(begun.whole)


# -- persons --------------------------------------------------------------------------------------------------------------


def persons_of_rows(agreement: Agreement, whose: list[int], ages: list[float]) -> Inputs:
    """Forty rows to train on and forty held out."""
    given_ = inputs(agreement)
    return replace(given_, column={"age": np.array(ages, float), "customer": np.array(whose)}.__getitem__)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_attack_a_person_with_fifty_rows_is_in_no_table_with_more_than_are_paid_for(most):
    """Fifty of all eighty rows are hers, most of them held out; the others have one each."""
    agreement = agreed(privacy={**RECORD, "unit": "person", "person": "customer", "rows_per_person": most})
    hers = [row >= 30 for row in range(80)]
    given_ = persons_of_rows(agreement, [-1 if own else row for row, own in enumerate(hers)],
                             [80.0 if own else 10.0 for own in hers])
    decided = Decisions(noise_std=1e-3, model="0" * 64, of=Bands(column="age", edges=(20.0, 40.0)), threshold=0.5)
    width = given_.validation.table_NF.shape[1]
    columns = Importance(noise_std=1e-3, model="0" * 64, judged=SCORES.model_copy(update={"noise_std": 0.0}),
                         of=({"column": "a", "places": (0,)},), public=((0.0,) * width, (1.0,) * width))
    quiet = AGES.model_copy(update={"noise_std": 1e-3}), SCORES.model_copy(update={"noise_std": 1e-3}), decided, columns
    terms = agreement.terms()
    offered = offer(Measure(statistics=quiet), terms, 31, lambda _: True)
    worked = work(Measure(statistics=quiet), terms, 1, SEED, given_, offered, Draws([]), Guard())
    ages, scored, decisions, replaced = (np.rint(one.table) for one in worked.releases)
    assert ages.tolist() == [30, 0, most, 0]
    assert scored.sum() == decisions.sum() == decisions[2].sum() == most        # all forty that are held out are hers
    assert [table.sum() for table in replaced] == [most, most]
    assert tuple(one.mechanism for one in worked.releases) == offered.mechanisms
    assert {one.mechanism.rows_per_person for one in worked.releases} == {most}


def test_batches_are_drawn_from_rows_or_from_persons_who_have_some_to_train_on():
    by_person = agreed(privacy={**RECORD, "unit": "person", "person": "customer", "rows_per_person": 4})
    given_ = persons_of_rows(by_person, [row % 10 if row < 40 else row for row in range(80)], [10.0] * 80)
    assert units_at(by_person.privacy, given_.train, given_.column) == 10
    assert units_at(agreed(privacy=RECORD).privacy, given_.train, given_.column) == 40


def test_a_column_that_is_not_one_of_all_rows_is_read_for_nothing():
    given_ = replace(inputs(agreed()), column={"age": np.ones(79)}.__getitem__)
    decided = Decisions(noise_std=1.0, model="0" * 64, of=Bands(column="age", edges=(20.0,)), threshold=0.5)
    asks = Measure(statistics=(decided,))
    with pytest.raises(ContractError, match="79 values, and there are 40 rows to train on and 40 held out"):
        work(asks, agreed().terms(), 1, SEED, given_, offer(asks, agreed().terms(), 40, lambda _: True), Draws([]), Guard())


def test_what_a_person_is_trained_on_is_drawn_clipped_and_said_by_persons():
    agreement = agreed(privacy={**RECORD, "unit": "person", "person": "customer", "rows_per_person": 4})
    given_ = persons_of_rows(agreement, [row % 10 for row in range(80)], [10.0] * 80)
    offered = offer(Train(), agreement.terms(), 10, lambda _: True)
    worked = work(Train(), agreement.terms(), 1, SEED, given_, offered, Draws([]), Guard())
    assert worked.declared == declare(offered.training, agreement.training, 10, 3, None)
    assert worked.declared.rows == 10               # fewer persons than a batch: the noise is divided by their number
    assert {lot.mechanism.rows_per_person for lot in offered.campaign(())} == {4}
