"""Updates that no honest site could send are left out, by name and with a reason, and the round goes on without them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedround.aggregation.spec import Gate, NearestNeighbourMixing, TrimmedMean
from fedround.aggregation.verdict import Verdict
from fedround.errors import QuorumError
from fedround.privacy.spec import DpSgd
from fedround.records import Commit, CommittedUpdate
from tasks.aggregate import aggregate
from tasks.verify import verify_run
from tests.small_federation import Lie, SmallFederation
from tests.tasks.conftest import CROWD, objects

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


def proofs(crowd: SmallFederation, run: str) -> list:
    return list(verify_run(crowd.coordinator.store, run, crowd.coordinator.identity.key))


def test_the_default_is_what_the_plan_says_in_full(crowd: SmallFederation):
    how = crowd.plan("in-full").plan.agreed.aggregation
    assert (how.gate, how.rule, how.history) == (Gate(f=1), TrimmedMean(f=1), 0.5)
    assert isinstance(how.mixing[0], NearestNeighbourMixing)


def test_honest_sites_are_all_used_round_after_round(crowd: SmallFederation):
    for _ in range(3):
        commit = crowd.round("honest")
        assert {update.verdict for update in commit.updates} == {Verdict.USED}
        assert sum(update.influence for update in commit.updates) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", LIES)
def test_a_lie_is_left_out_by_name_with_a_reason_and_proven(crowd: SmallFederation, kind: str):
    """Also when the liar was honest before and has an average that vouches for it."""
    lie, verdicts = LIES[kind]
    run = f"lie-{list(LIES).index(kind)}"
    crowd.round(run)
    commit = crowd.round(run, lies={LIAR: lie})
    caught = entry(commit, LIAR)
    assert caught.verdict in verdicts
    assert caught.reason
    assert caught.influence == 0
    assert {update.verdict for update in commit.updates if update.site != LIAR} == {Verdict.USED}
    assert sum(update.influence for update in commit.updates) == pytest.approx(1, abs=0.01)
    assert [proof.left_out for proof in proofs(crowd, run)] == [(), (), (LIAR,)]


def test_an_upload_that_is_odd_by_itself_does_not_hide_in_its_average(crowd: SmallFederation):
    """One round without noise, after honest ones: what the gate judged is the upload."""
    for _ in range(2):
        honest = crowd.round("hidden")
    commit = crowd.round("hidden", lies={LIAR: LIES["no noise"][0]})
    assert entry(commit, LIAR).verdict is Verdict.NOISE
    assert entry(commit, LIAR).norm < entry(honest, LIAR).norm / 50


@pytest.mark.parametrize("kind", ["NaN", "infinite", "1e30 everywhere"])
def test_what_is_screened_changes_nothing(crowd: SmallFederation, kind: str):
    """To the bit: the result is that of a round in which the liar was silent."""
    planned = crowd.plan(f"screened-{list(LIES).index(kind)}")
    for name in CROWD:
        crowd.answer(name, planned)
    crowd.lie(LIAR, planned, LIES[kind][0])
    collected = crowd.collect(planned)
    silent = dataclasses.replace(
        collected, admitted={site: seen for site, seen in collected.admitted.items() if site != LIAR}, missing=(LIAR,))
    with_liar, without = (aggregate(crowd.coordinator, planned, these) for these in (collected, silent))
    assert with_liar.result.delta_D.tobytes() == without.result.delta_D.tobytes()


def test_a_quorum_that_is_lost_by_leaving_out_stops_the_round(crowd: SmallFederation):
    planned = crowd.plan("short", quorum=7)
    for name in CROWD:
        crowd.answer(name, planned)
    crowd.lie(LIAR, planned, poisoned)
    before = objects(crowd.coordinator.store)
    with pytest.raises(QuorumError, match=r"6 updates remain of 7, the quorum is 7 \(left out: 'fir': not_finite\)"):
        crowd.commit(planned)
    assert objects(crowd.coordinator.store) == before


def test_a_liar_who_declares_absurd_noise_is_rejected_and_the_round_goes_on(crowd: SmallFederation):
    planned = crowd.plan("absurd")
    for name in CROWD:
        crowd.answer(name, planned)
    crowd.lie(LIAR, planned, lambda update_D: update_D,
              mechanism=DpSgd(noise_multiplier=1e308, clip_norm=1.0, sampling_rate=0.1, steps=3))
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
