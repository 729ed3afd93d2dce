"""What lies in the store is believed by its digest or its signature, and by nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from fedround import codec, layout
from fedround.errors import ChainError, CodecError, NotFoundError, SignatureError, TrustError
from fedround.records import Checkpoint, Commit, Finding, Measure, Plan
from fedround.signing import Identity, digest, seal
from infra import documents, history
from infra.history import Committed
from infra.stores import MemoryStore
from tests import small_federation

RUN = "spring"


@dataclasses.dataclass(frozen=True)
class Past:
    """One committed round."""

    objects: dict[str, bytes]
    identity: Identity
    head: Committed

    @property
    def commit(self) -> Commit:
        return self.head.commit

    def store(self, **changes: bytes | None) -> MemoryStore:
        """The store, with other bytes under some keys; None: nothing."""
        store = MemoryStore()
        for key, body in {**self.objects, **changes}.items():
            if body is not None:
                store.put_once(key, body)
        return store


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> Past:
    federation = small_federation.make(tmp_path_factory.mktemp("past"))
    federation.round()
    coordinator = federation.coordinator
    objects = {key: coordinator.store.get(key) for key in coordinator.store.list("")}
    return Past(objects, coordinator.identity, history.read_commit(coordinator.store, RUN, 1, coordinator.identity.key))


def flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


def test_a_round_is_read_back_as_its_commit_names_it(past: Past):
    store, key, commit = past.store(), past.identity.key, past.commit
    assert history.last_round(store, RUN, past.identity.key) == 1
    assert history.last_round(store, "autumn", past.identity.key) is None
    assert past.head.digest == digest(store.get(layout.commit(RUN, 1)))
    plan, named = history.read_plan_at(store, RUN, 1, 1, "train", key)
    assert named == commit.plan
    assert history.read_plan(store, commit, key) == plan
    checkpoint = history.read_checkpoint(store, commit, key)
    assert checkpoint.model.sha256 == commit.model
    model = documents.read_tensors(store, commit.model, checkpoint.tensors, "model")
    assert digest(codec.encode(model)) == commit.model
    assert documents.prove(store, layout.model(commit.model), commit.model, "model") == checkpoint.model.size_bytes
    assert documents.read_federation(store, plan.federation_digest, key, "file").coordinator == key


def test_at_a_place_nothing_may_lie(past: Past):
    with pytest.raises(NotFoundError):
        history.read_commit(past.store(), RUN, 2, past.identity.key)
    with pytest.raises(NotFoundError):
        history.read_plan_at(past.store(), RUN, 1, 2, "train", past.identity.key)


def test_what_is_good_in_one_place_is_not_believed_in_another(past: Past):
    moved = past.store(**{layout.commit(RUN, 2): past.objects[layout.commit(RUN, 1)],
                          layout.plan(RUN, 1, 2, "train"): past.objects[layout.plan(RUN, 1, 1, "train")]})
    with pytest.raises(ChainError, match="commit of round 2 of run 'spring': lies under this name but is of round 1"):
        history.read_commit(moved, RUN, 2, past.identity.key)
    with pytest.raises(TrustError, match="lies under this name but is for round 1"):
        history.read_plan_at(moved, RUN, 1, 2, "train", past.identity.key)


def test_nothing_is_believed_that_another_key_signed(past: Past):
    other = Identity.generate().key
    with pytest.raises(SignatureError):
        history.read_commit(past.store(), RUN, 1, other)
    with pytest.raises(SignatureError):
        history.read_plan_at(past.store(), RUN, 1, 1, "train", other)
    for read in (history.read_plan, history.read_checkpoint):
        with pytest.raises(SignatureError):
            read(past.store(), past.commit, other)


def test_what_a_commit_names_must_be_there(past: Past):
    commit, key = past.commit, past.identity.key
    places = (layout.plan(RUN, 1, 1, "train"), layout.checkpoint(RUN, 1, commit.checkpoint), layout.model(commit.model))
    bare, schema = past.store(**dict.fromkeys(places)), history.read_checkpoint(past.store(), commit, key).tensors
    for read in (lambda: history.read_plan(bare, commit, key), lambda: history.read_checkpoint(bare, commit, key),
                 lambda: documents.read_tensors(bare, commit.model, schema, "model"),
                 lambda: documents.prove(bare, layout.model(commit.model), commit.model, "model")):
        with pytest.raises(ChainError, match="is not in the store"):
            read()


def test_a_commit_that_names_no_plan_has_none_whatever_lies_there(past: Past):
    """Nobody was asked for round 0."""
    began = history.read_commit(past.store(), RUN, 0, past.identity.key).commit
    store = past.store(**{layout.plan(RUN, 0, 1, "train"): past.objects[layout.plan(RUN, 1, 1, "train")]})
    for one in (past.store(), store):
        with pytest.raises(ChainError, match="names is not in the store"):
            history.read_plan(one, began, past.identity.key)


def test_other_bytes_under_a_name_are_not_believed(past: Past, monkeypatch: pytest.MonkeyPatch):
    commit, key = past.commit, past.identity.key
    places = (layout.checkpoint(RUN, 1, commit.checkpoint), layout.model(commit.model))
    store = past.store(**{place: flipped(past.objects[place]) for place in places})
    schema = history.read_checkpoint(past.store(), commit, key).tensors
    monkeypatch.setattr(codec, "CHUNK_BYTES", 7)        # the last of many blocks differs
    for read, by in ((lambda: history.read_checkpoint(store, commit, key), "commit"),
                     (lambda: documents.read_tensors(store, commit.model, schema, "it", by="plan"), "plan"),
                     (lambda: documents.prove(store, layout.model(commit.model), commit.model, "it"), "history")):
        with pytest.raises(TrustError, match=f"the stored bytes are not those that the {by} names"):
            read()


def test_tensors_of_another_form_are_not_believed(past: Past):
    wide, tall = ({name: np.float32([1, 2, 3])} for name in ("wide", "tall"))
    store = past.store(**{layout.model(digest(codec.encode(wide))): codec.encode(wide)})
    with pytest.raises(CodecError):
        documents.read_tensors(store, digest(codec.encode(wide)), codec.schema_of(tall), "it")


def test_the_plan_is_found_among_the_attempts(past: Past):
    first = history.read_plan(past.store(), past.commit, past.identity.key)
    second = first.model_copy(update={"attempt": 2})
    document = seal(second, past.identity)
    store = past.store(**{layout.plan(RUN, 1, 2, "train"): document})
    assert history.read_plan(store, past.commit.model_copy(update={"plan": digest(document)}), past.identity.key) == second
    assert history.read_plan(store, past.commit, past.identity.key) == first


@pytest.mark.parametrize("field", ["federation_digest", "parent", "base_model"])
def test_a_plan_that_asked_for_something_else_is_not_the_commit_s(past: Past, field: str):
    other = past.commit.model_copy(update={field: "0" * 64})
    with pytest.raises(ChainError, match="asks for something else than what was committed"):
        history.read_plan(past.store(), other, past.identity.key)


@pytest.mark.parametrize(("change", "says"), [
    ({"rest": "0" * 64}, "other parts that do not travel"), ({"model": codec.payload_of(b"another")}, "another model")])
def test_a_checkpoint_that_says_something_else_than_its_commit_is_not_believed(past: Past, change: dict, says: str):
    good = history.read_checkpoint(past.store(), past.commit, past.identity.key)
    document = seal(Checkpoint(**{**dict(good), **change}), past.identity)
    store = past.store(**{layout.checkpoint(RUN, 1, digest(document)): document})
    with pytest.raises(TrustError, match=says):
        history.read_checkpoint(store, past.commit.model_copy(update={"checkpoint": digest(document)}), past.identity.key)


def measured(past: Past, **changes: object) -> tuple[MemoryStore, Plan, Finding]:
    """A measurement beside the round, asked in its second attempt, and what came of it, with these changes."""
    first = history.read_plan(past.store(), past.commit, past.identity.key)
    plan = first.model_copy(update={"asks": Measure(statistics=first.asks.statistics), "attempt": 2})
    document = seal(plan, past.identity)
    finding = Finding(federation=plan.federation, run=RUN, round=1, attempt=2, plan=digest(document), tool_version="1")
    changed = finding.model_copy(update=changes)
    return past.store(**{
        layout.plan(RUN, 1, 1, "measure"): seal(plan.model_copy(update={"attempt": 1}), past.identity),
        layout.plan(RUN, 1, 2, "measure"): document,
        layout.finding(RUN, 1, 2, "measure"): seal(changed, past.identity)}), plan, changed


def test_a_finding_is_read_back_and_its_plan_is_the_one_that_it_names(past: Past):
    store, plan, finding = measured(past)
    key = past.identity.key
    assert list(history.findings(store, RUN, "measure")) == [(1, 2)]
    assert list(history.findings(store, RUN, "evaluate")) == []
    assert history.read_finding(store, RUN, 1, 2, "measure", key) == finding
    assert history.read_plan(store, finding, key, "measure") == plan
    with pytest.raises(NotFoundError):
        history.read_finding(store, RUN, 1, 1, "measure", key)
    with pytest.raises(SignatureError):
        history.read_finding(store, RUN, 1, 2, "measure", Identity.generate().key)
    with pytest.raises(ChainError, match="the plan that the finding names is not in the store"):
        history.read_plan(store, finding, key, "evaluate")


@pytest.mark.parametrize("changes", [{"run": "autumn"}, {"round": 2}, {"attempt": 1}])
def test_a_finding_in_another_one_s_place_is_not_believed(past: Past, changes: dict):
    store, _, _ = measured(past, **changes)
    with pytest.raises(ChainError, match="lies under this name but is of"):
        history.read_finding(store, RUN, 1, 2, "measure", past.identity.key)


def test_a_plan_in_another_one_s_place_is_not_the_commit_s(past: Past):
    """Even if the commit names its bytes."""
    document = seal(history.read_plan(past.store(), past.commit, past.identity.key), past.identity)
    store = past.store(**{layout.plan(RUN, 1, 1, "train"): None, layout.plan(RUN, 1, 2, "train"): document})
    with pytest.raises(ChainError, match="is not in the store"):
        history.read_plan(store, past.commit, past.identity.key)
    store = past.store(**{layout.plan(RUN, 1, 1, "evaluate"): document})
    with pytest.raises(TrustError, match="lies under this name but is for"):
        history.read_plan(store, past.commit, past.identity.key, "evaluate")


class Asked(MemoryStore):
    """A store that remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def list(self, prefix: str) -> Iterator[str]:
        self.asked.append(f"list {prefix}")
        return super().list(prefix)

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        self.asked.append(key)
        return super().get(key, max_bytes=max_bytes, sha256=sha256)


def test_whoever_has_seen_a_round_committed_asks_for_the_next_and_lists_nothing(past: Past):
    """A list of a run's rounds takes longer with each of them; this does not."""
    store, key = Asked(), past.identity.key
    for name, body in past.objects.items():
        store.put_once(name, body)
    seen = [history.read_commit(store, RUN, number, key) for number in (0, 1)]
    for one in seen:
        store.asked.clear()
        assert history.last_round(store, RUN, key, one) == 1
        assert not [asked for asked in store.asked if asked.startswith("list")]
        assert [asked for asked in store.asked if asked.endswith("commit.json")] == [
            layout.commit(RUN, number) for number in range(one.commit.round, 3)]
    last = store._objects.pop(layout.commit(RUN, 1))
    assert history.last_round(store, RUN, key, seen[1]) == 0, "what was seen is not there any more: all is looked at again"
    assert f"list {layout.rounds(RUN)}" in store.asked
    store._objects[layout.commit(RUN, 1)] = last[:-1] + b" "
    store.asked.clear()
    history.last_round(store, RUN, key, seen[1])
    assert f"list {layout.rounds(RUN)}" in store.asked, "other bytes than those that were seen: all is looked at again"
