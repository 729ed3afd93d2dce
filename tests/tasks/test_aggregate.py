"""Updates that no honest site could send are left out, by name and with a reason, and the round goes on without them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fedround import codec
from fedround.aggregation.rows import ArrayNumbers
from fedround.aggregation.rules import TrimmedMean, WeightedMean
from fedround.aggregation.spec import Aggregation, Gate, NearestNeighbourMixing
from fedround.aggregation.verdict import Verdict
from fedround.errors import QuorumError
from fedround.privacy.spec import DpSgd
from fedround.records import Commit, CommittedUpdate
from tasks.aggregate import aggregate
from tasks.plan import Planned
from tests import small_federation
from tests.small_federation import Lie, SmallFederation
from tests.tasks.conftest import CROWD

LIAR = "fir"
HONEST = [name for name in CROWD if name != LIAR]


def poisoned(update_D: np.ndarray) -> np.ndarray:
    update_D[len(update_D) // 2] = np.nan
    return update_D


LIES: dict[str, tuple[Lie, set[Verdict]]] = {
    "NaN": (poisoned, {Verdict.NOT_FINITE}),
    "infinite": (lambda update_D: update_D * np.float32(np.inf), {Verdict.NOT_FINITE}),
    "1e30 everywhere": (lambda update_D: np.full_like(update_D, 1e30), {Verdict.NORM}),
    "sign flip x10": (lambda update_D: -10 * update_D, {Verdict.GATE, Verdict.NORM}),
    "no noise": (lambda update_D: update_D / 100, {Verdict.NOISE}),
    "nothing": (np.zeros_like, {Verdict.NOISE, Verdict.NORM}),
}


def entry(commit: Commit, site: str) -> CommittedUpdate:
    return next(update for update in commit.updates if update.site == site)


@pytest.fixture(scope="module")
def honest(crowd: SmallFederation) -> SmallFederation:
    """One round, in which everybody was honest; to copy."""
    crowd.round("lies")
    return crowd


@pytest.fixture(scope="module")
def screened(crowd: SmallFederation) -> tuple[SmallFederation, Planned]:
    """A plan that everybody has answered; to copy."""
    planned = crowd.plan("screened")
    for name in CROWD:
        crowd.answer(name, planned)
    return crowd, planned


def test_the_default_is_what_the_plan_says_in_full(tmp_path):
    unnamed = small_federation.make(tmp_path, names=CROWD, aggregation=None, quorum=5, privacy={
        "unit": "record", "epsilon": 1.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 6})
    how = unnamed.plan().plan.agreed.aggregation
    assert (how.gate, how.rule, how.history) == (Gate(f=1), TrimmedMean(f=1), 0.5)
    assert isinstance(how.mixing[0], NearestNeighbourMixing)


def test_honest_sites_are_all_used_round_after_round(crowd: SmallFederation):
    for _ in range(2):
        commit = crowd.round("honest")
        assert {update.verdict for update in commit.updates} == {Verdict.USED}
        assert sum(update.influence for update in commit.updates) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", LIES)
def test_a_lie_is_left_out_by_name_with_a_reason_and_proven(honest: SmallFederation, tmp_path: Path, kind: str):
    """Also when the liar was honest before and has an average that vouches for it."""
    lie, verdicts = LIES[kind]
    crowd = honest.copy(tmp_path / "crowd")
    commit = crowd.round("lies", lies={LIAR: lie})
    caught = entry(commit, LIAR)
    assert caught.verdict in verdicts
    assert caught.reason
    assert caught.influence == 0
    assert {update.verdict for update in commit.updates if update.site != LIAR} == {Verdict.USED}
    assert sum(update.influence for update in commit.updates) == pytest.approx(1, abs=0.01)
    assert [proof.left_out for proof in crowd.proofs("lies")] == [(), (), (LIAR,)]


def test_an_upload_that_is_odd_by_itself_does_not_hide_in_its_average(crowd: SmallFederation):
    """One round without noise, after honest ones: what the gate judged is the upload."""
    for _ in range(2):
        honest = crowd.round("hidden")
    commit = crowd.round("hidden", lies={LIAR: LIES["no noise"][0]})
    assert entry(commit, LIAR).verdict is Verdict.NOISE
    assert entry(commit, LIAR).norm < entry(honest, LIAR).norm / 50


@pytest.mark.parametrize("kind", ["NaN", "infinite", "1e30 everywhere"])
def test_what_is_screened_changes_nothing(screened: tuple[SmallFederation, Planned], tmp_path: Path, kind: str):
    """To the bit: whatever the liar sent instead, the result is the same, and one liar less is to be borne."""
    crowd, planned = screened[0].copy(tmp_path / "crowd"), screened[1]
    crowd.lie(LIAR, planned, LIES[kind][0])
    collected = crowd.collect(planned)
    seen = collected.admitted[LIAR]
    nothing = ArrayNumbers(np.full(codec.coordinates(planned.plan.tensors), np.nan, np.float32))
    other = dataclasses.replace(collected, admitted={
        **collected.admitted, LIAR: dataclasses.replace(seen, row=dataclasses.replace(seen.row, numbers=nothing))})
    one, two = (aggregate(crowd.coordinator, planned, these).result for these in (collected, other))
    assert one.delta_D.tobytes() == two.delta_D.tobytes()
    assert one.standings[LIAR].influence == 0
    assert one.note.startswith("1 left out before any arithmetic")


def test_a_liar_that_is_left_out_does_not_stop_the_round_although_everybody_was_the_quorum(crowd: SmallFederation):
    planned = crowd.plan("short", quorum=7)
    for name in CROWD:
        crowd.answer(name, planned)
    crowd.lie(LIAR, planned, poisoned)
    crowd.commit(planned)
    assert [proof.left_out for proof in crowd.proofs("short")][-1] == (LIAR,)


def test_a_copy_takes_an_honest_site_with_it_and_the_round_goes_on_although_everybody_was_the_quorum(crowd: SmallFederation):
    """Each liar can cost one honest site; the commit and its proof say who is gone."""
    planned = crowd.plan("copied", quorum=7)
    for name in CROWD:
        crowd.answer(name, planned)
    victim, seen = "birch", list[np.ndarray]()          # it declares the same noise: a copy of another would be too short

    def looked_at(update_D: np.ndarray) -> np.ndarray:
        seen.append(update_D)
        return update_D

    crowd.lie(victim, planned, looked_at)
    crowd.lie(LIAR, planned, lambda _: seen[0])
    commit = crowd.commit(planned).commit
    assert {update.site for update in commit.updates if update.verdict is Verdict.GATE} == {LIAR, victim}
    assert [proof.left_out for proof in crowd.proofs("copied")][-1] == tuple(sorted([LIAR, victim]))


def test_where_nobody_may_lie_a_quorum_that_is_lost_by_leaving_out_stops_the_round(crowd: SmallFederation):
    planned = crowd.plan("too-few", quorum=7)
    for name in CROWD:
        crowd.answer(name, planned)
    crowd.lie(LIAR, planned, poisoned)
    collected = crowd.collect(planned)
    agreed = planned.plan.agreed.model_copy(update={"aggregation": Aggregation(rule=WeightedMean())})
    planned = dataclasses.replace(planned, plan=planned.plan.model_copy(update={"agreed": agreed}))
    with pytest.raises(QuorumError, match=r"6 updates remain of 7, .* at least 7 must \(left out: 'fir': not_finite"):
        aggregate(crowd.coordinator, planned, collected)


def test_a_liar_who_declares_absurd_noise_is_rejected_and_the_round_goes_on(crowd: SmallFederation):
    planned = crowd.plan("absurd")
    for name in CROWD:
        crowd.answer(name, planned)
    crowd.lie(LIAR, planned, lambda update_D: update_D,
              mechanism=DpSgd(noise_multiplier=1e6, clip_norm=1.0, sampling_rate=0.1, steps=3))
    commit = crowd.commit(planned).commit
    assert [rejection.site for rejection in commit.rejected] == [LIAR]
    assert [update.site for update in commit.updates] == sorted(HONEST)


def test_a_site_with_fewer_rows_than_a_batch_is_no_suspect(tmp_path, rows_are_judged_here: None):
    """It tells how many rows it divided its noise by."""
    from tests import small_federation

    federation = small_federation.make(
        tmp_path, names=CROWD, recipe=small_federation.WIDE, quorum=5, aggregation=None,
        training={"local_steps": 3, "batch_size": 175, "learning_rate": 0.5}, evaluation={"bins": 10, "noise_std": 40.0},
        privacy={"unit": "record", "epsilon": 1.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 6})
    commit = federation.round()
    assert {update.site: update.verdict for update in commit.updates} == dict.fromkeys(sorted(CROWD), Verdict.USED)
