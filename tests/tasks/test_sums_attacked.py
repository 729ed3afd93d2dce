"""A coordinator, a store or a member that cheats with secure sums: nothing leaves, or the cheat is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fedround import codec, layout
from fedround.errors import ChainError, QuorumError, TrustError
from fedround.privacy import ledger
from fedround.records import Answer, Finding, Plan, Reason, Reveal, Told
from fedround.secure_sums import dealing, shamir
from fedround.secure_sums.keys import offer
from fedround.sightings import sign_sighting
from fedround.signing import digest, seal, unseal
from infra.epochs import known_epoch
from site_workers import once, outbox, recover, release, summing
from tasks import setting_up
from tasks.ask import conclude
from tasks.plan import Planned
from tasks.requests import NextRoundRequest
from tasks.setting_up import hand_on, next_question
from tasks.unmask import give_up, plan_reveal, suffices, why_lost
from tasks.verify import verify_run
from tests import summing as made
from tests.small_federation import LABELS, NAMES, X1, changed
from tests.summing import Summing


@pytest.fixture
def sums(tmp_path_factory: pytest.TempPathFactory, keyed: Summing) -> Summing:
    """Keys stand, and nothing was asked of rows."""
    return keyed.copy(tmp_path_factory.mktemp("sums"))


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory, unasked: Summing) -> Summing:
    """Nothing was asked."""
    return unasked.copy(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def unasked(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> Summing:
    return made.make(tmp_path_factory.mktemp("unasked"))


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, unasked: Summing) -> Summing:
    federation = unasked.copy(tmp_path_factory.mktemp("keyed"))
    federation.keys()
    return federation


def put(federation: Summing, plan: Plan) -> Planned:
    """The coordinator signs a plan of its own making."""
    document = seal(plan, federation.coordinator.identity)
    federation.coordinator.store.put_once(layout.plan(plan.run, plan.round, plan.attempt, plan.asks.kind), document)
    return Planned(plan, digest(document), federation.ask().parent)


def charges(federation: Summing, name: str = "north") -> int:
    return len(ledger.read(federation.site(name).ledger).charges)


def said(federation: Summing, name: str, planned: Planned) -> Path:
    plan = planned.plan
    return federation.root / "store" / layout.answer(name, plan.run, plan.round, plan.attempt, plan.asks.kind)


def reveals(federation: Summing, name: str = "north") -> list[Path]:
    return sorted((federation.root / "store" / layout.of_run(name, "spring") / "reveals").rglob("answer.json"))


# -- a coordinator that asks twice -------------------------------------------------------------------------------------


def test_no_second_plan_uses_a_slot_and_nothing_is_charged_for_it(sums: Summing):
    first = sums.ask()
    sums.answer("north", first)
    before = charges(sums)
    second = put(sums, changed(first.plan, attempt=7, asks=first.plan.asks.model_copy(update={"statistics": (LABELS,)})))
    with pytest.raises(TrustError, match="never uses them twice"):
        sums.answer("north", second)
    assert charges(sums) == before
    assert not said(sums, "north", second).exists()


def revealing(sums: Summing) -> tuple[Planned, Planned]:
    """A question that all have answered, and the honest plan to reveal, which nobody has seen."""
    planned = sums.ask()
    for name in NAMES:
        sums.answer(name, planned)
    return planned, plan_reveal(sums.coordinator, planned, sums.collect(planned))


def instead_of(federation: Summing, honest: Planned, asks: Reveal) -> None:
    """The coordinator shows another plan in the place of the one that it has signed."""
    place = federation.root / "store" / layout.plan("spring", 0, 1, "reveal")
    place.chmod(0o600)
    place.write_bytes(seal(honest.plan.model_copy(update={"asks": asks}), federation.coordinator.identity))


def other_answer(asks: Reveal, site: str, answer: str) -> dict[str, object]:
    return {"survivors": tuple(Told(site=site, answer=answer) if one.site == site else one for one in asks.survivors)}


def only(asks: Reveal, *names: str) -> dict[str, object]:
    return {"survivors": tuple(one for one in asks.survivors if one.site in names),
            "dropped": tuple(sorted(one.site for one in asks.survivors if one.site not in names))}


def with_answers(federation: Summing, asks: Reveal, documents: dict[str, bytes]) -> Reveal:
    """The same, with these documents handed on."""
    body = b"\n".join(documents[one.site] for one in asks.survivors)
    federation.coordinator.store.put_once(layout.relayed("spring", digest(body)), body)
    return asks.model_copy(update={"handed_on": digest(body)})


CHEATS: dict[str, Callable[[Reveal], dict[str, object]]] = {
    "a member in the sum and dropped": lambda asks: {"dropped": ("east",)},
    "a member in neither": lambda asks: {**only(asks, "north", "east"), "dropped": ()},
    "without the site that is asked": lambda asks: only(asks, "east", "south"),
    "over fewer than were agreed": lambda asks: only(asks, "north"),
    "over an answer that there is not": lambda asks: other_answer(asks, "east", "0" * 64),
    "over somebody else's answer": lambda asks: other_answer(asks, "east", asks.survivors[-1].answer),
    "over another answer of the site": lambda asks: other_answer(asks, "north", asks.survivors[0].answer),
    "of another plan": lambda asks: {"of": "0" * 64},
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_share_is_revealed_for_another_sum_than_was_agreed(sums: Summing, cheat: str):
    planned, honest = revealing(sums)
    asks = honest.plan.asks.model_copy(update=CHEATS[cheat](honest.plan.asks))
    documents = {name: said(sums, name, planned).read_bytes() for name in NAMES}
    instead_of(sums, honest, with_answers(sums, asks, documents))
    with suppress(TrustError, ChainError):
        sums.answer("north", planned)
    assert reveals(sums) == []


def test_no_share_is_revealed_for_an_answer_that_somebody_else_made_with_the_sites_key(sums: Summing):
    planned, honest = revealing(sums)
    site = sums.site("north")
    other = unseal(said(sums, "north", planned).read_bytes(), Answer, site.identity.key, "north")
    forged = seal(other.model_copy(update={"charges": 99}), site.identity)
    others = {name: said(sums, name, planned).read_bytes() for name in NAMES}
    changes = other_answer(honest.plan.asks, "north", digest(forged))
    instead_of(sums, honest, with_answers(sums, honest.plan.asks.model_copy(update=changes), others | {"north": forged}))
    with pytest.raises(TrustError, match="another answer of this site"):
        sums.answer("north", planned)
    assert reveals(sums) == []


def test_no_share_is_revealed_for_fewer_than_were_agreed_though_the_threshold_would_do(
        tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None):
    all_three = {"name": "secure_sum", "threshold": 2, "dropouts": 0, "colluders": 0}
    sums = made.make(tmp_path_factory.mktemp("all-three"), quorum=3, combine=all_three)
    sums.keys()
    planned, honest = revealing(sums)
    documents = {name: said(sums, name, planned).read_bytes() for name in NAMES}
    instead_of(sums, honest, with_answers(
        sums, honest.plan.asks.model_copy(update=only(honest.plan.asks, "north", "east")), documents))
    with pytest.raises(TrustError, match="3 at least, so 'north' reveals nothing"):
        sums.answer("north", planned)
    assert reveals(sums) == []


def test_shares_are_revealed_for_one_sum_of_a_slot_once_ever(sums: Summing):
    """Not even in a place of its own, where the site has answered nothing yet."""
    planned, honest = revealing(sums)
    sums.answer("north", planned)
    asks = honest.plan.asks
    instead_of(sums, honest, asks.model_copy(update={"of": "0" * 64}))
    other = asks.model_copy(update=only(asks, "north", "south"))
    documents = {name: said(sums, name, planned).read_bytes() for name in NAMES}
    put(sums, honest.plan.model_copy(update={"attempt": 2, "cohort": ("north", "south"),
                                             "asks": with_answers(sums, other, documents)}))
    with pytest.raises(TrustError, match="never uses them twice"):
        sums.answer("north", planned)
    assert len(reveals(sums)) == 1


def test_a_reveal_is_answered_by_no_flow_run_of_its_own(sums: Summing):
    _, honest = revealing(sums)
    with pytest.raises(TrustError, match="by no other"):
        sums.answer("north", honest)
    assert reveals(sums) == []


def test_a_folder_that_was_restored_from_before_its_reveal_makes_no_second_one(sums: Summing, tmp_path: Path):
    planned = sums.ask()
    for name in NAMES:
        sums.answer(name, planned)
    shutil.copytree(sums.root / "north", tmp_path / "backup")
    plan_reveal(sums.coordinator, planned, sums.collect(planned))
    sums.answer("north", planned)
    first = reveals(sums)[0].read_bytes()
    shutil.rmtree(sums.root / "north")
    shutil.copytree(tmp_path / "backup", sums.root / "north")
    sums.answer("north", planned)
    assert [path.read_bytes() for path in reveals(sums)] == [first]
    refused = sorted((sums.root / "store" / layout.of_run("north", "spring") / "reveals").rglob("refusal-*.json"))
    assert b'"rollback"' in refused[-1].read_bytes()


def test_a_folder_that_was_recovered_uses_none_of_the_keys_that_it_had(sums: Summing, tmp_path: Path):
    shutil.copytree(sums.root / "north", tmp_path / "backup")
    sums.concluded(X1)
    shutil.rmtree(sums.root / "north")
    shutil.copytree(tmp_path / "backup", sums.root / "north")
    site = sums.site("north")
    recover.restore(site, recover.forgotten(site))
    planned = sums.ask(LABELS)
    assert [sums.answer(name, planned) for name in NAMES] == ["refusal", "waits", "waits"]
    assert "recovered since" in sums.collect(planned).refused["north"].refusal.detail
    conclude(sums.coordinator, planned, sums.revealing(planned))
    assert len(sums.concluded(LABELS, X1).answers) == 3
    assert next_question(sums.coordinator, NextRoundRequest(run="spring")) is None


# -- keys and shares that are not the others' --------------------------------------------------------------------------


def test_keys_that_the_coordinator_makes_for_a_member_are_no_keys(tmp_path_factory: pytest.TempPathFactory, keyed: Summing):
    """The store's owner can put what it likes where the others read: the signature in it is not that member's."""
    sums = keyed.copy(tmp_path_factory.mktemp("forged"))
    planned = sums.ask()
    known_epoch.cache_clear()
    for path in sorted((sums.root / "store" / "runs" / "spring" / "relayed").iterdir()):
        if path.read_bytes().startswith(b"fedround/1/secure-sums/keys"):
            path.chmod(0o600)
            path.write_bytes(offer(b"x" * 32, b"e" * 32, 32).to_bytes())
            break
    with pytest.raises(TrustError):
        sums.answer("north", planned)
    assert not said(sums, "north", planned).exists()


def test_keys_that_a_member_did_not_sign_are_dealt_no_share(fresh: Summing):
    """The coordinator makes keys in a member's name, names them in its finding, and hands them on."""
    offered = next_question(fresh.coordinator, NextRoundRequest(run="spring"))
    for name in NAMES:
        fresh.answer(name, offered)
    store, plan = fresh.coordinator.store, offered.plan
    body = offer(b"x" * 32, bytes.fromhex(offered.digest), plan.asks.slots).to_bytes()
    honest = unseal(said(fresh, "east", offered).read_bytes(), Answer, fresh.site("east").identity.key, "east")
    forged = seal(honest.model_copy(update={"material": codec.payload_of(body)}), fresh.coordinator.identity)
    for made_up in (body, forged):
        store.put_once(layout.relayed("spring", digest(made_up)), made_up)
    collected = fresh.collect(offered)
    hand_on(fresh.coordinator, offered, collected)
    answers = tuple(Told(site=name, answer=digest(forged) if name == "east" else one.digest)
                    for name, one in sorted(collected.admitted.items()))
    finding = Finding(federation=plan.federation, run="spring", round=0, attempt=1, plan=offered.digest, answers=answers,
                      tool_version=plan.tool_version)
    store.put_once(layout.finding("spring", 0, 1, "keys"), seal(finding, fresh.coordinator.identity))
    asked = next_question(fresh.coordinator, NextRoundRequest(run="spring"))
    with pytest.raises(TrustError, match="not signed|signed by"):
        fresh.answer("north", asked)
    assert not said(fresh, "north", asked).exists()


