"""Computed again: a coordinator who tampers between the updates and the model, with signatures and hashes that all hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedround import codec, layout
from fedround.aggregation.rules import CoordinateMedian
from fedround.aggregation.spec import Aggregation
from fedround.aggregation.staleness import Pace
from fedround.aggregation.verdict import Verdict
from fedround.compression.spec import TopK
from fedround.drift.spec import DriftWatch, Watched
from fedround.errors import ChainError, QuorumError, StoreDeniedError, TrustError
from fedround.learning.algorithms import Ditto, Scaffold
from fedround.learning.spec import FedAvg, LocalTraining, Parts
from fedround.learning.tasks import Classify
from fedround.privacy.spec import NoPrivacy, RecordPrivacy
from fedround.records import Blob, Checkpoint, Commit, Evaluate, Exclusion, Train
from fedround.regions.spec import Region
from fedround.secure_sums.spec import SecureSum
from fedround.signing import digest, seal, unseal
from fedround.statistics import LocalEvaluation, Scores
from fedround.statistics.decisions import Bands, Groups
from fedround.statistics.decisions import Watched as WatchedGroup
from fedround.statistics.partitions import Partition, Recurring
from fedround.terms import Agreed, Together
from infra.stores import DirectoryStore, ObjectStore
from site_workers import authorise
from tasks.agreed import Proven, check_agreed
from tasks.proofs import RoundProof
from tasks.recompute import Bench
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation, changed


def proofs(federation: SmallFederation, bench: Path | None, store: ObjectStore | None = None,
           run: str = "spring") -> list[RoundProof]:
    coordinator = federation.coordinator
    store = store or coordinator.store
    return list(verify_run(store, run, coordinator.identity.key, None, None if bench is None else Bench(bench, store)))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Two rounds with momentum, so that the second continues a state."""
    federation = small_federation.make(tmp_path_factory.mktemp("begun"))
    federation.round()
    federation.round()
    return federation


@pytest.fixture
def federation(begun: SmallFederation, tmp_path: Path) -> SmallFederation:
    return begun.copy(tmp_path / "copy")


def lie(federation: SmallFederation, change: Callable[[Commit], dict[str, object]]) -> None:
    """The coordinator signs the last commit again, with changes; its checkpoint goes with its model."""
    coordinator, store = federation.coordinator, federation.root / "store"
    path = store / layout.commit("spring", 2)
    commit = unseal(path.read_bytes(), Commit, coordinator.identity.key, "commit")
    commit = commit.model_copy(update=change(commit))
    checkpoint = unseal(next(path.parent.glob("checkpoint-*")).read_bytes(), Checkpoint,
                        coordinator.identity.key, "checkpoint")
    body = (store / layout.model(commit.model)).read_bytes()
    sealed = seal(checkpoint.model_copy(update={"model": codec.payload_of(body)}), coordinator.identity)
    (store / layout.checkpoint("spring", 2, digest(sealed))).write_bytes(sealed)
    path.unlink()
    path.write_bytes(seal(commit.model_copy(update={"checkpoint": digest(sealed)}), coordinator.identity))


def other(federation: SmallFederation, name: str | None, folder: Callable[[str], str] = layout.model) -> str:
    """A tensor file with one number moved a little, under its own digest."""
    body = bytearray((federation.root / "store" / folder(name or "")).read_bytes())
    number = np.frombuffer(bytes(body[-4:]), dtype="<f4") + np.float32(1e-3)
    body[-4:] = number.astype("<f4").tobytes()
    (federation.root / "store" / folder(digest(bytes(body)))).write_bytes(body)
    return digest(bytes(body))


def swapped(federation: SmallFederation, commit: Commit, name: str) -> tuple[Blob, ...]:
    """The round's state with one part altered."""
    def altered(blob: Blob) -> Blob:
        folder = layout.model if blob.readers == "everybody" else layout.memory
        return blob.model_copy(update={"digest": other(federation, blob.digest, folder)})

    return tuple(altered(blob) if blob.name == name else blob for blob in commit.state)


