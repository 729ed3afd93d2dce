"""Several coordinators: no single one is needed, and no single one is believed."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedround import codec, layout
from fedround.errors import ContractError, NotFoundError, QuorumError, SignatureError
from fedround.records import Checkpoint, Commit, Cosignature
from fedround.signing import Identity, digest, seal, unseal
from infra.history import Committed, cosigners, proposed, read_commit
from tasks import rotation
from tasks.aggregate import aggregate
from tasks.coordinator import Coordinator, open_coordinator
from tasks.plan import Planned, plan_round
from tasks.publish import publish
from tasks.recompute import Bench
from tasks.requests import NextRoundRequest
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation

THREE = ("one", "two", "three")
"""The founder is the first."""


def folder_of(federation: SmallFederation, name: str) -> Path:
    return federation.root / ("coordinator" if name == "one" else name)


def among(federation: SmallFederation, name: str) -> Coordinator:
    """One of the coordinators, opened anew."""
    return open_coordinator(folder_of(federation, name))


def with_three(federation: SmallFederation, silence_s: int = 600) -> SmallFederation:
    """Two more folders, each with a key of its own; the file names three coordinators."""
    founder, keys = federation.root / "coordinator", {"one": federation.coordinator.identity.key}
    for name in THREE[1:]:
        shutil.copytree(founder, federation.root / name)
        (federation.root / name / "keys" / "identity.pem").unlink()
        identity = Identity.generate()
        identity.save(federation.root / name / "keys" / "identity.pem")
        keys[name] = identity.key
    named = f"silence_s = {silence_s}\n" + (founder / "federation.toml").read_text() + "".join(
        f'\n[[coordinators]]\nname = "{name}"\nkey = "{key}"\n' for name, key in keys.items())
    for name in THREE:
        (folder_of(federation, name) / "federation.toml").write_text(named)
    federation.coordinator.publish_federation()
    return federation


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Round 1 is committed, and all have answered to round 2, whose turn is that of "three"."""
    federation = with_three(small_federation.make(tmp_path_factory.mktemp("three"), max_epsilon=200.0))
    whole_round(federation, "two", ("one", "three"))
    planned = plan_round(among(federation, "three"), NextRoundRequest(run="spring"))
    for name in planned.plan.cohort:
        federation.answer(name, planned)
    return federation


@pytest.fixture
def federation(begun: SmallFederation, tmp_path: Path) -> SmallFederation:
    return begun.copy(tmp_path / "copy")


def signing(federation: SmallFederation, names: tuple[str, ...], until: Callable[[], bool]) -> None:
    """These coordinators look at proposals, in turn, until it is done."""
    cosigners_ = {name: (coordinator := among(federation, name), rotation.Cosigner(coordinator, "spring")) for name in names}
    while not until():
        for coordinator, cosigner in cosigners_.values():
            for number in (0, 1, 2, 3):
                if not until():
                    rotation.settle(coordinator, "spring", number, cosigner)


