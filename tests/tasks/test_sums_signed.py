"""Sums whose members sign who is in them before they reveal: lower thresholds hold, and a coordinator's lies are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedround import layout
from fedround.errors import ContractError, QuorumError, TrustError
from fedround.records import Answer, Countersign, Countersigned, Placed, Plan, Reveal, Sighted
from fedround.sightings import sign_sighting
from fedround.signing import digest, seal, unseal
from site_workers import once, outbox, recover, release, summing
from tasks.ask import conclude
from tasks.plan import Planned
from tasks.unmask import plan_countersign, plan_reveal
from tasks.verify import verify_run
from tests import summing as made
from tests.small_federation import LABELS, NAMES
from tests.summing import HOW, Summing

SIGNED = {**HOW, "consistency": "signed"}
FIVE = (*NAMES, "upper", "west")
LOW = {"name": "secure_sum", "threshold": 3, "dropouts": 2, "colluders": 0, "consistency": "signed"}
"""Of five members: without signatures, a coordinator could leave three out of a sum."""


@pytest.fixture
def sums(tmp_path_factory: pytest.TempPathFactory, keyed: Summing) -> Summing:
    return keyed.copy(tmp_path_factory.mktemp("sums"))


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> Summing:
    """Keys stand, and nothing was asked of rows."""
    federation = made.make(tmp_path_factory.mktemp("keyed"), combine=SIGNED)
    federation.keys()
    return federation


def said(federation: Summing, name: str, purpose: str) -> list[Path]:
    """What a site has answered to questions of this purpose."""
    folder = {"countersign": "countersigned", "reveal": "reveals"}[purpose]
    return sorted((federation.root / "store" / layout.of_run(name, "spring") / folder).rglob("answer.json"))


def asked(federation: Summing, names: tuple[str, ...] = NAMES) -> Planned:
    """A question that all have answered."""
    planned = federation.ask()
    for name in names:
        federation.answer(name, planned)
    return planned


def shown(federation: Summing, plan: Plan) -> Planned:
    """The coordinator signs a plan of its own making and puts it where another lay, or none."""
    place = federation.root / "store" / layout.plan(plan.run, plan.round, plan.attempt, plan.asks.kind)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.chmod(0o600)
    place.write_bytes(document := seal(plan, federation.coordinator.identity))
    return Planned(plan, digest(document), federation.ask().parent)


def over(federation: Summing, planned: Planned, whole: Countersign, names: tuple[str, ...]) -> dict[str, object]:
    """The same question about the sum over these members alone."""
    survivors = tuple(one for one in whole.survivors if one.site in names)
    plan = planned.plan
    body = b"\n".join((federation.root / "store" / layout.answer(
        one.site, plan.run, plan.round, plan.attempt, plan.asks.kind)).read_bytes() for one in survivors)
    key = federation.root / "store" / layout.relayed("spring", digest(body))
    if not key.exists():
        federation.coordinator.store.put_once(layout.relayed("spring", digest(body)), body)
    everybody = {one.site for one in whole.survivors} | set(whole.dropped)
    return {"survivors": survivors, "handed_on": digest(body), "dropped": tuple(sorted(everybody - set(names)))}


def test_a_sum_is_signed_then_revealed_and_proven(sums: Summing):
    finding = sums.concluded(LABELS)
    assert [told.site for told in finding.answers] == sorted(NAMES)
    for name in NAMES:
        assert len(said(sums, name, "countersign")) == len(said(sums, name, "reveal")) == 1
    proofs = list(verify_run(sums.coordinator.store, "spring", sums.coordinator.identity.key))
    assert proofs[0].findings[0].totals == finding.totals


def test_a_round_trains_on_a_signed_sum(sums: Summing):
    assert sums.train().commit.round == 1


def test_who_signs_and_says_nothing_more_and_who_signs_too_late_and_reveals(sums: Summing):
    planned = asked(sums)
    finding = conclude(sums.coordinator, planned, sums.revealing(planned, sites=("south", "east"), signing=("north", "east")))
    assert [told.site for told in finding.sum.reveals] == ["east", "south"]
    assert len(said(sums, "south", "countersign")) == 1
    assert list(verify_run(sums.coordinator.store, "spring", sums.coordinator.identity.key))


def test_a_sum_that_too_few_sign_is_given_up_and_the_next_attempt_has_another_slot(sums: Summing):
    planned = asked(sums)
    with pytest.raises(QuorumError, match="1 of 3 sites signed who is in the sum.*2 must.*new noise"):
        sums.revealing(planned, signing=("north",))
    assert said(sums, "north", "reveal") == []
    again = asked(sums)
    assert (again.plan.attempt, again.plan.asks.slot.number) == (2, 1)
    assert conclude(sums.coordinator, again, sums.revealing(again)).sum.wrong == ()


def test_a_coordinator_that_dies_goes_on_with_the_list_that_it_asked_to_sign(sums: Summing):
    planned = sums.ask()
    for name in ("north", "east"):
        sums.answer(name, planned)
    first = plan_countersign(sums.coordinator, planned, sums.collect(planned))
    for name in NAMES:
        sums.answer(name, planned)
    assert plan_countersign(sums.coordinator, planned, sums.collect(planned)).digest == first.digest
    finding = conclude(sums.coordinator, planned, sums.revealing(planned))
    assert ([told.site for told in finding.answers], finding.missing) == (["east", "north"], ("south",))


def test_attack_a_folder_that_was_recovered_between_its_signature_and_its_reveal_is_asked_for_another_sum(sums: Summing,
                                                                                                       tmp_path: Path):
    """What it signed is not in the backup: nothing there would keep it from revealing for another list."""
    planned = asked(sums)
    shutil.copytree(sums.root / "north", tmp_path / "backup")
    answers = sums.collect(planned)
    listed = plan_countersign(sums.coordinator, planned, answers)
    for name in NAMES:
        sums.answer(name, planned)
    shutil.rmtree(sums.root / "north")
    shutil.copytree(tmp_path / "backup", sums.root / "north")
    site = sums.site("north")
    recover.restore(site, recover.forgotten(site))
    plan_reveal(sums.coordinator, planned, answers, listed, sums.collect(listed))
    with pytest.raises(TrustError, match="are not there any more"):
        sums.answer("north", planned)
    assert said(sums, "north", "reveal") == []
    finding = conclude(sums.coordinator, planned, sums.revealing(planned, sites=("east", "south"), signing=()))
    assert [told.site for told in finding.sum.reveals] == ["east", "south"], "the others suffice, and its numbers are in it"
    assert "north" in {told.site for told in finding.answers}


@pytest.mark.parametrize(("module", "function", "times"), [
    (once, "create_once", 0), (outbox, "write", 0), (release, "publish", 0), (once, "create_once", 1),
    (summing, "reveal", 0)])
def test_a_site_that_dies_ends_with_the_same_bytes_and_one_signature(
        sums: Summing, tmp_path: Path, module: object, function: str, times: int):
    """times: how often it does that for the sum before it dies."""
    planned = asked(sums)
    undisturbed = sums.copy(tmp_path / "undisturbed")
    for federation in (sums, undisturbed):
        collected = federation.collect(planned)
        listed = plan_countersign(federation.coordinator, planned, collected)
        for name in ("south", "east"):
            federation.answer(name, planned)
        if times or function == "reveal" or federation is undisturbed:
            federation.answer("north", planned)
        else:
            federation.killed("north", planned, module, function)
            federation.answer("north", planned)
        plan_reveal(federation.coordinator, planned, collected, listed, federation.collect(listed))
        if (times or function == "reveal") and federation is sums:
            federation.killed("north", planned, module, function)
        federation.answer("north", planned)
    assert sent(sums) == sent(undisturbed)
    assert [len(said(sums, "north", purpose)) for purpose in ("countersign", "reveal")] == [1, 1]


def sent(federation: Summing) -> dict[str, bytes]:
    """All files that north has sent, and what it signed."""
    root = federation.root / "store" / "sites" / "north"
    files = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("payload.bin"))}
    key = federation.site("north").identity.key
    return files | {path.name: unseal(path.read_bytes(), Answer, key, "it").sighting.encode()
                    for path in said(federation, "north", "countersign")}


# -- a coordinator that lies -------------------------------------------------------------------------------------------


SHOWN = {"east": ("east", "upper", "west"), "north": ("north", "upper", "west"), "south": ("south", "upper", "west"),
         "upper": ("south", "upper", "west"), "west": ("east", "upper", "west")}
"""Which survivors a coordinator names to whom: of east, north and south three members each would tell the key."""


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> Summing:
    """Five members, and settings that only signatures make hold; all have answered a question."""
    federation = made.make(tmp_path_factory.mktemp("five"), names=FIVE, combine=LOW, quorum=3)
    federation.keys()
    return federation


def test_attack_other_survivors_for_every_member_and_no_share_is_revealed(five: Summing,
                                                                          tmp_path_factory: pytest.TempPathFactory):
    """Each signs what it is shown, once; no list has a threshold of signatures, and none can be counted for another."""
    sums = five.copy(tmp_path_factory.mktemp("lied-to"))
    planned = asked(sums, FIVE)
    honest = plan_countersign(sums.coordinator, planned, sums.collect(planned))
    whole, lists, signed = honest.plan.asks, {}, {}
    for name, survivors in SHOWN.items():
        changes = {"cohort": tuple(sorted(survivors)), "asks": whole.model_copy(update=over(sums, planned, whole, survivors))}
        lists[name] = shown(sums, honest.plan.model_copy(update=changes))
        sums.answer(name, planned)
        signed[name] = sums.collect(lists[name]).admitted[name].answer.sighting
        assert len(said(sums, name, "countersign")) == 1
    for name in FIVE:                               # the signatures that there are, for each list in turn
        place = shown(sums, lists[name].plan)
        asks = place.plan.asks
        by = tuple(Sighted(site=one, sighting=signed[one]) for one in sorted(SHOWN[name]))
        at = Placed(round=place.plan.round, attempt=place.plan.attempt, digest=place.digest)
        shown(sums, place.plan.model_copy(update={"asks": Reveal(
            of=asks.of, survivors=asks.survivors, handed_on=asks.handed_on, dropped=asks.dropped,
            countersigned=Countersigned(asked=at, by=by))}))
        with pytest.raises(TrustError, match="did not sign who is in the sum"):
            sums.answer(name, planned)
        assert said(sums, name, "reveal") == []


@pytest.fixture
def listed(sums: Summing) -> tuple[Summing, Planned, Planned, Planned]:
    """All have answered and signed; the honest plan to reveal, which nobody has seen."""
    planned = asked(sums)
    signs = plan_countersign(sums.coordinator, planned, sums.collect(planned))
    for name in NAMES:
        sums.answer(name, planned)
    return sums, planned, signs, plan_reveal(
        sums.coordinator, planned, sums.collect(planned), signs, sums.collect(signs))


def by(signed: Countersigned, *sites: str, **otherwise: str) -> dict[str, object]:
    """Signatures of these. otherwise: whose signature stands in the place of whose."""
    known = {one.site: one.sighting for one in signed.by}
    return {"countersigned": signed.model_copy(update={"by": tuple(
        Sighted(site=one, sighting=known[otherwise.get(one, one)]) for one in sites)})}


CHEATS: dict[str, tuple[str, Callable[[Countersigned], dict[str, object]]]] = {
    "nobody's": ("disagree on whether members sign", lambda _: {"countersigned": None}),
    "one's": ("1 member signed who is in the sum, 2 must", lambda signed: by(signed, "east")),
    "one's twice": ("twice", lambda signed: by(signed, "east", "east")),
    "somebody else's": ("'south' did not sign", lambda signed: by(signed, "east", "south", south="north")),
    "a stranger's": ("of others than its members", lambda signed: by(signed, "east", "mallory", mallory="north")),
    "of another list": ("another plan to sign", lambda signed: {"countersigned": signed.model_copy(update={
        "asked": signed.asked.model_copy(update={"digest": "0" * 64})})}),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_share_is_revealed_and_nothing_proven_with_signatures_that_are_not_those(
        listed: tuple[Summing, Planned, Planned, Planned], cheat: str):
    sums, planned, _, honest = listed
    words, changes = CHEATS[cheat]
    asks = honest.plan.asks
    shown(sums, honest.plan.model_copy(update={"asks": asks.model_copy(update=changes(asks.countersigned))}))
    with pytest.raises((TrustError, ContractError), match=words):
        sums.answer("north", planned)
    assert said(sums, "north", "reveal") == []


def test_no_share_is_revealed_for_a_smaller_sum_than_was_signed(listed: tuple[Summing, Planned, Planned, Planned]):
    sums, planned, signs, honest = listed
    smaller = over(sums, planned, signs.plan.asks, ("north", "east"))
    shown(sums, honest.plan.model_copy(update={"cohort": ("east", "north"),
                                               "asks": honest.plan.asks.model_copy(update=smaller)}))
    with pytest.raises(TrustError, match="another sum than members have signed"):
        sums.answer("north", planned)
    assert said(sums, "north", "reveal") == []


def test_a_second_list_for_a_slot_is_not_signed_and_not_revealed_for(listed: tuple[Summing, Planned, Planned, Planned]):
    """Not even where others, who lie, have signed it: more liars than were agreed on."""
    sums, planned, signs, honest = listed
    smaller = over(sums, planned, signs.plan.asks, ("north", "east"))
    asks = signs.plan.asks.model_copy(update=smaller)
    shown(sums, signs.plan.model_copy(update={"asks": signs.plan.asks.model_copy(update={"of": "0" * 64})}))
    second = shown(sums, signs.plan.model_copy(update={"attempt": 2, "cohort": ("east", "north"), "asks": asks}))
    with pytest.raises(TrustError, match="never uses them twice"):
        sums.answer("north", planned)
    assert len(said(sums, "north", "countersign")) == 1
    shown(sums, signs.plan)
    liars = tuple(Sighted(site=name, sighting=sign_sighting(second.plan, second.digest, name, sums.site(name).identity))
                  for name in ("east", "north"))
    at = Placed(round=second.plan.round, attempt=2, digest=second.digest)
    shown(sums, honest.plan.model_copy(update={"cohort": ("east", "north"), "asks": Reveal(
        of=asks.of, survivors=asks.survivors, handed_on=asks.handed_on, dropped=asks.dropped,
        countersigned=Countersigned(asked=at, by=liars))}))
    with pytest.raises(TrustError, match="never uses them twice"):
        sums.answer("north", planned)
    assert said(sums, "north", "reveal") == []


def test_a_history_without_the_signatures_that_its_terms_ask_for_is_not_proven(sums: Summing):
    planned = asked(sums)
    conclude(sums.coordinator, planned, sums.revealing(planned))
    key = sums.root / "store" / layout.plan("spring", 0, 1, "countersign")
    key.chmod(0o600)
    document = key.read_bytes()
    key.write_bytes(document[:200] + bytes([document[200] ^ 1]) + document[201:])
    with pytest.raises((TrustError, ContractError)):
        list(verify_run(sums.coordinator.store, "spring", sums.coordinator.identity.key))