# -- members that lie, or are gone -------------------------------------------------------------------------------------


def lie(federation: Summing, name: str, planned: Planned, body: Callable[[bytes], bytes]) -> None:
    """A member who has answered with a file says another one instead, under its own good signature."""
    plan, site = planned.plan, federation.site(name)
    where = name, plan.run, plan.round, plan.attempt, plan.asks.kind
    document, file = (federation.root / "store" / key for key in (layout.answer(*where), layout.payload(*where)))
    other = body(file.read_bytes())
    answer = unseal(document.read_bytes(), Answer, site.identity.key, name)
    sealed = seal(answer.model_copy(update={"material": codec.payload_of(other)}), site.identity)
    for path, new in ((document, sealed), (file, other)):
        path.chmod(0o600)
        path.write_bytes(new)


def test_a_wrongly_dealt_share_is_complained_about_by_name_and_new_keys_are_set_up(fresh: Summing):
    offered = next_question(fresh.coordinator, NextRoundRequest(run="spring"))
    for name in NAMES:
        fresh.answer(name, offered)
    conclude(fresh.coordinator, offered, fresh.collect(offered))
    asked = next_question(fresh.coordinator, NextRoundRequest(run="spring"))
    for name in NAMES:
        fresh.answer(name, asked)
    lie(fresh, "east", asked, lambda body: body[:-1] + bytes([body[-1] ^ 1]))          # what is sealed for the last member
    conclude(fresh.coordinator, asked, fresh.collect(asked))
    planned = fresh.ask()
    assert [fresh.answer(name, planned) for name in NAMES] == ["waits", "waits", "refusal"]
    finding = conclude(fresh.coordinator, planned, fresh.revealing(planned))
    assert [told.site for told in finding.answers] == ["east", "north"]
    refused = fresh.collect(planned).refused["south"].refusal
    assert refused.reason is Reason.KEYS
    assert "'east' dealt to 'south'" in refused.detail
    again = next_question(fresh.coordinator, NextRoundRequest(run="spring"))
    assert again.plan.asks.epoch == 2


