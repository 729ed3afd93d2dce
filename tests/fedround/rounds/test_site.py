"""A site's half of a round: what is offered is what is done, what is sent is what is kept count of."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround import codec
from fedround.codec import flatten, schema_of
from fedround.compression import wire
from fedround.compression.spec import Quantised, TopK
from fedround.errors import Cancelled, ContractError
from fedround.learning.guard import UNGUARDED, Countdown
from fedround.learning.parts import NO_REST, Rest
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianUpdate, NoMechanism, RowSum
from fedround.records import Evaluate, Measure, Train
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
    vectors_after,
    work,
)
from fedround.statistics import release
from tests.fedround.rounds.at_a_site import AGES, RECORD, SCORES, SEED, Draws, agreed, done, inputs, trained
from tests.guards import Stopped

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
    late, _, _ = done(Train(), long, guard=Countdown(1))
    one, _, _ = done(Train(), short)
    assert (late.declared.steps, one.declared.steps) == (1, None)
    assert late.payload == one.payload
    assert flatten(late.keeps.models[PERSONAL]).tolist() == flatten(one.keeps.models[PERSONAL]).tolist()


def test_who_is_stopped_releases_nothing_and_who_holds_out_nothing_says_no_scores():
    with pytest.raises(Cancelled):
        done(Train(), agreed(), guard=Stopped())
    terms, given_ = agreed().terms(), inputs(agreed())
    bare = Inputs(given_.recipe, given_.base, NO_REST, {}, Kept(), given_.train, None, given_.column)
    asks = Evaluate(statistics=(SCORES,))
    with pytest.raises(ContractError, match="holds out no rows"):
        work(asks, terms, 1, SEED, bare, offer(asks, terms, 40, lambda _: True), Draws([]), UNGUARDED)


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
