"""A restored folder learns again what it has spent, from witnesses that may hide or forge: it never counts too little."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround import layout
from fedround.errors import AuditError, Cancelled, SetupError
from fedround.federation_log import handed_over
from fedround.privacy import ledger
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianCounts, GaussianUpdate, NoMechanism
from fedround.privacy.units import dearest
from fedround.records import Answer
from fedround.signing import Identity, seal, unseal
from site_workers import audit, recover, release, rollback
from site_workers import round as site_round
from site_workers.keys import begin_rotation
from tasks.membership import rotate_key
from tasks.verify import read_log, verify_run
from tests import small_federation
from tests.attacks.test_rollback import back_up, restore
from tests.small_federation import SmallFederation

LONG = {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 6}


@pytest.fixture
def federation(tmp_path: Path, rows_are_judged_here: None) -> SmallFederation:
    """With budget for many rounds."""
    return small_federation.make(tmp_path, max_epsilon=80.0, privacy=LONG)


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> tuple[SmallFederation, float]:
    """Three rounds that north has forgotten, and what it had truly spent; made once."""
    federation = small_federation.make(tmp_path_factory.mktemp("yesterday"), max_epsilon=80.0, privacy=LONG)
    return federation, three_rounds_later(federation)


@pytest.fixture
def old(yesterday: tuple[SmallFederation, float], tmp_path: Path) -> SmallFederation:
    """A copy of that."""
    return yesterday[0].copy(tmp_path / "old")


@pytest.fixture
def truth(yesterday: tuple[SmallFederation, float]) -> float:
    return yesterday[1]


def charges(federation: SmallFederation) -> tuple[ledger.Charge, ...]:
    return ledger.read(federation.site("north").ledger).charges


def spent(federation: SmallFederation, run: str | None = None) -> float:
    return ledger.spent(ledger.read(federation.site("north").ledger), 1e-5, run)


def recovered(federation: SmallFederation) -> recover.Recovery:
    site = federation.site("north")
    found = recover.forgotten(site)
    recover.restore(site, found)
    return found


def goes_on(federation: SmallFederation) -> None:
    """The folder is whole again: its books agree, it may serve, and its answers count."""
    audit.verify(federation.site("north").safe)
    rollback.require_newest(federation.site("north"))
    assert release.resend(federation.site("north")) == 0, "what was put back has left already"
    assert "north" in {update.site for update in federation.round().updates}
    audit.verify(federation.site("north").safe)


def three_rounds_later(federation: SmallFederation) -> float:
    """The folder of yesterday; returns what it had truly spent."""
    federation.round()
    backup = back_up(federation)
    federation.round()
    federation.round("autumn")
    federation.round()
    truth = spent(federation)
    restore(federation, backup)
    return truth


def hide(federation: SmallFederation, run: str, number: int, what: str = "sites/north") -> None:
    shutil.rmtree(federation.root / "store" / what / run / "rounds" / f"{number:05d}")


def test_what_the_store_shows_is_charged_exactly_and_the_site_goes_on(old: SmallFederation, truth: float):
    found = recovered(old)
    assert (len(found.answers), len(found.proven), found.unknown) == (3, 3, ())
    assert spent(old) == truth
    assert spent(old, "autumn") > 0
    goes_on(old)
    coordinator = old.coordinator
    assert len(list(verify_run(coordinator.store, "spring", coordinator.identity.key))) == 5


def test_a_campaign_is_set_aside_again_with_all_that_it_counts(tmp_path: Path, rows_are_judged_here: None):
    """Also what its promotions and its drift will ask for."""
    federation = small_federation.make(
        tmp_path, max_epsilon=80.0, privacy=LONG,
        groups={"threshold": 0.5, "watched": [{"of": {"column": "x1", "edges": [0.0]}, "noise_std": 30.0}]},
        drift={"columns": [{"column": "x2", "edges": [0.0]}], "noise_std": 20.0})
    backup = back_up(federation)
    federation.round()
    truth = charges(federation)[-1]
    assert len(truth.campaign) > 2
    restore(federation, backup)
    recovered(federation)
    assert charges(federation)[-1].campaign == truth.campaign


def test_done_twice_it_does_nothing_the_second_time(old: SmallFederation):
    recovered(old)
    before = (old.root / "north" / "audit.jsonl").read_bytes(), charges(old)
    again = recovered(old)
    assert (again.answers, again.charges) == ((), ())
    assert ((old.root / "north" / "audit.jsonl").read_bytes(), charges(old)) == before


def test_a_folder_that_has_forgotten_nothing_recovers_nothing(federation: SmallFederation):
    federation.round()
    assert recover.forgotten(federation.site("north")) == recover.Recovery((), (), ())


@pytest.mark.parametrize("where", ["record", "charge", "put_back"])
def test_killed_anywhere_it_is_begun_again_and_charges_nothing_twice(old: SmallFederation, truth: float, monkeypatch,
                                                                     where: str):
    module = {"record": audit, "charge": ledger, "put_back": recover.outbox}[where]
    real = getattr(module, where)

    def die_after(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, where, die_after)
        with pytest.raises(KeyboardInterrupt):
            recovered(old)
    recovered(old)
    assert spent(old) == truth
    goes_on(old)


# -- witnesses that hide and forge -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "number"), [("spring", 2), ("autumn", 1), ("spring", 3)])
def test_an_answer_that_the_store_hides_is_charged_as_its_commit_says(old: SmallFederation, truth: float, run: str,
                                                                      number: int):
    hide(old, run, number)
    found = recovered(old)
    assert [(charge.run, charge.round) for charge in found.unknown] == [(run, number)]
    assert spent(old) >= truth
    assert len(charges(old)) == 4
    goes_on(old)


def test_all_answers_are_hidden_and_the_commits_tell(old: SmallFederation, truth: float):
    shutil.rmtree(old.root / "store" / "sites" / "north")
    found = recovered(old)
    assert (found.answers, found.proven, len(found.unknown)) == ((), (), 3)
    assert spent(old) >= truth


def test_an_answer_that_was_altered_or_forged_is_as_good_as_hidden(old: SmallFederation, truth: float):
    """A cheaper mechanism in our name, under another key, or under our signature of something else."""
    path = old.root / "store" / layout.answer("north", "spring", 3, 1, "train")
    honest = unseal(path.read_bytes(), Answer, old.site("north").identity.key, "north")
    quiet = honest.update.mechanism.model_copy(update={"noise_multiplier": 900.0})
    cheap = honest.model_copy(update={"update": honest.update.model_copy(update={"mechanism": quiet})})
    altered = json.loads(path.read_bytes())
    altered["body"]["update"]["mechanism"]["noise_multiplier"] = 900.0
    for document in (seal(cheap, Identity.generate()), json.dumps(altered).encode()):
        path.chmod(0o600)
        path.write_bytes(document)
        found = recover.forgotten(old.site("north"))
        assert [(charge.run, charge.round) for charge in found.unknown] == [("spring", 3)]
    recovered(old)
    assert spent(old) >= truth


def test_a_charge_that_nobody_shows_is_noticed_by_the_ledgers_length_and_counts_in_every_run(federation: SmallFederation):
    """An evaluation, which no commit holds; its answer is hidden, and the next update says how long the ledger was."""
    federation.round()
    backup = back_up(federation)
    site = federation.site("north")
    evaluation = charges(federation)[0].model_copy(update={
        "run": "hidden", "plan": "a" * 64, "purpose": "evaluate", "mechanisms": charges(federation)[0].mechanisms[1:]})
    ledger.charge(ledger.read(site.ledger), evaluation, 900.0)
    federation.round()
    truth, in_spring = spent(federation), spent(federation, "spring")
    restore(federation, backup)
    found = recovered(federation)
    assert [(charge.run, charge.plan) for charge in found.unknown] == [(None, None)]
    assert spent(federation) >= truth
    assert spent(federation, "spring") > in_spring
    planned = federation.plan()
    assert federation.answer("north", planned) == "refusal", "nobody can vouch for what the plan promises of this run"
    assert federation.answer("north", federation.plan("summer")) == "update"


def test_a_hidden_plan_is_no_cheaper_than_the_dearest_that_is_shown(federation: SmallFederation):
    """The lost round asked for less noise than any other."""
    federation.round()
    backup = back_up(federation)
    path = federation.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace("epsilon = 8.0", "epsilon = 16.0"))
    federation.round("autumn")
    truth = spent(federation)
    restore(federation, backup)
    hide(federation, "autumn", 1)
    recovered(federation)
    assert spent(federation) >= truth


def test_where_the_plan_is_hidden_too_it_says_what_cannot_be_had_and_writes_nothing(old: SmallFederation):
    hide(old, "autumn", 1)
    (old.root / "store" / layout.plan("autumn", 1, 1, "train")).unlink()
    with pytest.raises(SetupError, match=r"round 1 of run 'autumn' .*neither the answer nor the plan.*max_epsilon = 0"):
        recovered(old)
    assert len(charges(old)) == 1


def test_a_plan_that_the_policy_would_not_let_in_prices_nothing(old: SmallFederation):
    """Otherwise a coordinator who plans without noise would end every recovered budget."""
    hide(old, "autumn", 1)
    path = old.root / "coordinator" / "federation.toml"
    text = path.read_text()
    path.write_text(text[:text.index("[privacy]")] + '[privacy]\nunit = "none"\n\n' + text[text.index("[evaluation]"):])
    old.plan("winter")
    path.write_text(text)
    recovered(old)
    assert spent(old) < 80


# -- parts of a folder -------------------------------------------------------------------------------------------------


def test_a_ledger_that_was_restored_alone_is_rebuilt_from_the_folder_itself(federation: SmallFederation):
    federation.round()
    backup = back_up(federation)
    federation.round()
    truth = spent(federation)
    restore(federation, backup, only="ledger.jsonl")
    shutil.rmtree(federation.root / "store" / "sites" / "north")
    found = recovered(federation)
    assert (len(found.proven), found.unknown) == (1, ())
    assert spent(federation) == truth
    audit.verify(federation.site("north").safe)


def test_a_charge_that_only_the_audit_log_remembers_is_known_exactly(federation: SmallFederation):
    """The round was cancelled after its charge: there is no answer anywhere."""
    federation.round()
    backup, planned = back_up(federation), federation.plan()
    with pytest.raises(Cancelled):
        site_round.answer(federation.site("north"), site_round.SiteRequest(
            run="spring", round=planned.plan.round, attempt=1, purpose="train"), lambda: True)
    truth = spent(federation)
    restore(federation, backup, only="ledger.jsonl")
    assert len(recovered(federation).proven) == 1
    assert spent(federation) == truth


def test_what_was_recovered_cannot_be_cut_off_again(old: SmallFederation):
    backup = (old.root / "north" / "ledger.jsonl").read_bytes()
    recovered(old)
    (old.root / "north" / "ledger.jsonl").write_bytes(backup)
    with pytest.raises(AuditError, match="no longer holds what was recovered"):
        audit.verify(old.site("north").safe)


def test_refusals_come_back_too_so_that_the_next_one_has_a_place(federation: SmallFederation):
    federation.round()
    backup = back_up(federation)
    frame = federation.root / "data" / "north" / "train.parquet"
    good = frame.read_bytes()
    small_federation.rows(10, 1).to_parquet(frame)
    planned = federation.plan()
    assert federation.answer("north", planned) == "refusal"
    restore(federation, backup)
    assert len(recovered(federation).answers) == 1
    assert federation.answer("north", planned) == "refusal"
    frame.write_bytes(good)
    assert federation.answer("north", planned) == "update"


def test_an_answer_that_was_copied_to_another_place_is_no_forgotten_one(federation: SmallFederation):
    """Otherwise whoever owns the bucket could keep a site from answering, with its own words."""
    federation.round()
    store = federation.root / "store"
    answer = store / layout.answer("north", "spring", 1, 1, "train")
    for key in (layout.answer("north", "spring", 7, 1, "train"), layout.answer("north", "autumn", 1, 1, "train"),
                layout.answer("north", "spring", 1, 1, "evaluate")):
        (store / key).parent.mkdir(parents=True)
        shutil.copyfile(answer, store / key)
    assert recover.forgotten(federation.site("north")) == recover.Recovery((), (), ())
    assert federation.answer("north", federation.plan()) == "update"


def test_a_rotation_hides_no_rollback(federation: SmallFederation):
    """The backup is of after `site rotate`; what was answered with the old key, before the log took the new one, is lost."""
    federation.round()
    new = begin_rotation(federation.site("north"), None)
    backup = back_up(federation)
    federation.round()
    truth = spent(federation)
    restore(federation, backup)
    assert rotate_key(federation.root / "coordinator", "north") == new
    planned = federation.plan()
    assert federation.answer("north", planned) == "refusal"
    log = read_log(federation.coordinator.store, federation.coordinator.identity.key)
    assert len(handed_over(log, new)) == 1
    assert len(recovered(federation).proven) == 1
    assert spent(federation) == truth
    assert federation.answer("north", planned) == "update"


def test_a_folder_from_before_its_next_key_was_taken_has_forgotten_what_that_key_signed(federation: SmallFederation):
    """The log has the new key already, and the folder of yesterday has both: the site answered with the new one since."""
    federation.round()
    begin_rotation(federation.site("north"), None)
    rotate_key(federation.root / "coordinator", "north")
    federation.plan()
    backup = back_up(federation)
    federation.round()
    truth = spent(federation)
    restore(federation, backup)
    with pytest.raises(SetupError, match="older than what the site has sent"):
        rollback.require_newest(federation.site("north"))
    assert len(recovered(federation).answers) == 1
    assert spent(federation) == truth
    goes_on(federation)


# -- the dearest -------------------------------------------------------------------------------------------------------

KINDS = (
    DpSgd(noise_multiplier=2.0, clip_norm=1.0, sampling_rate=0.1, steps=20),
    DpSgd(noise_multiplier=1.1, clip_norm=3.0, sampling_rate=0.02, steps=5),
    DpSgd(noise_multiplier=1.5, count_noise_std=3.0, clip_norm=1.0, sampling_rate=0.3, steps=4),
    DpFtrl(noise_multiplier=3.0, clip_norm=1.0, batch_size=9, steps=7), GaussianUpdate(noise_multiplier=4.0, clip_norm=1.0))


@pytest.mark.parametrize("among", [KINDS, KINDS[:1], KINDS[:2], KINDS[4:], KINDS[3:], KINDS[::2]], ids=len)
@pytest.mark.parametrize("company", [(), KINDS[:1] * 3, (GaussianCounts(noise_std=2.0),)], ids=len)
def test_nothing_among_them_costs_more_than_the_dearest_in_any_company(among: tuple, company: tuple):
    counts = (GaussianCounts(noise_std=5.0), GaussianCounts(noise_std=7.0))
    price = dearest((one, count) for one in among for count in counts)
    for unit in ("record", "site"):
        for one in among:
            for delta_dp in (1e-5, 1e-3):
                release = [one] if unit == "site" else [one, counts[0]]
                theirs = price[:1] if unit == "site" else price
                assert epsilon([*company, *theirs, *theirs], delta_dp, unit) >= epsilon(
                    [*company, *release, *release], delta_dp, unit)


def test_where_all_are_alike_the_dearest_is_their_very_price():
    one = KINDS[0]
    assert dearest([(one, GaussianCounts(noise_std=5.0)), (one,)]) == (one, GaussianCounts(noise_std=5.0))
    assert dearest([(KINDS[4],)]) == (KINDS[4],)
    assert dearest(()) == dearest([()]) == ()
    assert dearest([(one,), (NoMechanism(),)]) == (NoMechanism(),)


@given(st.lists(st.lists(st.floats(0.5, 500.0), min_size=1, max_size=6), min_size=1, max_size=4))
def test_a_charge_of_many_counts_costs_no_more_than_the_dearest(charges: list[list[float]]):
    """A measurement releases several tables at once; together they cost more than its loudest one."""
    known = [tuple(GaussianCounts(noise_std=std) for std in stds) for stds in charges]
    price = epsilon(dearest(known), 1e-5)
    assert all(epsilon(charge, 1e-5) <= price for charge in known)