def beside(federation: SmallFederation, names: tuple[str, ...], work: Callable[[], object]) -> object:
    """What `work` gives while these coordinators sign."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    signing(federation, names, lambda: not thread.is_alive())
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def whole_round(federation: SmallFederation, proposer: str, others: tuple[str, ...]) -> Committed:
    coordinator = among(federation, proposer)
    planned = beside(federation, others, lambda: plan_round(coordinator, NextRoundRequest(run="spring"),
                                                             rotation.by_majority(coordinator)))
    assert isinstance(planned, Planned)
    for name in planned.plan.cohort:
        federation.answer(name, planned)
    done = beside(federation, others, lambda: federation.commit(planned, coordinator))
    assert isinstance(done, Committed)
    return done


def proposal(federation: SmallFederation, proposer: str, change: Callable[[Commit], dict[str, object]] = lambda _: {},
             count: int = 1) -> Committed:
    """What a coordinator proposes for round 2, put by hand, with changes and a checkpoint that goes with them."""
    coordinator = among(federation, proposer)
    planned = plan_round(coordinator, NextRoundRequest(run="spring"))
    made: list[Commit] = []
    collected = federation.collect(planned, coordinator)
    with pytest.raises(NotFoundError):
        publish(coordinator, planned, collected, aggregate(coordinator, planned, collected),
                lambda _, commit: made.append(commit))
    commit, store = made[0].model_copy(update=change(made[0])), federation.root / "store"
    if commit.model != made[0].model:
        said = unseal((store / layout.checkpoint("spring", 2, commit.checkpoint)).read_bytes(), Checkpoint,
                      coordinator.identity.key, "checkpoint")
        sealed = seal(said.model_copy(update={"model": codec.payload_of(
            (store / layout.model(commit.model)).read_bytes())}), coordinator.identity)
        (store / layout.checkpoint("spring", 2, digest(sealed))).write_bytes(sealed)
        commit = commit.model_copy(update={"checkpoint": digest(sealed)})
    document = seal(commit, coordinator.identity)
    (store / layout.proposal("spring", 2, count)).write_bytes(document)
    return proposed(coordinator.store, document, "spring", 2, coordinator.key, "a proposal")


def look(federation: SmallFederation, name: str) -> Committed | None:
    coordinator = among(federation, name)
    return rotation.settle(coordinator, "spring", 2, rotation.Cosigner(coordinator, "spring"))


def signers(federation: SmallFederation, of: Committed) -> tuple[str, ...]:
    coordinator = federation.coordinator
    return cosigners(coordinator.store, of, coordinator.federation)


def altered_model(federation: SmallFederation, commit: Commit) -> dict[str, object]:
    store = federation.root / "store"
    body = bytearray((store / layout.model(commit.model)).read_bytes())
    body[-4:] = b"\x00\x00\x00\x3f"
    (store / layout.model(digest(bytes(body)))).write_bytes(body)
    return {"model": digest(bytes(body))}


def test_a_round_goes_on_without_any_one_of_three_and_everybody_proves_it(federation: SmallFederation, tmp_path: Path):
    """Whose turn it is has planned round 2 and is gone: another goes on with the same plan, and the third signs."""
    asked = among(federation, "three").store.head(layout.plan("spring", 2, 1, "train"))
    coordinator = among(federation, "one")
    planned = plan_round(coordinator, NextRoundRequest(run="spring"))
    done = beside(federation, ("two",), lambda: federation.commit(planned, coordinator))
    assert isinstance(done, Committed)
    assert asked is not None
    assert planned.plan.attempt == 1
    assert len(done.commit.updates) == 3
    assert signers(federation, done) == ("one", "two")
    proofs = list(verify_run(coordinator.store, "spring", coordinator.key, None, Bench(tmp_path / "b", coordinator.store)))
    assert [proof.recomputed for proof in proofs] == [False, True, True]
    planned = plan_round(among(federation, "two"), NextRoundRequest(run="spring"))
    for name in planned.plan.cohort:                            # sites accept the next plan, too
        assert federation.answer(name, planned) == "update"


def test_nothing_is_committed_by_one_alone(federation: SmallFederation):
    one = proposal(federation, "three")
    assert look(federation, "three") is None
    assert signers(federation, one) == ("three",)
    store = federation.root / "store"
    (store / layout.commit("spring", 2)).write_bytes((store / layout.proposal("spring", 2, 1)).read_bytes())
    with pytest.raises(SignatureError, match="1 of 3 coordinators signed it, 2 must"):
        read_commit(federation.coordinator.store, "spring", 2, federation.coordinator.key)


def test_a_proposal_waits_for_a_majority_and_says_so(federation: SmallFederation):
    coordinator = among(federation, "three")
    document = (proposal(federation, "three"), (federation.root / "store" / layout.proposal("spring", 2, 1)).read_bytes())[1]
    ticks = itertools.count(0.0, 1500.0)
    with pytest.raises(QuorumError, match="fewer than 2 of 3 coordinators signed a commit"):
        rotation.committed(coordinator, "spring", 2, document, lambda _: None, lambda: next(ticks))
    assert look(federation, "one") is not None, "what was proposed and signed counts"


@pytest.mark.parametrize("change", [
    altered_model,
    lambda f, c: {"updates": c.updates[1:]},
    lambda f, c: {"missing": (c.updates[0].site,), "updates": c.updates[1:],
                  "ledgers": tuple(one for one in c.ledgers if one.site != c.updates[0].site)},
    lambda f, c: {"note": "as I like it"},
], ids=["another model", "a site that is not named", "a site that was left out", "a note"])
def test_a_proposal_that_does_not_follow_from_the_store_is_signed_by_nobody(federation: SmallFederation, change):
    wrong = proposal(federation, "three", lambda commit: change(federation, commit))
    assert [look(federation, name) for name in ("one", "two")] == [None, None]
    assert signers(federation, wrong) == ()
    right = proposal(federation, "one", count=2)
    assert look(federation, "two") is None
    done = look(federation, "one")
    assert done is not None
    assert done.digest == right.digest
    assert signers(federation, done) == ("one", "two")


def test_of_two_proposals_that_hold_the_first_is_signed_whoever_looks_when(federation: SmallFederation):
    first, second = proposal(federation, "three"), proposal(federation, "one", count=2)
    assert first.digest != second.digest
    assert look(federation, "two") is None
    assert (done := look(federation, "one")) is not None
    assert done.digest == first.digest
    assert signers(federation, second) == ()


def test_who_has_signed_a_proposal_signs_no_other_even_if_the_store_shows_one_first(federation: SmallFederation):
    first = proposal(federation, "three")
    look(federation, "two")
    store = federation.root / "store"
    (store / layout.proposal("spring", 2, 1)).unlink()
    other = proposal(federation, "one")
    assert look(federation, "two") is None
    assert (signers(federation, first), signers(federation, other)) == (("two",), ())


def test_signatures_of_others_in_the_place_of_a_coordinators_count_for_nothing(federation: SmallFederation):
    one = proposal(federation, "three")
    said = Cosignature(federation="small", run="spring", round=2, commit=one.digest, coordinator="two")
    store, stranger = federation.root / "store", Identity.generate()
    for name, body, key in (("two", said, stranger), ("one", said, among(federation, "two").identity),
                            ("three", said.model_copy(update={"round": 1, "coordinator": "three"}),
                             among(federation, "three").identity)):
        place = store / layout.cosignature("spring", 2, one.digest, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(seal(body, key))
    assert signers(federation, one) == ()


def test_a_plan_by_a_stranger_or_by_a_founder_who_is_no_coordinator_is_none(federation: SmallFederation):
    planned = plan_round(among(federation, "three"), NextRoundRequest(run="spring"))
    path = federation.root / "store" / layout.plan("spring", 2, 1, "train")
    path.write_bytes(seal(planned.plan, Identity.generate()))
    with pytest.raises(SignatureError, match="signed by none of the 3 coordinators"):
        federation.answer("north", planned)


def test_attack_a_removed_coordinator_goes_on_under_the_file_that_still_named_it(federation: SmallFederation):
    """It has planned the round, all have answered, and the log that its proposal names is a true one. Then it is replaced."""
    wrong = proposal(federation, "three")
    four = Identity.generate().key
    for name in THREE[:2]:
        path = folder_of(federation, name) / "federation.toml"
        path.write_text(path.read_text().replace(among(federation, "three").identity.key, four).replace('"three"', '"four"'))
    federation.coordinator.publish_federation()
    assert [look(federation, name) for name in THREE[:2]] == [None, None]
    assert signers(federation, wrong) == ()
    look(federation, "three")                                   # it signs itself, and that counts for nobody
    assert cosigners(federation.coordinator.store, wrong, federation.coordinator.federation) == ()


def test_attack_a_signature_of_another_round_or_by_another_name_is_none(federation: SmallFederation):
    one, store = proposal(federation, "three"), federation.root / "store"
    said = Cosignature(federation="small", run="spring", round=2, commit=one.digest, coordinator="two")
    for changes in ({"round": 1}, {"run": "summer"}, {"commit": "0" * 64}, {"coordinator": "one"}):
        place = store / layout.cosignature("spring", 2, one.digest, "two")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(seal(said.model_copy(update=changes), among(federation, "two").identity))
        assert signers(federation, one) == (), changes


def test_only_the_founder_changes_the_file_or_asks_what_makes_no_model(federation: SmallFederation):
    two = among(federation, "two")
    changed = two.federation.model_copy(update={"quorum": 3})
    with pytest.raises(ContractError, match="only the founder's key can put one into force"):
        dataclasses.replace(two, federation=changed).publish_federation()


def test_turns_go_round():
    class One:
        def __init__(self, name: str):
            self.name = name

    def place(name: str, number: int) -> int:
        federation = type("F", (), {"coordinators": tuple(map(One, THREE)), "name": "small"})
        return rotation.turn(type("C", (), {"federation": federation, "name": name}), number)

    assert [[place(name, number) for name in THREE] for number in range(5)] == [
        [2, 0, 1], [2, 0, 1], [1, 2, 0], [0, 1, 2], [2, 0, 1]]


@pytest.mark.parametrize("n", [3, 4, 5])
def test_no_two_proposals_get_a_majority_whatever_liars_propose_and_sign_and_when_others_look(n: int):
    """All lists of up to three proposals, of which any hold; each honest coordinator looks when so many of them are there.
    Liars, fewer than a majority, sign everything. The store orders proposals, and takes none away.
    """
    majority = n // 2 + 1
    for liars in range(majority):
        for holds in itertools.product((True, False), repeat=3):
            for looks in itertools.product(range(4), repeat=n - liars):
                signed = [rotation.first_that_holds("abc"[:seen], dict(zip("abc", holds, strict=True)).__getitem__)
                          for seen in looks]
                counts = [liars + signed.count(one) for one in "abc"]
                assert sum(count >= majority for count in counts) <= 1
                assert all(good for good, count in zip(holds, counts, strict=True) if count >= majority)


@pytest.mark.parametrize(("change", "says"), [
    ({"coordinators": 2}, "name at least 3"),
    ({"aggregation": {"rule": {"name": "fltrust"}}}, "fltrust"),
    ({"incentive": {"points": 1.0}}, r"\[incentive\] rests on"),
    ({"drift": {"columns": [{"column": "x1", "edges": [0.0]}], "noise_std": 2.0, "every": 1}}, r"\[drift\] is a finding"),
    ({"revoked": 0}, "was revoked"),
])
def test_what_cannot_go_round_is_refused_in_words(begun: SmallFederation, change: dict, says: str):
    file = begun.coordinator.federation
    said = {**file.model_dump(mode="json"), **change}
    if "coordinators" in change:
        said["coordinators"] = [one.model_dump() for one in file.coordinators[:2]]
    if "revoked" in change:
        said["revoked"] = [file.coordinators[1].key]
    with pytest.raises(ContractError, match=says):
        small_federation.parse(type(file), said, "file")
