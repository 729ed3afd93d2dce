"""A coordinator that runs the store and lies to real sites about a secure sum: they reveal nothing more.

What a coordinator could make of all reveals is in tests/fedround/secure_sums/; here is that sites keep the rules that this
rests on, whatever lies in the store.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from fedround import layout
from fedround.agreement import Together
from fedround.errors import ChainError, TrustError
from fedround.learning.spec import LocalTraining
from fedround.privacy import ledger
from fedround.records import Answer, Measure, Plan, Reveal, Told
from fedround.secure_sums.revealing import Reveals
from fedround.secure_sums.spec import SecureSum
from fedround.signing import digest, seal, unseal
from fedround.statistics import Histogram
from infra.epochs import known_epoch
from site_workers import outbox
from tasks.plan import Planned
from tasks.unmask import plan_reveal, suffices
from tests import summing
from tests.small_federation import NAMES, changed, rows
from tests.summing import Summing

NORTH, EAST, SOUTH = NAMES
OTHER = Histogram(column="x2", edges=(-1.0, 1.0), noise_std=4.0)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> tuple[Summing, Planned, Planned]:
    """Keys, a question that all have answered under masks, and what honestly comes next. To copy."""
    federation = summing.make(tmp_path_factory.mktemp("answered"))
    federation.keys()
    planned = federation.ask()
    for name in NAMES:
        federation.answer(name, planned)
    honest = federation.copy(tmp_path_factory.mktemp("honest"))
    return federation, planned, plan_reveal(honest.coordinator, planned, honest.collect(planned))


@pytest.fixture
def federation(answered: tuple[Summing, Planned, Planned], tmp_path: Path) -> Summing:
    return answered[0].copy(tmp_path)


@pytest.fixture
def planned(answered: tuple[Summing, Planned, Planned]) -> Planned:
    return answered[1]


@pytest.fixture
def reveal(federation: Summing, planned: Planned) -> Planned:
    """The honest next question, in the store."""
    return plan_reveal(federation.coordinator, planned, federation.collect(planned))


def put(federation: Summing, plan: Plan) -> Planned:
    """Whoever runs the store puts there what the coordinator has signed, over whatever lies there."""
    document = seal(plan, federation.coordinator.identity)
    place = federation.root / "store" / layout.plan(plan.run, plan.round, plan.attempt, plan.asks.kind)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.write_bytes(document)
    return Planned(plan, digest(document), None)


def over(reveal: Planned, survivors: tuple[Told, ...], dropped: tuple[str, ...], **changes: object) -> Plan:
    """The same question about another sum."""
    asks = reveal.plan.asks.model_copy(update={"survivors": survivors, "dropped": dropped})
    return reveal.plan.model_copy(update={"asks": asks, "cohort": tuple(sorted({one.site for one in survivors})), **changes})


def told(reveal: Planned) -> dict[str, Told]:
    assert isinstance(reveal.plan.asks, Reveal)
    return {one.site: one for one in reveal.plan.asks.survivors}


def relayed(federation: Summing) -> list[bytes]:
    """What members said, as the coordinator hands it on."""
    return [path.read_bytes() for path in (federation.root / "store").rglob("relayed/*")]


def said_by(federation: Summing, name: str) -> dict[str, str]:
    """All that a site has put into the store, by content."""
    below = federation.root / "store" / "sites" / name
    return {path.relative_to(below).as_posix(): digest(path.read_bytes()) for path in below.rglob("*") if path.is_file()}


def test_honestly_it_reveals(federation: Summing, planned: Planned, reveal: Planned):
    """What the attacks below are held against."""
    before = said_by(federation, NORTH)
    federation.answer(NORTH, planned)
    assert len(said_by(federation, NORTH).keys() - before.keys()) == 2          # the answer, and the shares beside it
    again = said_by(federation, NORTH)
    federation.answer(NORTH, planned)
    assert said_by(federation, NORTH) == again


@pytest.mark.parametrize("what", ["one is in the sum and dropped", "too few", "somebody is left out", "a stranger dropped",
                                  "one twice", "nobody's answer", "an answer to another question", "its own is another"])
def test_attack_survivors_that_were_not_agreed_on(what: str, federation: Summing, planned: Planned, reveal: Planned):
    by, everybody = told(reveal), tuple(told(reveal).values())
    keys, = [body for body in relayed(federation) if b'"asked":"keys"' in body and b'"site":"east"' in body]
    asked = {
        "one is in the sum and dropped": (everybody, (SOUTH,)),
        "too few": ((by[NORTH],), (EAST, SOUTH)),
        "somebody is left out": ((by[NORTH], by[EAST]), ()),
        "a stranger dropped": (everybody, ("west",)),
        "one twice": ((by[NORTH], by[NORTH], by[EAST]), (SOUTH,)),
        "nobody's answer": ((by[NORTH], by[EAST].model_copy(update={"answer": "0" * 64})), (SOUTH,)),
        "an answer to another question": ((by[NORTH], by[EAST].model_copy(update={"answer": digest(keys)})), (SOUTH,)),
        "its own is another": ((by[NORTH].model_copy(update={"answer": by[EAST].answer}), by[EAST]), (SOUTH,)),
    }[what]
    put(federation, over(reveal, *asked))
    before = said_by(federation, NORTH)
    with pytest.raises(TrustError):
        federation.answer(NORTH, planned)
    assert said_by(federation, NORTH) == before


def test_attack_a_sum_that_it_is_not_in(federation: Summing, planned: Planned, reveal: Planned):
    by = told(reveal)
    put(federation, over(reveal, (by[EAST], by[SOUTH]), (NORTH,)))
    before = said_by(federation, NORTH)
    federation.answer(NORTH, planned)
    assert said_by(federation, NORTH) == before


@pytest.mark.parametrize("where", ["in the same place", "in the next place"])
def test_attack_two_sums_of_one_slot(where: str, federation: Summing, planned: Planned, reveal: Planned):
    """First all; then, as if it had never been, all but one: the difference of the two sums would be that one's numbers."""
    federation.answer(NORTH, planned)
    before, by = said_by(federation, NORTH), told(reveal)
    second = over(reveal, (by[NORTH], by[EAST]), (SOUTH,))
    if where == "in the next place":
        put(federation, over(reveal, tuple(by.values()), (), asks=reveal.plan.asks.model_copy(update={"of": "0" * 64})))
        second = second.model_copy(update={"attempt": reveal.plan.attempt + 1})
    put(federation, second)
    with pytest.raises(TrustError):
        federation.answer(NORTH, planned)
    assert said_by(federation, NORTH) == before


