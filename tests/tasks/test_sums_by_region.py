"""Masked answers that regional coordinators add up: nobody learns a region's sum, and the model is as without regions."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedround import codec, layout
from fedround.errors import ContractError, QuorumError, TrustError
from fedround.federation import Federation
from fedround.records import PartialSum
from fedround.signing import digest, envelope, seal
from fedround.values import parse
from infra.history import Committed
from infra.stores import DirectoryStore
from tasks import gather, partial_sums, region
from tasks.aggregate import aggregate
from tasks.plan import Planned
from tasks.publish import publish
from tasks.unmask import plan_reveal, why_not_added
from tests import small_federation, summing
from tests.summing import Summing

REGIONS = {"coast": ("ash", "birch"), "hills": ("cedar", "elm"), "islands": ("fir", "hazel"), "plains": ("larch", "maple")}
NAMES = tuple(sorted(name for members in REGIONS.values() for name in members))
HOW = {"name": "secure_sum", "threshold": 6, "dropouts": 2, "colluders": 0}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> Summing:
    """Eight members in four regions, of whom two may be missing; keys for sums are there."""
    privacy = {**small_federation.settings()["privacy"], "epsilon": 2.0}
    federation = summing.make(tmp_path_factory.mktemp("keyed"), names=NAMES, combine=HOW, quorum=6, privacy=privacy)
    federation.with_regions(REGIONS)
    federation.keys()
    return federation


@pytest.fixture(scope="module")
def begun(keyed: Summing, tmp_path_factory: pytest.TempPathFactory) -> Summing:
    """All have answered, and no region has added up."""
    federation = keyed.copy(tmp_path_factory.mktemp("begun"))
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    return federation


@pytest.fixture
def federation(begun: Summing, tmp_path: Path) -> Summing:
    return begun.copy(tmp_path / "copy")


@pytest.fixture
def asked(federation: Summing) -> Planned:
    return federation.plan()


def added_up(federation: Summing, planned: Planned, *regions: str) -> None:
    for name in regions or REGIONS:
        federation.add_up(name, planned)


def committed(federation: Summing, planned: Planned, check: int = 1) -> Committed:
    coordinator = federation.coordinator
    coordinator = dataclasses.replace(coordinator, settings=coordinator.settings.model_copy(update={"check_regions": check}))
    collected = federation.revealing(planned, federation.gather(planned, coordinator))
    return publish(coordinator, planned, collected, aggregate(coordinator, planned, collected))


def lies(federation: Summing, planned: Planned, name: str, **changes: object) -> PartialSum:
    """A region's coordinator signs something else: other numbers, or other words."""
    said, post = federation.add_up(name, planned), federation.region(name)
    path = federation.root / "store" / layout.partial(name, "spring", 1, 1, 1)
    numbers = np.fromfile(path.parent / f"{said.numbers.sha256}.bin", "<u4") + np.uint32(changes.pop("more", 0))
    (path.parent / f"{codec.payload_of(numbers.tobytes()).sha256}.bin").write_bytes(numbers.tobytes())
    said = said.model_copy(update={"numbers": codec.payload_of(numbers.tobytes()), **changes})
    path.unlink()
    path.write_bytes(seal(said, post.identity))
    return said


def test_it_is_the_model_without_regions_and_everybody_computes_it_again(federation: Summing, asked: Planned, tmp_path: Path):
    """The same keys, slot and answers, once added up by regions and once by the coordinator alone: the same numbers."""
    added_up(federation, asked)
    made = committed(federation, asked).commit
    vectors = [np.fromfile(federation.root / "store" / layout.payload(site, "spring", 1, 1, "train"), "<u4")
               for site in NAMES]
    parts = [np.fromfile(next((federation.root / "store" / layout.partial(name, "spring", 1, 1, 1)).parent.glob("*.bin")),
                         "<u4") for name in REGIONS]
    np.testing.assert_array_equal(*(np.sum(some, axis=0, dtype=np.uint32) for some in (parts, vectors)))
    assert [one.site for one in made.updates] == list(NAMES)
    assert [(one.region, one.reason) for one in made.regions] == [(name, "") for name in sorted(REGIONS)]
    assert all(one.norm is None for one in made.updates)
    _, second = federation.proofs(bench=tmp_path / "bench")
    assert second.recomputed
    assert second.regions == dict.fromkeys(REGIONS, "")


