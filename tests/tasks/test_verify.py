"""Proof: whatever is changed in the history of a run, by whoever owns the bucket, `verify_run` says so."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from fedround import layout
from fedround.aggregation.verdict import Verdict
from fedround.errors import ChainError, ContractError, FedroundError, LostError, StoreDeniedError, TrustError
from fedround.learning.spec import FedAvg
from fedround.records import Blob, Commit, CommittedUpdate
from fedround.signing import Identity, digest, seal, unseal
from infra.stores import MemoryStore, ObjectStore
from tasks.certificate import certified
from tasks.verify import find_model, verify_run
from tests.tasks.conftest import Answered, objects

KINDS = {
    "federation file": r"federations/",
    "federation log": r"log/",
    "plan": r"runs/spring/rounds/0000[12]/plan-01",
    "checkpoint": r"runs/spring/rounds/0000[012]/checkpoint",
    "commit": r"runs/spring/rounds/0000[012]/commit",
    "model or optimizer state": r"models/",
    "memory": r"memory/",
    "update": r"sites/(north|east)/spring/rounds/0000[12]/01/answer",
    "refusal": r"sites/south/spring/rounds/00002/01/refusal-",
    "update of the later refuser": r"sites/south/spring/rounds/00001/01/answer",
    "tensors": r"sites/[a-z]+/spring/rounds/0000[12]/01/delta",
}


@pytest.fixture(scope="module")
def run(answered: Answered) -> dict[str, bytes]:
    """Two committed rounds after round 0: every object of the store."""
    store = answered.store()
    answered.commit(store)
    return objects(store)


@pytest.fixture(scope="module")
def key(answered: Answered) -> str:
    return answered.federation.coordinator.identity.key


def store_of(contents: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    for name, body in contents.items():
        store.put_once(name, body)
    return store


def prove(contents: dict[str, bytes], key: str, run: str = "spring") -> list[int]:
    return [proof.round for proof in verify_run(store_of(contents), run, key)]


def test_the_honest_history_holds(run: dict[str, bytes], key: str):
    proofs = list(verify_run(store_of(run), "spring", key))
    assert [proof.round for proof in proofs] == [0, 1, 2]
    assert [proof.signatures for proof in proofs] == [2, 9, 8]
    assert not any(proof.unseen for proof in proofs)


def test_these_are_all_the_kinds_of_objects_there_are(run: dict[str, bytes]):
    """Otherwise the next test would leave one out."""
    assert [name for name in run if not any(re.match(kind, name) for kind in KINDS.values())] == []


@pytest.mark.parametrize("where", [0.0, 0.3, 0.5, 0.8, 1.0], ids=lambda part: f"at {part:.0%}")
@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_bit_anywhere_is_found(run: dict[str, bytes], key: str, kind: str, where: float):
    names = [name for name in run if re.match(KINDS[kind], name)]
    assert names
    for name in names:
        body = bytearray(run[name])
        body[int(where * (len(body) - 1))] ^= 1
        with pytest.raises(FedroundError):
            prove({**run, name: bytes(body)}, key)


@pytest.mark.parametrize("kind", KINDS)
def test_one_object_that_is_gone_is_found(run: dict[str, bytes], key: str, kind: str):
    for name in [name for name in run if re.match(KINDS[kind], name)]:
        left = {other: body for other, body in run.items() if other != name}
        if name == layout.commit("spring", 2):
            assert prove(left, key) == [0, 1]      # a history that ends earlier is a history: see the docstring
        else:
            with pytest.raises(FedroundError):
                prove(left, key)


def test_a_round_that_was_taken_out_is_found(run: dict[str, bytes], key: str):
    left = {name: body for name, body in run.items() if not name.startswith("runs/spring/rounds/00001/")}
    with pytest.raises(ChainError, match="commit of round 1 .* is not in the store"):
        prove(left, key)


def test_two_commits_that_changed_places_are_found(run: dict[str, bytes], key: str):
    first, second = layout.commit("spring", 1), layout.commit("spring", 2)
    with pytest.raises(ChainError, match="lies under this name but is of round 2"):
        prove({**run, first: run[second], second: run[first]}, key)


def test_another_coordinators_key_proves_nothing(run: dict[str, bytes]):
    with pytest.raises(TrustError, match="signed by another key"):
        prove(run, Identity.generate().key)


def test_a_run_that_there_is_not(run: dict[str, bytes], key: str):
    with pytest.raises(ContractError, match="no run 'autumn'"):
        prove(run, key, "autumn")


# -- a coordinator that lies, with its own good key --------------------------------------------------------------------


def last_commit(run: dict[str, bytes], key: str) -> Commit:
    return unseal(run[layout.commit("spring", 2)], Commit, key, "commit")


def lies(answered: Answered, run: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    """The last commit with changes, signed by the true coordinator."""
    identity = answered.federation.coordinator.identity
    commit = last_commit(run, identity.key).model_copy(update=changes)
    return {**run, layout.commit("spring", 2): seal(commit, identity)}


Lie = Callable[[Commit], dict[str, object]]
HEAVIER: Lie = lambda c: {"updates": (c.updates[0].model_copy(update={"weight": 9999.0}), *c.updates[1:])}  # noqa: E731
TWICE: Lie = lambda c: {"updates": (*c.updates, c.updates[0])}  # noqa: E731
LEFT_OUT: Lie = lambda c: {"refusals": ()}  # noqa: E731
SILENCED: Lie = lambda c: {"updates": c.updates[1:], "missing": (c.updates[0].site,)}  # noqa: E731
DISCARDED: Lie = lambda c: {"updates": tuple(u.model_copy(update={"verdict": Verdict.GATE}) for u in c.updates)}  # noqa: E731
STRANGER: Lie = lambda c: {"missing": ("nobody",)}  # noqa: E731
OTHER_STEP: Lie = lambda c: {"agreed": c.agreed.model_copy(update={"optimizer": FedAvg(learning_rate=0.25)})}  # noqa: E731
OTHER_REST: Lie = lambda c: {"state": (Blob(name="rest", digest=c.model), *c.state)}  # noqa: E731
OTHER_BYTES: Lie = lambda c: {"updates": (c.updates[0].model_copy(update={"payload": "0" * 64}), *c.updates[1:])}  # noqa: E731


@pytest.mark.parametrize(("lie", "says"), [
    (HEAVIER, "weight"), (TWICE, "was counted twice"), (LEFT_OUT, "every site of the cohort once"),
    (STRANGER, "every site of the cohort once"), (OTHER_STEP, "asks for something else than what was committed"),
    (OTHER_REST, "has other parts that do not travel"), (OTHER_BYTES, "is not the update that was committed"),
    (SILENCED, "1 of 3 members sighted"), (DISCARDED, "quorum")],
    ids=["heavier", "counted twice", "refusal left out", "stranger", "another server step",
         "other parts that stay", "other bytes", "below the quorum", "left out below the quorum"])
def test_a_commit_that_is_not_what_the_plan_and_the_federation_file_say(
        answered: Answered, run: dict[str, bytes], key: str, lie: Lie, says: str):
    with pytest.raises(TrustError, match=says):
        prove(lies(answered, run, **lie(last_commit(run, key))), key)


def test_an_update_that_the_history_calls_a_refusal(answered: Answered, run: dict[str, bytes], key: str):
    from fedround.records import CommittedRefusal, Reason

    commit = last_commit(run, key)
    update, refusal = commit.updates[0], commit.refusals[0]
    with pytest.raises(TrustError, match="1 of 3 members sighted its plan, 2 must"):
        prove(lies(answered, run, updates=commit.updates[1:], refusals=(refusal, CommittedRefusal(
            site=update.site, answer=update.answer, reason=Reason.BUDGET))), key)
    with pytest.raises(TrustError, match="'south' did not sign that it was shown the plan"):
        prove(lies(answered, run, refusals=(), updates=(*commit.updates, CommittedUpdate(
            site=refusal.site, answer=refusal.answer, payload=update.payload, size_bytes=1, sighting=update.sighting,
            weight=150.0, within_clip=None, verdict=Verdict.USED, norm=1.0, distance=1.0, influence=0.5))), key)


def test_a_model_of_another_length_than_its_checkpoint_says(answered: Answered, run: dict[str, bytes], key: str):
    longer = run[f"models/{last_commit(run, key).model}.safetensors"] + b"\0"
    with pytest.raises(TrustError):
        prove({**lies(answered, run, model=digest(longer)), f"models/{digest(longer)}.safetensors": longer}, key)


def test_a_model_is_found_by_its_bytes_and_proven_to_where_it_was_made(run: dict[str, bytes], key: str):
    store = store_of(run)
    for number in (0, 1, 2):
        commit = unseal(run[layout.commit("spring", number)], Commit, key, "commit")
        assert find_model(store, commit.model, key) == ("spring", number)
        proofs = list(verify_run(store, "spring", key, number))
        assert ([proof.round for proof in proofs], proofs[-1].model) == (list(range(number + 1)), commit.model)
    with pytest.raises(ContractError, match="no round of any run in the store made the model"):
        find_model(store, "0" * 64, key)


def test_a_proof_says_who_which_rules_and_what_privacy(run: dict[str, bytes], key: str):
    *_, last = verify_run(store_of(run), "spring", key)
    assert last.privacy is not None
    assert (last.updates, last.refusals, last.aggregation, last.privacy.unit, last.log) == (
        ("east", "north"), ("south",), "weighted_mean", "record", 1)
    assert sorted(last.epsilons) == ["east", "north"]
    assert all(0 < epsilon < 8 for epsilon in last.epsilons.values())


ROLLED_BACK: Lie = lambda c: {"ledgers": tuple(k.model_copy(update={"charges": 1}) for k in c.ledgers)}  # noqa: E731
OTHER_HEAD: Lie = lambda c: {"ledgers": (c.ledgers[0].model_copy(update={"head": "0" * 64}), *c.ledgers[1:])}  # noqa: E731
OTHER_OWNER: Lie = lambda c: {"ledgers": (c.ledgers[0].model_copy(update={"key": c.ledgers[1].key}), *c.ledgers[1:])}  # noqa: E731
MADE_UP: Lie = lambda c: {"ledgers": tuple(  # noqa: E731
    k.model_copy(update={"charges": 9}) if k.site == "south" else k for k in c.ledgers)}
FORGOTTEN: Lie = lambda c: {"ledgers": c.ledgers[1:]}  # noqa: E731
OTHER_FILE: Lie = lambda c: {"federation_digest": "0" * 64}  # noqa: E731
OTHER_LOG: Lie = lambda c: {"log": c.log.model_copy(update={"digest": "0" * 64})}  # noqa: E731
FUTURE_LOG: Lie = lambda c: {"log": c.log.model_copy(update={"number": 2})}  # noqa: E731
UNSIGHTED: Lie = lambda c: {"updates": (c.updates[0].model_copy(  # noqa: E731
    update={"sighting": c.updates[1].sighting}), *c.updates[1:])}


@pytest.mark.parametrize(("lie", "says"), [
    pytest.param(ROLLED_BACK, "what the site did not say", id="a shorter ledger"),
    pytest.param(OTHER_HEAD, "what the site did not say", id="another head"),
    pytest.param(OTHER_OWNER, "what the site did not say", id="another's ledger"),
    pytest.param(MADE_UP, "of 'south', which sent no update", id="the ledger of who was silent"),
    pytest.param(FORGOTTEN, "leaves out the ledger", id="a ledger less"),
    pytest.param(OTHER_FILE, "names another federation file than the log does", id="another file"),
    pytest.param(OTHER_LOG, "not in the federation log", id="another log"),
    pytest.param(FUTURE_LOG, "not in the federation log", id="a log that is not there"),
    pytest.param(UNSIGHTED, "did not sign that it was shown the plan", id="another's sighting")])
def test_a_commit_that_lies_about_ledgers_log_or_sightings(
        answered: Answered, run: dict[str, bytes], key: str, lie: Lie, says: str):
    with pytest.raises(TrustError, match=says):
        prove(lies(answered, run, **lie(last_commit(run, key))), key)


def test_a_round_under_an_agreement_that_was_over_is_found(federation):
    """The log has gone on; a commit of after it names what held before, for example a member that has left."""
    federation.round()
    path = federation.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace("deadline_s = 60", "deadline_s = 61"))
    federation.round()
    federation.round()
    coordinator, store = federation.coordinator, federation.root / "store"
    first, third = (unseal((store / layout.commit("spring", number)).read_bytes(), Commit, coordinator.identity.key,
                           "commit") for number in (1, 3))
    assert (first.log.number, third.log.number) == (1, 2)
    (store / layout.commit("spring", 3)).unlink()
    (store / layout.commit("spring", 3)).write_bytes(seal(third.model_copy(
        update={"log": first.log, "federation_digest": first.federation_digest}), coordinator.identity))
    with pytest.raises(ChainError, match="names an older entry of the federation log than the round before it"):
        list(verify_run(coordinator.store, "spring", coordinator.identity.key))


class SitesView(MemoryStore):
    """What a site's own credential shows: the answers of others are denied."""

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        if key.startswith("sites/") and not key.startswith("sites/north/"):
            raise StoreDeniedError("this credential may not")
        return super().get(key, max_bytes=max_bytes, sha256=sha256)