def test_attack_two_sums_of_one_slot_to_a_folder_of_yesterday(federation: Summing, planned: Planned, reveal: Planned):
    """The backup was made when it had answered and not revealed; the store still shows what it revealed then."""
    shutil.copytree(federation.root / NORTH, federation.root / "backup")
    federation.answer(NORTH, planned)
    by = told(reveal)
    shutil.rmtree(federation.root / NORTH)
    shutil.copytree(federation.root / "backup", federation.root / NORTH)
    put(federation, over(reveal, (by[NORTH], by[EAST]), (SOUTH,), attempt=reveal.plan.attempt + 1))
    put(federation, over(reveal, tuple(by.values()), (), asks=reveal.plan.asks.model_copy(update={"of": "0" * 64})))
    before = said_by(federation, NORTH)
    with contextlib.suppress(TrustError):
        federation.answer(NORTH, planned)
    new = said_by(federation, NORTH).keys() - before.keys()
    assert not [key for key in new if "refus" not in key]


def test_attack_two_questions_for_one_slot(federation: Summing, planned: Planned):
    """Other numbers under the same masks: the difference would be open. Or: some members mask for one question and some for
    another, and each is shown those who dropped out of its own."""
    second = planned.plan.model_copy(update={
        "attempt": planned.plan.attempt + 1, "asks": planned.plan.asks.model_copy(update={"statistics": (OTHER,)})})
    before = said_by(federation, NORTH)
    with pytest.raises(TrustError, match="never uses them twice"):
        federation.answer(NORTH, put(federation, second))
    assert said_by(federation, NORTH) == before


def test_attack_keys_that_were_changed_on_the_way(federation: Summing, planned: Planned):
    """What one member offered or dealt is not what the others read: they answer nothing."""
    fresh = federation.ask(OTHER)
    place, = [path for path in (federation.root / "store").rglob("relayed/*") if path.read_bytes().startswith(
        b"fedround/1/secure-sums/dealt")][:1]
    body = bytearray(place.read_bytes())
    body[-1] ^= 1
    place.chmod(0o600)
    place.write_bytes(body)
    known_epoch.cache_clear()
    before = {name: said_by(federation, name) for name in NAMES}
    for name in NAMES:
        with pytest.raises(TrustError):
            federation.answer(name, fresh)
    assert {name: said_by(federation, name) for name in NAMES} == before


def test_what_is_masked_is_in_no_answer(federation: Summing, planned: Planned):
    """An answer under masks says no numbers besides."""
    plan = planned.plan
    for name in NAMES:
        document = federation.root / "store" / layout.answer(name, plan.run, plan.round, plan.attempt, plan.asks.kind)
        said = unseal(document.read_bytes(), Answer, federation.site(name).identity.key, name)
        assert said.masked is not None
        assert (said.releases, said.update, said.material) == ((), None, None)


# -- other terms than the federation file's, and other numbers for the same plan ---------------------------------------