def test_an_honest_history_is_computed_again_and_leaves_nothing_behind(federation: SmallFederation, tmp_path: Path):
    bench = tmp_path / "bench"
    assert [proof.recomputed for proof in proofs(federation, bench)] == [False, True, True]
    assert [proof.recomputed for proof in proofs(federation, None)] == [False, False, False]
    assert not any(proof.not_recomputed for proof in proofs(federation, bench))
    assert list(bench.rglob("*.safetensors")) == []


def test_a_model_that_was_altered_and_signed_for_is_caught_here_and_only_here(federation: SmallFederation, tmp_path: Path):
    lie(federation, lambda commit: {"model": other(federation, commit.model)})
    assert len(proofs(federation, None)) == 3, "every signature and every hash holds"
    with pytest.raises(ChainError, match=r"the model of round 2 .* 1 of 17 numbers differ, together by 0\.001"):
        proofs(federation, tmp_path / "bench")


@pytest.mark.parametrize(("change", "says"), [
    (lambda f, c: {"state": swapped(f, c, "optimizer")}, "the 'optimizer' of round 2"),
    (lambda f, c: {"state": swapped(f, c, "distances")}, "the 'distances' of round 2"),
    (lambda f, c: {"state": tuple(reversed(c.state))}, "order of the state"),
    (lambda f, c: {"note": "the gate did nothing"}, "its note of the gate"),
    (lambda f, c: {"updates": (c.updates[0].model_copy(update={"norm": 9.0}), *c.updates[1:])}, "says of 'east' norm 9.0"),
    (lambda f, c: {"updates": (c.updates[0].model_copy(update={"influence": 0.0}), *c.updates[1:])}, "'east' influence 0.0"),
    (lambda f, c: {"updates": (c.updates[0].model_copy(
        update={"verdict": Verdict.GATE, "reason": "too loud"}), *c.updates[1:])}, "'east' verdict gate, reason too loud"),
], ids=["state", "distances", "order", "note", "norm", "influence", "left out"])
def test_whatever_else_the_coordinator_computed_is_held_against_the_updates(federation: SmallFederation, tmp_path: Path,
                                                                             change, says: str):
    lie(federation, lambda commit: change(federation, commit))
    assert len(proofs(federation, None)) == 3
    with pytest.raises(ChainError, match=says):
        proofs(federation, tmp_path / "bench")


class SitesView(DirectoryStore):
    """A site's own credential."""

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        if key.startswith("sites/") and not key.startswith("sites/north/"):
            raise StoreDeniedError("this credential may not")
        return super().get(key, max_bytes=max_bytes, sha256=sha256)


def test_who_may_not_read_the_updates_is_told_so(federation: SmallFederation, tmp_path: Path):
    found = proofs(federation, tmp_path / "bench", SitesView(federation.root / "store"))
    assert [(proof.recomputed, "may not read" in proof.not_recomputed) for proof in found[1:]] == [(False, True)] * 2


AGREED = {
    "median": {"aggregation": {"rule": {"name": "coordinate_median"}}},
    "mixing": {"aggregation": {"mixing": [{"name": "nearest_neighbour_mixing", "f": 1}],
                               "rule": {"name": "trimmed_mean", "f": 1}}},
    "bucketing": {"aggregation": {"mixing": [{"name": "bucketing", "size": 2}], "rule": {"name": "coordinate_median"}}},
    "history and a centre": {"aggregation": {"history": 0.5, "rule": {"name": "centered_clipping", "radius": 1.0}}},
    "fair weights": {"aggregation": {"rule": {"name": "weighted_mean"}, "fairness": {"name": "q_ffl", "q": 2.0, "cap": 3.0}}},
    "adam": {"optimizer": {"name": "fedadam", "learning_rate": 0.1}},
    "scaffold": {"training": {"local_steps": 3, "batch_size": 32, "learning_rate": 0.5, "algorithm": {"name": "scaffold"}}},
    "no noise": {"privacy": {"unit": "none"}},
}