def test_a_member_proves_what_it_may_read_and_says_what_it_may_not(run: dict[str, bytes], key: str):
    store: ObjectStore = SitesView()
    for name, body in run.items():
        store.put_once(name, body)
    last = list(verify_run(store, "spring", key))[-1]
    assert last.unseen == ("east", "south")


def test_a_later_attempt_proves_as_well(federation):
    """The plan that the commit names is found among the attempts."""
    federation.plan()
    planned = federation.plan(deadline_s=61)
    for name in ("north", "east"):
        federation.answer(name, planned)
    assert federation.commit(planned).commit.missing == ("south",)
    proofs = list(verify_run(federation.coordinator.store, "spring", federation.coordinator.identity.key))
    assert proofs[-1].updates == ("east", "north")


MEMBERS_OWN = ("update", "refusal", "tensors", "update of the later refuser")


@pytest.mark.parametrize("kind", MEMBERS_OWN)
@pytest.mark.parametrize("gone", [False, True], ids=["altered", "gone"])
def test_what_a_member_altered_since_hides_nothing_of_the_others(run: dict[str, bytes], key: str, kind: str, gone: bool):
    """It may overwrite what it sent at any time: its own answer is then not proven, and everything else is."""
    whole = list(verify_run(store_of(run), "spring", key))
    for name in [name for name in run if re.match(KINDS[kind], name)]:
        left = {other: body for other, body in run.items() if other != name}
        proofs, history = [], verify_run(store_of(left if gone else {**run, name: run[name][:-1] + b"?"}), "spring", key)
        with pytest.raises(LostError, match=f"site '{(site := name.split('/')[1])}'|answer of '{site}'"):
            proofs.extend(history)
        assert [proof.round for proof in proofs] == [0, 1, 2]
        assert [proof.model for proof in proofs] == [proof.model for proof in whole]
        assert {lost for proof in proofs for lost in proof.lost} == {site}
        assert sum(proof.signatures for proof in whole) - sum(proof.signatures for proof in proofs) == 1
        assert certified(store_of(left), "spring", key, 2).lost == (site,)