TERMS: dict[str, dict[str, object]] = {
    "so many may be missing that one member is a sum": {"combine": SecureSum(threshold=2, dropouts=2, colluders=0)},
    "noise as if a hundred shared it": {"together": Together(members=100, rows=650)},
    "room for fewer rows than there are": {"together": Together(members=3, rows=3)},
    "no secure sum at all": {"combine": None, "together": None, "training": LocalTraining()},
}


@pytest.mark.parametrize("what", TERMS)
def test_attack_a_question_under_other_terms_than_the_federation_file_has(federation: Summing, planned: Planned, what: str):
    """What a sum hides, and how much noise is in it, follows from these: chosen plan by plan, they would open one member."""
    plan = planned.plan.model_copy(update={"attempt": 2})
    if what == "no secure sum at all":
        plan = plan.model_copy(update={"asks": plan.asks.model_copy(update={"slot": None})})
    asked, before = put(federation, changed(plan, **TERMS[what])), said_by(federation, NORTH)
    charged = len(ledger.read(federation.site(NORTH).ledger).charges)
    with pytest.raises(TrustError, match="else than the federation file"):
        federation.answer(NORTH, asked)
    assert said_by(federation, NORTH) == before
    assert len(ledger.read(federation.site(NORTH).ledger).charges) == charged


def test_attack_shares_are_asked_for_under_other_terms_than_the_answers(federation: Summing, planned: Planned,
                                                                        reveal: Planned):
    put(federation, changed(reveal.plan, **TERMS["so many may be missing that one member is a sum"]))
    before = said_by(federation, NORTH)
    with pytest.raises(TrustError, match="says something else about 'agreed' than the plan whose answers are added up"):
        federation.answer(NORTH, planned)
    assert said_by(federation, NORTH) == before


def test_attack_the_slot_of_a_round_is_asked_for_again_by_a_count(federation: Summing):
    """Two kinds of question, each in a place of its own: the site has answered neither before."""
    trains, counts = federation.plan(), federation.ask(OTHER).plan
    federation.answer(NORTH, trains)
    counts = counts.model_copy(update={"asks": Measure(statistics=(OTHER,), slot=trains.plan.asks.slot)})
    before = said_by(federation, NORTH)
    with pytest.raises(TrustError, match="never uses them twice"):
        federation.answer(NORTH, put(federation, counts))
    assert said_by(federation, NORTH) == before


def test_attack_keys_of_another_run(federation: Summing, planned: Planned):
    """Each run has its own: the first run's, and all that they rest on, lie where the second run's would."""
    federation.keys("summer")
    other, runs = federation.ask(run="summer").plan, federation.root / "store" / "runs"
    for path in [path for part in ("keys", "shares", "relayed") for path in (runs / "spring" / part).rglob("*")]:
        place = runs / "summer" / path.relative_to(runs / "spring")
        if path.is_file():
            place.unlink(missing_ok=True)
            shutil.copy(path, place)
    other = other.model_copy(update={"asks": other.asks.model_copy(update={"slot": planned.plan.asks.slot})})
    before = said_by(federation, NORTH)
    with pytest.raises((TrustError, ChainError)):
        federation.answer(NORTH, put(federation, other))
    assert said_by(federation, NORTH) == before


def test_attack_a_slot_masks_no_other_numbers_though_the_plan_is_the_same(federation: Summing, planned: Planned):
    """The outbox was lost, rows have changed, and the store hides the first answer: the difference of both vectors would be
    open, under the noise of two shares. The same numbers go through, and make the same bytes.
    """
    before = said_by(federation, NORTH)
    mine = outbox.find(federation.site(NORTH).safe, planned.plan)
    assert mine is not None
    assert mine.payload_key is not None
    shutil.rmtree(mine.folder)
    for key in (mine.answer_key, mine.payload_key):
        (federation.root / "store" / key).unlink()
    hidden, file = said_by(federation, NORTH), federation.root / "data" / NORTH / "train.parquet"
    as_they_were = file.read_bytes()
    rows(300, 77).to_parquet(file)
    with pytest.raises(TrustError, match="never uses them twice"):
        federation.answer(NORTH, planned)
    assert said_by(federation, NORTH) == hidden
    file.write_bytes(as_they_were)
    federation.answer(NORTH, planned)
    after, payload = said_by(federation, NORTH), mine.payload_key.removeprefix(f"sites/{NORTH}/")
    assert after[payload] == before[payload]


def test_attack_a_reveal_that_was_cut_is_rejected_and_the_sum_is_read_without_it(federation: Summing, planned: Planned,
                                                                                 reveal: Planned):
    whole = Reveals.to_bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reveals, "to_bytes", lambda self: whole(self)[:-32])
        federation.answer(EAST, planned)
    for name in (NORTH, SOUTH):
        federation.answer(name, planned)
    said = federation.collect(reveal)
    assert list(said.rejected) == [EAST]
    assert suffices(federation.coordinator, planned, reveal, said)