@pytest.mark.parametrize("agreed", AGREED.values(), ids=AGREED.keys())
def test_every_way_to_make_a_model_is_computed_again(agreed: dict, tmp_path: Path, rows_are_judged_here: None):
    """Two rounds each, so that the second continues what the first left; one update is left out of the first."""
    federation = small_federation.make(tmp_path / "f", **{"quorum": 3, **agreed}, names=("north", "east", "south", "west"),
                                       units=("none",) if "privacy" in agreed else ("record",))
    federation.round(lies={"west": lambda update_D: update_D * np.float32(np.nan)})
    commit = federation.round()
    found = proofs(federation, tmp_path / "bench")
    assert [proof.recomputed for proof in found] == [False, True, True]
    assert found[1].left_out == ("west",)
    assert (commit.blob("control") is not None) == (agreed.get("training", {}).get("algorithm") == {"name": "scaffold"})


def test_a_rule_that_needs_the_coordinators_own_rows_says_so(tmp_path: Path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path / "f", aggregation={"rule": {"name": "fltrust"}}, root_set="root.parquet")
    small_federation.rows(200, 7).to_parquet(federation.root / "coordinator" / "root.parquet")
    federation.round()
    last = proofs(federation, tmp_path / "bench")[-1]
    assert not last.recomputed
    assert "rows of its own" in last.not_recomputed


# -- plans that nobody agreed on ---------------------------------------------------------------------------------------


def round_under(federation: SmallFederation, **changes: object) -> None:
    """Round 2, under a plan with changes that the coordinator has signed; sites answer it, and it is committed."""
    planned = federation.plan()
    plan = changed(planned.plan, **changes)
    document = seal(plan, federation.coordinator.identity)
    path = federation.root / "store" / layout.plan("spring", 2, 1, plan.asks.kind)
    path.unlink()
    path.write_bytes(document)
    forged = dataclasses.replace(planned, plan=plan, digest=digest(document))
    for name in plan.cohort:
        federation.answer(name, forged)
    federation.commit(forged)