def test_who_reveals_a_wrong_share_is_named_and_the_sum_is_read_without_it(sums: Summing):
    planned, honest = revealing(sums)
    for name in NAMES:
        sums.answer(name, planned)
    lie(sums, "east", honest, lambda body: body[:-32] + bytes(32))
    finding = conclude(sums.coordinator, planned, sums.revealing(planned))
    assert finding.sum.wrong == ("east",)
    assert all(abs(total.table.sum() - 890) < 200 for total in finding.totals)
    assert [proof.findings[0].totals for proof in verify_run(
        sums.coordinator.store, "spring", sums.coordinator.identity.key)] == [finding.totals]


def test_a_sum_that_too_few_reveal_is_given_up_and_the_next_attempt_has_another_slot(sums: Summing):
    planned, honest = revealing(sums)
    sums.answer("north", planned)
    said = sums.collect(honest)
    assert not suffices(sums.coordinator, planned, honest, said)
    with pytest.raises(QuorumError, match="1 of 3 sites revealed.*1 member revealed their shares rightly, 2 must"):
        give_up(sums.coordinator, planned, honest, said, why_lost(sums.coordinator, planned, honest, said))
    again = sums.ask()
    assert (again.plan.attempt, again.plan.asks.slot.number) == (2, 1)
    for name in NAMES:
        sums.answer(name, again)
    assert [len(ledger.read(sums.site(name).ledger).charges) for name in NAMES] == [2, 2, 2]
    assert conclude(sums.coordinator, again, sums.revealing(again)).sum.wrong == ()


