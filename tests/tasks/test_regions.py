"""Regions: regional coordinators add up, and nobody has to believe them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedround import codec, layout
from fedround.errors import ChainError, ContractError, LostError, QuorumError, StoreUnavailableError, TrustError
from fedround.records import Commit, PartialSum
from fedround.signing import Identity, seal, unseal
from infra.stores import DirectoryStore
from tasks import gather, partial_sums, region
from tasks.collect import last_look_s
from tasks.coordinator import Coordinator
from tasks.plan import Planned
from tasks.recompute import Bench
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation

NAMES = ("ash", "birch", "cedar", "elm", "fir")
REGIONS = {"hills": ("ash", "cedar"), "plains": ("birch", "elm", "fir")}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    return small_federation.make(tmp_path_factory.mktemp("regions"), names=NAMES, max_epsilon=200.0).with_regions(REGIONS)


@pytest.fixture(scope="module")
def asked(begun: SmallFederation) -> Planned:
    """All members have answered, and no region has added up."""
    planned = begun.plan()
    for name in NAMES:
        begun.answer(name, planned)
    return planned


@pytest.fixture
def federation(begun: SmallFederation, asked: Planned, tmp_path: Path) -> SmallFederation:
    return begun.copy(tmp_path / "copy")


def commit(federation: SmallFederation, planned: Planned) -> Commit:
    for name in REGIONS:
        federation.add_up(name, planned)
    return federation.commit(planned).commit


def checking(federation: SmallFederation, count: int) -> Coordinator:
    coordinator = federation.coordinator
    return dataclasses.replace(coordinator, settings=coordinator.settings.model_copy(update={"check_regions": count}))


def test_two_regions_give_the_mean_that_one_coordinator_takes(federation: SmallFederation, asked: Planned, tmp_path: Path):
    made = commit(federation, asked)
    plan, store = asked.plan, federation.root / "store"
    weights = {site.name: site.weight for site in federation.coordinator.federation.sites}
    total = np.zeros(codec.coordinates(plan.sent))
    for name in NAMES:                                                   # a loop over the members' files
        body = (store / layout.delta(name, "spring", 1, 1)).read_bytes()
        total += weights[name] * np.frombuffer(body, "<f4", offset=len(codec.header(plan.sent))).astype(np.float64)
    base = codec.decode((store / layout.model(plan.base_model)).read_bytes(), plan.tensors, "base")
    after = codec.decode((store / layout.model(made.model)).read_bytes(), plan.tensors, "model")
    np.testing.assert_allclose(codec.flatten(after) - codec.flatten(base), total / sum(weights.values()), atol=1e-6)
    assert [one.site for one in made.updates] == list(NAMES)
    assert sum(one.influence for one in made.updates) == pytest.approx(1)
    assert all(one.norm is not None and one.distance is None for one in made.updates)
    assert [one.region for one in made.regions] == ["hills", "plains"]
    _, second = federation.proofs(bench=tmp_path / "bench")
    assert second.recomputed
    assert second.regions == {"hills": "", "plains": ""}
    assert federation.proofs()[1].signatures == second.signatures


def test_nothing_but_documents_of_members_comes_to_the_coordinator(federation: SmallFederation, asked: Planned):
    for name in REGIONS:
        federation.add_up(name, asked)
    coordinator = checking(federation, 0)
    collected = federation.gather(asked, coordinator)
    assert collected.regional is not None
    assert all(one.row is None for one in collected.admitted.values())
    spooled = sorted(path.name for path in coordinator.folder.glob("spool/*/*"))
    assert spooled == ["hills.partial", "plains.partial"]


def test_a_region_that_says_nothing_is_named_and_the_round_goes_on_without_it(federation: SmallFederation, asked: Planned):
    federation.add_up("plains", asked)
    made = federation.commit(asked).commit
    assert [one.site for one in made.updates] == ["birch", "elm", "fir"]
    assert {no.site: no.reason for no in made.rejected} == {
        site: f"site '{site}' round 1: region 'hills' gave no partial sum that counts" for site in ("ash", "cedar")}
    hills, _ = made.regions
    assert (hills.partial, hills.reason) == (None, "its coordinator gave no partial sum in time")
    assert federation.proofs()[1].regions == {"hills": hills.reason, "plains": ""}


def test_a_sum_that_cannot_be_read_for_a_moment_is_read_afterwards(federation: SmallFederation, asked: Planned, monkeypatch):
    """Its region has ended, and time is left: one answer of the store that is none costs nobody the round."""
    for name in REGIONS:
        federation.add_up(name, asked)
    read, failed = partial_sums.newest, set()

    def newest(store, planned, one, *more):
        if one.name not in failed:
            failed.add(one.name)
            raise StoreUnavailableError("the store does not answer")
        return read(store, planned, one, *more)

    monkeypatch.setattr(partial_sums, "newest", newest)
    assert {one.site for one in federation.commit(asked).commit.updates} == {*NAMES}


def test_a_region_waits_for_a_slow_store_and_gives_no_member_the_time_of_the_others(
        federation: SmallFederation, asked: Planned, monkeypatch):
    given = []

    def within(store, patience):
        given.append(patience.left_s)
        return store

    monkeypatch.setattr(DirectoryStore, "within", within)
    federation.add_up("plains", asked)
    whole = asked.plan.deadline_s + last_look_s(asked.plan)
    _, *members, last = given
    assert len(members) == 3
    assert max(members) <= whole / 3
    assert last <= last_look_s(asked.plan)


def test_without_a_quorum_the_round_fails_with_one_sentence(federation: SmallFederation, asked: Planned):
    with pytest.raises(QuorumError, match=r"0 of 5 sites gave an update.*region 'hills' gave no partial sum"):
        federation.commit(asked)
    assert len(commit(federation, asked).updates) == 5, "run again, when the regions are there"


def test_a_member_that_was_late_is_counted_when_the_round_is_run_again(begun: SmallFederation, tmp_path: Path):
    federation = begun.copy(tmp_path / "copy")
    planned = federation.plan("summer")
    federation.answer("birch", planned)
    federation.answer("ash", planned)
    assert federation.add_up("plains", planned).missing == ("elm", "fir")
    federation.answer("elm", planned)
    assert [one.site for one in federation.add_up("plains", planned).counted] == ["birch", "elm"]
    again = federation.add_up("plains", planned)
    assert partial_sums.counted(federation.coordinator.store, planned, "plains") == 2, "nothing new: the last one stands"
    federation.add_up("hills", planned)
    made = federation.commit(planned).commit
    assert [one.site for one in made.updates] == ["ash", "birch", "elm"]
    assert made.missing == ("cedar", "fir")
    assert again.missing == ("fir",)


def test_a_member_whose_update_is_not_finite_is_left_out_by_its_region(federation: SmallFederation, asked: Planned,
                                                                       tmp_path: Path):
    federation.lie("elm", asked, lambda x: x * np.float32("nan"))
    made = commit(federation, asked)
    assert [one.site for one in made.updates] == ["ash", "birch", "cedar", "fir"]
    assert [no.reason for no in made.rejected] == [
        "site 'elm' round 1: region 'plains' did not admit its answer: its update holds NaN or infinite numbers"]
    assert federation.proofs(bench=tmp_path / "bench")[1].recomputed


@pytest.mark.parametrize(("module", "function"), [
    (partial_sums, "added_up"), (partial_sums, "put_numbers"), (region, "put_first"), (region.spool, "clear")])
def test_a_regional_coordinator_that_is_killed_anywhere_signs_the_same(federation: SmallFederation, asked: Planned,
                                                                      tmp_path: Path, module: object, function: str):
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    undisturbed = federation.copy(tmp_path / "undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, function, die)
        with pytest.raises(KeyboardInterrupt):
            federation.add_up("hills", asked)
    assert federation.add_up("hills", asked) == undisturbed.add_up("hills", asked)
    assert partial_sums.counted(federation.coordinator.store, asked, "hills") == 1


# -- regional coordinators that lie ------------------------------------------------------------------------------------


def lies(federation: SmallFederation, planned: Planned, change: Callable[[PartialSum], dict[str, object]],
         moved: float = 0.0) -> None:
    """The coordinator of 'hills' signs something else, and puts other numbers beside it."""
    said, post = federation.add_up("hills", planned), federation.region("hills")
    folder = federation.root / "store" / layout.partial("hills", "spring", 1, 1, 1)
    numbers = np.fromfile(folder.parent / f"{said.numbers.sha256}.bin", "<f8")
    body = (numbers + moved).astype("<f8").tobytes()
    (folder.parent / f"{codec.payload_of(body).sha256}.bin").write_bytes(body)
    folder.unlink()
    folder.write_bytes(seal(said.model_copy(update={"numbers": codec.payload_of(body), **change(said)}), post.identity))


def test_a_wrong_sum_is_found_by_whoever_computes_it_again(federation: SmallFederation, asked: Planned, tmp_path: Path):
    lies(federation, asked, lambda said: {}, moved=0.5)
    federation.add_up("plains", asked)
    coordinator = checking(federation, 0)
    federation.commit(asked, coordinator)
    assert len(federation.proofs()) == 2, "every signature and every digest holds"
    with pytest.raises(TrustError, match=r"region 'hills', round 1 .*: its coordinator signed a partial sum that"):
        federation.proofs(bench=tmp_path / "bench")


def test_a_wrong_sum_is_found_at_once_where_the_coordinator_looks(federation: SmallFederation, asked: Planned):
    lies(federation, asked, lambda said: {}, moved=0.5)
    federation.add_up("plains", asked)
    made = federation.commit(asked, checking(federation, 2)).commit
    assert made.regions[0].partial is None
    assert "its coordinator signed a partial sum that what its members sent does not add up to" in made.regions[0].reason
    assert [one.site for one in made.updates] == ["birch", "elm", "fir"]


def test_which_sums_are_looked_at_is_known_to_the_coordinator_alone(federation: SmallFederation, asked: Planned):
    coordinator = checking(federation, 1)
    drawn = [gather.to_check(coordinator, dataclasses.replace(asked, digest=f"{n:064x}")) for n in range(40)]
    assert {name for names in drawn for name in names} == set(REGIONS)
    assert drawn == [gather.to_check(coordinator, dataclasses.replace(asked, digest=f"{n:064x}")) for n in range(40)]
    other = dataclasses.replace(coordinator, identity=Identity.generate())
    assert drawn != [gather.to_check(other, dataclasses.replace(asked, digest=f"{n:064x}")) for n in range(40)]


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: {"counted": s.counted[:1]}, "does not name each member that was asked once"),
    (lambda s: {"counted": s.counted[:1], "missing": ("cedar",)}, "did not count its answer"),
    (lambda s: {"counted": (s.counted[0].model_copy(update={"answer": "0" * 64}), s.counted[1])},
     "counts an answer of 'ash' that was not admitted"),
    (lambda s: {"counted": (*s.counted, s.counted[0].model_copy(update={"site": "elm"}))},
     "does not name each member that was asked once"),
    (lambda s: {"counted": tuple(reversed(s.counted))}, "do not stand in the order of their names"),
    (lambda s: {"plan": "0" * 64}, "is of another region or plan"),
    (lambda s: {"round": 2}, "is of another region or plan"),
    (lambda s: {"region": "plains"}, "is of another region or plan"),
    (lambda s: {"numbers": None}, "has a sum of nobody, or none of somebody"),
    (lambda s: {"numbers": s.numbers.model_copy(update={"size_bytes": 8})}, "8 bytes of numbers, expected"),
    (lambda s: {"numbers": codec.payload_of(b"\xff" * s.numbers.size_bytes)}, "cannot be read"),
])
def test_what_a_region_may_not_say(federation: SmallFederation, asked: Planned, change, says: str):
    lies(federation, asked, change)
    federation.add_up("plains", asked)
    made = federation.commit(asked, checking(federation, 0)).commit
    assert [one.site for one in made.updates if one.site in REGIONS["plains"]] == ["birch", "elm", "fir"]
    assert says in " ".join([made.regions[0].reason, *(no.reason for no in made.rejected)])


def test_numbers_that_are_not_finite_are_no_sum(federation: SmallFederation, asked: Planned):
    lies(federation, asked, lambda said: {}, moved=float("nan"))
    federation.add_up("plains", asked)
    assert "not finite" in federation.commit(asked, checking(federation, 0)).commit.regions[0].reason


def test_another_key_speaks_for_no_region(federation: SmallFederation, asked: Planned):
    said = federation.add_up("hills", asked)
    path = federation.root / "store" / layout.partial("hills", "spring", 1, 1, 1)
    path.unlink()
    path.write_bytes(seal(said, federation.region("plains").identity))
    federation.add_up("plains", asked)
    assert "by another key" in federation.commit(asked).commit.regions[0].reason


def test_a_key_without_a_mandate_signs_nothing(federation: SmallFederation, asked: Planned):
    other = dataclasses.replace(federation.region("hills"), identity=Identity.generate())
    with pytest.raises(TrustError, match="gives the key of region 'hills' no mandate"):
        small_federation.serve(other, "spring", 1, 1)


# -- a coordinator that lies about regions -----------------------------------------------------------------------------


def altered(federation: SmallFederation, change: Callable[[Commit], dict[str, object]]) -> None:
    coordinator, path = federation.coordinator, federation.root / "store" / layout.commit("spring", 1)
    made = unseal(path.read_bytes(), Commit, coordinator.identity.key, "commit")
    path.unlink()
    path.write_bytes(seal(made.model_copy(update=change(made)), coordinator.identity))


@pytest.mark.parametrize(("change", "says"), [
    (lambda c: {"regions": c.regions[:1]}, "does not name each region"),
    (lambda c: {"regions": tuple(reversed(c.regions))}, "does not name each region"),
    (lambda c: {"regions": (c.regions[0].model_copy(update={"partial": None, "reason": "away"}), c.regions[1])},
     "holds updates of region 'hills', which gave no partial sum"),
    (lambda c: {"regions": (c.regions[0].model_copy(update={"partial": c.regions[1].partial}), c.regions[1])}, "is gone"),
    (lambda c: {"updates": (c.updates[0].model_copy(update={"norm": 9.0}), *c.updates[1:])}, "says other lengths"),
])
def test_what_a_commit_may_not_say_of_regions(federation: SmallFederation, asked: Planned, change, says: str):
    commit(federation, asked)
    altered(federation, change)
    with pytest.raises(ChainError if "gone" not in says else LostError, match=says):
        federation.proofs()


def test_a_partial_sum_that_is_gone_is_of_its_region_and_stops_no_proof(federation: SmallFederation, asked: Planned,
                                                                        tmp_path: Path):
    commit(federation, asked)
    (federation.root / "store" / layout.partial("hills", "spring", 1, 1, 1)).unlink()
    store, key = federation.coordinator.store, federation.coordinator.identity.key
    proven = verify_run(store, "spring", key, None, Bench(tmp_path / "bench", store))
    assert [proof.recomputed for proof in (next(proven), next(proven))] == [False, True], "from the members' updates"
    with pytest.raises(LostError, match="region 'hills'"):
        next(proven)


def test_a_site_answers_no_plan_with_other_regions_than_the_federation_file(federation: SmallFederation):
    planned = federation.plan("autumn")
    coordinator = federation.coordinator
    swapped = tuple(one.model_copy(update={"key": Identity.generate().key}) for one in planned.plan.agreed.regions)
    forged = small_federation.changed(planned.plan, regions=swapped)
    path = federation.root / "store" / layout.plan("autumn", 1, 1, "train")
    path.unlink()
    path.write_bytes(seal(forged, coordinator.identity))
    with pytest.raises(TrustError, match="by whom"):
        federation.answer("ash", planned)


# -- mandates ----------------------------------------------------------------------------------------------------------


def test_a_mandate_ends(begun: SmallFederation, tmp_path: Path):
    federation = begun.copy(tmp_path / "copy")
    for name, members in REGIONS.items():
        given = small_federation.Region(name=name, key=federation.region(name).identity.key, members=members, until=1)
        small_federation.give_mandate(federation.root / "coordinator", given)
    planned = federation.plan("winter")
    for name in NAMES:
        federation.answer(name, planned)
    for name in REGIONS:
        federation.add_up(name, planned)
    federation.commit(planned)
    with pytest.raises(ContractError, match="the mandate of region 'hills' ended with round 1"):
        federation.plan("winter")


@pytest.mark.parametrize(("regions", "says"), [
    ({"hills": ("ash",)}, "'birch' is in none"),
    ({"hills": ("ash", "birch", "cedar", "elm", "fir"), "plains": ("fir",)}, "in 2 regions"),
    ({"hills": ("ash", "birch", "cedar", "elm", "fir", "yew")}, "'yew' is no member"),
    ({"ash": ("ash", "birch", "cedar", "elm", "fir")}, "'ash' is a member's or the coordinator's name"),
])
def test_every_member_is_in_one_region(begun: SmallFederation, regions: dict[str, tuple[str, ...]], says: str):
    file = begun.coordinator.federation
    said = {**file.model_dump(mode="json"), "regions": [
        {"name": name, "key": Identity.generate().key, "members": list(members)} for name, members in regions.items()]}
    with pytest.raises(ContractError, match=says):
        small_federation.parse(type(file), said, "file")


@pytest.mark.parametrize(("change", "says"), [
    ({"aggregation": {"rule": {"name": "trimmed_mean", "f": 0}}}, "looks at every update"),
    ({"aggregation": None}, "looks at every update"),
    ({"enough": 2}, "'enough', with which a round closes"),
    ({"reputation": {"window": 2, "exclude_after": 1, "exclude_for": 1}}, r"\[reputation\] needs every update"),
    ({"incentive": {"points": 10.0}}, r"\[incentive\] needs every update"),
])
def test_what_does_not_go_with_regions_is_refused_in_words(begun: SmallFederation, change: dict[str, object], says: str):
    file = begun.coordinator.federation
    with pytest.raises(ContractError, match=says):
        small_federation.parse(type(file), {**file.model_dump(mode="json"), **change}, "file")