@pytest.fixture(scope="module")
def first_round(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    federation = small_federation.make(tmp_path_factory.mktemp("first"))
    federation.round()
    return federation


@pytest.fixture
def sites_look_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, as sites that hold no plan's privacy and rule against the federation file."""
    monkeypatch.setattr(authorise, "_check_choice", lambda *_: None)


@pytest.mark.parametrize(("changes", "says"), [
    ({"training": LocalTraining(local_steps=3, batch_size=32, learning_rate=0.25)}, "training"),
    ({"optimizer": FedAvg(learning_rate=2.0, momentum=0.5)}, "optimizer"),
    ({"aggregation": Aggregation(rule=CoordinateMedian())}, "aggregation"),
    ({"cohort": ("north", "east")}, "every member that the agreed policy leaves in"),
    ({"cohort": ("north", "east"), "excluded": (Exclusion(site="south", until=9, reason="I do not like it"),)},
     "excludes others"),
], ids=["training", "optimizer", "aggregation", "cohort", "excluded"])
def test_a_plan_that_asks_for_something_that_nobody_agreed_on_is_caught(
        first_round: SmallFederation, sites_look_away: None, tmp_path: Path, changes: dict, says: str):
    """Sites answer it: it is within their policies. Every signature and every hash of the round holds."""
    federation = first_round.copy(tmp_path / "copy")
    round_under(federation, **changes)
    with pytest.raises(ChainError, match=f"plan of round 2 .*{says}"):
        proofs(federation, None)


@pytest.mark.parametrize("changes", [
    {"evaluation": LocalEvaluation(bins=10, noise_std=6.0)},
    {"privacy": RecordPrivacy(epsilon=7.0, delta_dp=1e-5, rounds=3)}], ids=["evaluation", "privacy"])
@pytest.mark.usefixtures("sites_look_away")
def test_a_plan_that_would_cost_more_than_its_campaign_promised_gets_no_update(first_round: SmallFederation, tmp_path: Path,
                                                                               changes: dict):
    """Other mechanisms than those that were set aside with the first round: no site answers, so nothing is committed."""
    federation = first_round.copy(tmp_path / "copy")
    with pytest.raises(QuorumError, match="0 of 3 sites gave an update.*refused 3"):
        round_under(federation, **changes)


OTHERS = {
    "training": LocalTraining(local_steps=3, batch_size=32, learning_rate=0.25), "privacy": NoPrivacy(),
    "evaluation": LocalEvaluation(bins=11, noise_std=5.0), "aggregation": Aggregation(rule=CoordinateMedian()),
    "optimizer": FedAvg(learning_rate=2.0, momentum=0.5), "compression": TopK(share=0.5), "parts": Parts(frozen=("0.*",)),
    "personal": Ditto(pull=0.1),
    "groups": Groups(threshold=0.5, watched=(WatchedGroup(of=Bands(column="x1", edges=(0.0,)), noise_std=5.0),)),
    "drift": DriftWatch(columns=(Watched(column="x1", edges=(-1.0, 0.0, 1.0)),)),
    "combine": SecureSum(threshold=2, dropouts=1, colluders=0), "together": Together(members=3, rows=650),
    "regions": (Region(name="all", key=f"ed25519:{7:064x}", members=("east", "north", "south")),),
    "partitions": Recurring(column="day"), "pace": Pace(max_age=3),
    "recipe": "other", "recipe_digest": "0" * 64, "contract_digest": "0" * 64}


def test_that_is_all_that_can_be_agreed():
    """Otherwise the next test would leave something out."""
    assert OTHERS.keys() == Agreed.model_fields.keys() - {"choice"}, "what was chosen has a sentence of its own"


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_a_plan_says_otherwise_than_the_file_is_caught_by_its_name(federation: SmallFederation, name: str):
    """Also what no honest site answers: it is judged without them."""
    planned, members, before = federation.plan(), federation.coordinator.federation, proven(federation)
    check_agreed(planned.plan, members, before, [], "round 3")
    with pytest.raises(ChainError, match=f"plan of round 3: asks for something else than the federation file.*say: {name}$"):
        check_agreed(changed(planned.plan, **{name: OTHERS[name]}), members, before, [], "round 3")


def proven(federation: SmallFederation) -> Proven:
    """Round 2, as the proof of what continues it sees it."""
    planned = federation.plan()
    return Proven(planned.parent, planned.plan.task)


SCORES = Scores(bins=10, noise_std=5.0)


@pytest.mark.parametrize(("changes", "says"), [
    ({"asks": Train(statistics=(Scores(bins=10, noise_std=4.0),))}, "asks for other statistics"),
    ({"asks": Train(statistics=(Scores(bins=11, noise_std=5.0),))}, "asks for other statistics"),
    ({"asks": Train()}, "asks for other statistics"),
    ({"asks": Train(statistics=(SCORES,), state=(Blob(name="control", digest="0" * 64),))}, "names another state"),
    ({"asks": Evaluate(statistics=(Scores(bins=10, noise_std=4.0),)), "round": 2}, "asks for other statistics"),
    ({"asks": Train(statistics=(SCORES,), partition=Partition(column="day", name="2026-w02"))}, "about other rows"),
    ({"task": Classify(classes=3)}, "says that something else is learnt than the round before did"),
    ({"parent": "0" * 64}, "does not continue the round before it"),
    ({"base_model": "0" * 64}, "does not continue the round before it"),
    ({"run": "autumn"}, "is of another federation, run or round"),
    ({"round": 4}, "is of another federation, run or round"),
], ids=["quieter scores", "more bins", "no scores", "a state that nobody left", "quieter evaluation",
        "one week", "another task", "another parent", "another model", "another run", "another round"])
def test_a_question_that_the_terms_do_not_give_is_caught(federation: SmallFederation, changes: dict, says: str):
    planned, members, before = federation.plan(), federation.coordinator.federation, proven(federation)
    check_agreed(changed(planned.plan, asks=Train(statistics=(SCORES,))), members, before, [], "round 3")      # without edges
    with pytest.raises(ChainError, match=f"plan of round 3: .*{says}"):
        check_agreed(changed(planned.plan, **changes), members, before, [], "round 3")


def test_a_plan_with_other_parts_that_do_not_travel_is_caught(first_round: SmallFederation, tmp_path: Path):
    """No honest site answers such a plan; here none is asked."""
    federation = first_round.copy(tmp_path / "copy")
    planned, members = federation.plan(), federation.coordinator.federation
    before = Proven(planned.parent, planned.plan.task)
    check_agreed(planned.plan, members, before, [], "round 2")
    with pytest.raises(ChainError, match="other parts that do not travel"):
        check_agreed(changed(planned.plan, rest="0" * 64), members, before, [], "round 2")


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    federation = small_federation.make(tmp_path_factory.mktemp("adaptive"), privacy={
        "unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3, "adaptive": {"noise_std": 4.0}})
    federation.round()
    return federation


def test_the_clip_norm_is_computed_again_from_the_answers(adaptive: SmallFederation, tmp_path: Path):
    federation = adaptive.copy(tmp_path / "copy")
    federation.round()
    norms = [proof.privacy.clip_norm for proof in proofs(federation, None)[1:]]
    assert norms[0] == 1.0
    assert norms[1] != 1.0


@pytest.mark.parametrize("clip_norm", [1.0, 999.0])
def test_a_clip_norm_that_the_answers_do_not_call_for_is_caught(adaptive: SmallFederation, tmp_path: Path, clip_norm: float,
                                                                monkeypatch: pytest.MonkeyPatch):
    """A coordinator who raises it makes every honest update louder in noise, or longer in signal. No site answers; if all
    looked away, the proof would find it.
    """
    federation = adaptive.copy(tmp_path / "copy")
    asked = federation.coordinator.federation.privacy
    with pytest.raises(TrustError, match="asks for other privacy"):
        round_under(adaptive.copy(tmp_path / "honest"), privacy=asked.model_copy(update={"clip_norm": clip_norm}))
    monkeypatch.setattr(authorise, "_check_choice", lambda *_: None)
    round_under(federation, privacy=asked.model_copy(update={"clip_norm": clip_norm}))
    for view in (None, SitesView(federation.root / "store")):        # a site sees it, too
        with pytest.raises(ChainError, match="plan of round 2 .* something else than the federation file, .* say: privacy"):
            proofs(federation, None, view)


def test_a_share_within_the_clip_norm_that_no_site_said_is_caught(adaptive: SmallFederation, tmp_path: Path):
    """The commit names it for the next plan's clip norm, and the answer that it names holds it."""
    federation = adaptive.copy(tmp_path / "copy")
    federation.round()
    lie(federation, lambda commit: {"updates": tuple(
        said.model_copy(update={"within_clip": 0.9}) for said in commit.updates)})
    with pytest.raises(TrustError, match="is not the update that was committed"):
        proofs(federation, None)


def test_a_control_variate_that_the_round_before_did_not_leave_is_caught(tmp_path: Path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path / "f", training={
        "local_steps": 3, "batch_size": 32, "learning_rate": 0.5, "algorithm": Scaffold().model_dump()})
    federation.round()
    planned = federation.plan()
    assert planned.plan.asks.state != ()
    round_under(federation, asks=Train(statistics=planned.plan.asks.statistics))
    with pytest.raises(ChainError, match="names another state of the server"):
        proofs(federation, None)