def test_attack_a_member_whose_shares_make_no_secret_is_named_and_blocks_no_later_attempt(fresh: Summing):
    """Nobody can complain before the sum is asked for: each share is what it committed itself to."""
    with pytest.MonkeyPatch.context() as patch:
        offered = next_question(fresh.coordinator, NextRoundRequest(run="spring"))
        for name in NAMES:
            fresh.answer(name, offered)
        conclude(fresh.coordinator, offered, fresh.collect(offered))
        asked = next_question(fresh.coordinator, NextRoundRequest(run="spring"))
        for name in ("north", "south"):
            fresh.answer(name, asked)
        patch.setattr(dealing, "share", lambda secret, rest, place: shamir.share(secret, [*rest, 5], place))
        fresh.answer("east", asked)
    conclude(fresh.coordinator, asked, fresh.collect(asked))
    planned, reveal = revealing(fresh)
    for name in NAMES:
        fresh.answer(name, planned)
    said = fresh.collect(reveal)
    assert suffices(fresh.coordinator, planned, reveal, said), "nobody else is waited for"
    why = why_lost(fresh.coordinator, planned, reveal, said)
    with pytest.raises(QuorumError, match="the shares that east dealt make no secret"):
        give_up(fresh.coordinator, planned, reveal, said, why)
    assert fresh.ask().plan.attempt == 2


def test_a_coordinator_that_dies_goes_on_with_the_sum_that_was_asked_for(sums: Summing):
    """Whoever answers later is not in it, though the same plan is asked again."""
    planned = sums.ask()
    for name in ("north", "east"):
        sums.answer(name, planned)
    plan_reveal(sums.coordinator, planned, sums.collect(planned))
    assert sums.ask().digest == planned.digest
    for name in NAMES:
        sums.answer(name, planned)
    finding = conclude(sums.coordinator, planned, sums.revealing(planned))
    assert ([told.site for told in finding.answers], finding.missing) == (["east", "north"], ("south",))
    assert reveals(sums, "south") == []


def test_no_sum_is_read_of_fewer_than_were_agreed_and_nobody_is_asked_to_reveal(sums: Summing):
    planned = sums.ask()
    sums.answer("north", planned)
    with pytest.raises(QuorumError, match="1 of 3 sites gave an answer"):
        plan_reveal(sums.coordinator, planned, sums.collect(planned))
    assert not list((sums.root / "store" / "runs" / "spring").glob("reveals/*/*"))
    sums.answer("south", planned)
    finding = conclude(sums.coordinator, planned, sums.revealing(planned))
    assert charges(sums) == 1
    assert finding.missing == ("east",)