def test_the_coordinator_reads_regions_and_no_members_vector(federation: Summing, asked: Planned):
    added_up(federation, asked)
    coordinator = federation.coordinator
    coordinator = dataclasses.replace(coordinator, settings=coordinator.settings.model_copy(update={"check_regions": 0}))
    collected = federation.gather(asked, coordinator)
    assert {one.file for one in collected.admitted.values()} == {None}
    spooled = sorted(path.name for path in (coordinator.folder / "spool" / asked.digest[:32]).iterdir())
    assert spooled == [f"{name}.partial" for name in sorted(REGIONS)]


def test_a_region_learns_no_more_of_its_sum_than_noise(federation: Summing, asked: Planned):
    """Under masks with members of other regions a region's sum has the law of uniform words: every bit is one half."""
    added_up(federation, asked)
    folder = (federation.root / "store" / layout.partial("hills", "spring", 1, 1, 1)).parent
    words = np.fromfile(next(folder.glob("*.bin")), "<u4")
    ones = np.unpackbits(words.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 6 * 0.5 / np.sqrt(32 * len(words))
    own = [np.fromfile(federation.root / "store" / layout.payload(site, "spring", 1, 1, "train"), "<u4").astype(np.uint64)
           for site in REGIONS["hills"]]
    assert len({*((own[0] + own[1]) % 2 ** 32).tolist()} & {*range(1 << 20)}) < 3, "no small sum shows through"


def test_a_region_that_is_away_is_named_if_so_many_may_be_missing(federation: Summing, asked: Planned, tmp_path: Path):
    added_up(federation, asked, "coast", "hills", "plains")
    made = committed(federation, asked).commit
    assert [one.site for one in made.updates] == [name for name in NAMES if name not in REGIONS["islands"]]
    assert {one.region: one.reason for one in made.regions}["islands"] == "its coordinator gave no partial sum in time"
    assert federation.proofs(bench=tmp_path / "bench")[1].recomputed


def test_two_regions_away_are_too_many_and_nothing_is_lost(federation: Summing, asked: Planned):
    added_up(federation, asked, "coast", "hills")
    with pytest.raises(QuorumError, match="4 of 8 sites gave an update, the quorum is 6"):
        committed(federation, asked)
    added_up(federation, asked)
    assert len(committed(federation, asked).commit.updates) == 8, "run again, the same answers count: no share was revealed"


@pytest.mark.parametrize("check", [0, 4])
def test_a_region_that_adds_something_is_found(federation: Summing, asked: Planned, tmp_path: Path, check: int):
    lies(federation, asked, "hills", more=1 << 20)
    added_up(federation, asked, "coast", "islands", "plains")
    if check:
        made = committed(federation, asked, check).commit
        assert "signed a partial sum that what its members sent does not add up to" in {
            one.region: one.reason for one in made.regions}["hills"]
        return
    committed(federation, asked, 0)
    with pytest.raises(TrustError, match="region 'hills', round 1 .*: its coordinator signed a partial sum that"):
        federation.proofs(bench=tmp_path / "bench")


def test_a_region_says_no_length_of_what_nobody_sees(federation: Summing, asked: Planned):
    said = federation.add_up("hills", asked)
    lies(federation, asked, "hills", counted=tuple(one.model_copy(update={"norm": 1.0}) for one in said.counted))
    added_up(federation, asked, "coast", "islands", "plains")
    made = committed(federation, asked, 4).commit
    assert "says how long masked answers are" in {one.region: one.reason for one in made.regions}["hills"]


def test_who_is_in_the_sum_stays_decided_when_a_region_signs_another_partial_sum(keyed: Summing, tmp_path: Path):
    """The coordinator dies after it has asked for the reveals; a late member's region adds up again."""
    federation = keyed.copy(tmp_path / "copy")
    planned = federation.plan()
    for name in NAMES[:-1]:
        federation.answer(name, planned)
    added_up(federation, planned)
    reveal = plan_reveal(federation.coordinator, planned, federation.gather(planned))
    federation.answer(NAMES[-1], planned)
    assert [one.site for one in federation.add_up("plains", planned).counted] == ["larch", "maple"]
    assert partial_sums.counted(federation.coordinator.store, planned, "plains") == 2
    again = federation.gather(planned)
    assert again.admitted.keys() == {*NAMES[:-1]}
    assert why_not_added(reveal, again) is None
    assert [one.site for one in committed(federation, planned).commit.updates] == list(NAMES[:-1])


def test_a_partial_sum_that_is_gone_after_members_were_asked_is_a_lost_sum(federation: Summing, asked: Planned):
    added_up(federation, asked)
    reveal = plan_reveal(federation.coordinator, asked, federation.gather(asked))
    (federation.root / "store" / layout.partial("islands", "spring", 1, 1, 1)).unlink()
    why = why_not_added(reveal, federation.gather(asked))
    assert why is not None
    assert "region of 'fir'" in str(why)


def test_an_answer_under_keys_in_which_a_member_has_no_part_stops_no_region(federation: Summing, asked: Planned,
                                                                            monkeypatch: pytest.MonkeyPatch):
    for module in (gather, region):
        monkeypatch.setattr(module, "who_dealt", lambda *_: frozenset(NAMES) - {"elm"})
    said = federation.add_up("hills", asked)
    assert ([one.site for one in said.counted], [no.site for no in said.rejected]) == (["cedar"], ["elm"])
    added_up(federation, asked)
    assert federation.gather(asked).rejected["elm"].reason.endswith("answered under keys in which it has no part")


def test_law_all_that_is_stored_for_regions_and_sums_is_signed_or_named_by_content(federation: Summing, asked: Planned,
                                                                                   monkeypatch: pytest.MonkeyPatch):
    """Whatever lies below regions/, and whatever a sum adds to a run: a document that its writer signed, or bytes whose
    digest stands in their name or in the signed document beside them. And nothing is put where something lies.
    """
    put, honest = list[str](), DirectoryStore.put_once

    def noted(self: DirectoryStore, key: str, body: bytes | Path, **how: Any) -> None:
        put.append(key)
        honest(self, key, body, **how)

    monkeypatch.setattr(DirectoryStore, "put_once", noted)
    before = {path: path.read_bytes() for path in (federation.root / "store").rglob("*") if path.is_file()}
    added_up(federation, asked)
    committed(federation, asked)
    store, named = federation.root / "store", set[str]()
    assert all(path.read_bytes() == body for path, body in before.items())
    assert any(key.startswith("regions/") for key in put)
    for key in {*put}:
        if key.endswith(".json"):
            envelope((store / key).read_bytes(), key)
            named |= {*re.findall("[0-9a-f]{64}", (store / key).read_text())}
    for key in {*put}:
        body = (store / key).read_bytes()
        assert key.endswith(".json") or digest(body) in key or digest(body) in named, key


def test_groups_do_not_go_with_regions(begun: Summing):
    file = begun.coordinator.federation
    said = {**file.model_dump(mode="json"), "combine": {**HOW, "dropouts": 0, "threshold": 6,
                                                        "groups": {"count": 3, "liars": 1}}}
    with pytest.raises(ContractError, match="regions: the groups of a secure sum are dealt anew"):
        parse(Federation, said, "file")