def test_who_missed_the_keys_says_so_and_has_a_part_in_the_next(tmp_path_factory: pytest.TempPathFactory,
                                                                 rows_are_judged_here: None):
    four = made.make(tmp_path_factory.mktemp("four"), names=(*NAMES, "west"), quorum=3, combine={
        "name": "secure_sum", "threshold": 3, "dropouts": 1, "colluders": 0})
    four.keys(sites=NAMES)
    planned = four.ask()
    assert [four.answer(name, planned) for name in four.names] == ["waits", "waits", "waits", "refusal"]
    assert conclude(four.coordinator, planned, four.revealing(planned)).refusals[0].reason is Reason.KEYS
    assert [told.site for told in four.concluded(LABELS, sites=four.names).answers] == sorted(four.names)


def test_attack_a_member_without_a_part_in_the_keys_sends_a_vector_all_the_same(tmp_path_factory: pytest.TempPathFactory,
                                                                                 rows_are_judged_here: None):
    """It is not in the sum, and stops nobody: neither this question, nor the next."""
    four = made.make(tmp_path_factory.mktemp("stranger"), names=(*NAMES, "west"), quorum=3, combine={
        "name": "secure_sum", "threshold": 3, "dropouts": 1, "colluders": 0})
    four.keys(sites=NAMES)
    planned = four.ask()
    for name in NAMES:
        four.answer(name, planned)
    honest, west = said(four, "north", planned), four.site("west").identity
    answer = unseal(honest.read_bytes(), Answer, four.site("north").identity.key, "north").model_copy(update={
        "site": "west", "sighting": sign_sighting(planned.plan, planned.digest, "west", west)})
    for place, body in ((said(four, "west", planned), seal(answer, west)),
                        (said(four, "west", planned).with_name("payload.bin"), honest.with_name("payload.bin").read_bytes())):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)
    collected = four.collect(planned)
    assert "west" in collected.admitted
    finding = conclude(four.coordinator, planned, four.revealing(planned, collected))
    assert ([told.site for told in finding.answers], finding.missing) == (sorted(NAMES), ())
    assert "no part" in finding.rejected[0].reason
    assert verify_run(four.coordinator.store, "spring", four.coordinator.identity.key)


def test_without_three_there_are_no_keys(fresh: Summing):
    with pytest.raises(QuorumError, match="2 of 3 sites gave an answer, the quorum is 3"):
        fresh.keys(sites=("north", "east"))


def test_an_epoch_ends_with_its_slots_and_with_the_federation_file(fresh: Summing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(setting_up, "SLOTS", 1)
    fresh.concluded(LABELS)
    assert next_question(fresh.coordinator, NextRoundRequest(run="spring")).plan.asks.epoch == 2
    fresh.keys()
    assert next_question(fresh.coordinator, NextRoundRequest(run="spring")) is None
    file = fresh.root / "coordinator" / "federation.toml"
    file.write_text(file.read_text().replace("deadline_s = 60", "deadline_s = 61"))
    assert next_question(fresh.coordinator, NextRoundRequest(run="spring")).plan.asks.epoch == 3


# -- killed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "function"), [
    (summing, "mask"), (outbox, "write"), (release, "publish"), (once, "create_once"), (summing, "reveal")])
def test_a_site_that_dies_ends_with_the_same_bytes_and_one_charge(sums: Summing, tmp_path: Path, module: object,
                                                                  function: str):
    planned = sums.ask()
    undisturbed = sums.copy(tmp_path / "undisturbed")
    for federation in (sums, undisturbed):
        for name in ("east", "south"):
            federation.answer(name, planned)
    undisturbed.answer("north", planned)
    if function == "reveal":
        sums.answer("north", planned)
        plan_reveal(sums.coordinator, planned, sums.collect(planned))
    sums.killed("north", planned, module, function)
    sums.answer("north", planned)
    for federation in (sums, undisturbed):
        plan_reveal(federation.coordinator, planned, federation.collect(planned))
        federation.answer("north", planned)
    assert files(sums) == files(undisturbed)
    assert len(files(sums)) == 4
    assert charges(sums) == 1


def files(federation: Summing) -> dict[str, bytes]:
    """All that north has sent of this run. Its documents name its ledger, in which times stand."""
    root = federation.root / "store" / "sites" / "north"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("payload.bin"))}
