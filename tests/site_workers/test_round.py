"""What a site answers: refusals that say why and no more, charges before work, and the same bytes after any interruption."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from fedround import layout
from fedround.errors import Cancelled, ContractError, PrivacyError, SetupError, StoreUnavailableError
from fedround.privacy import ledger
from fedround.privacy.spec import DpSgd
from fedround.records import Evaluate
from fedround.rounds.offer import offer
from fedround.rounds.site import work
from fedround.statistics import Release
from infra.settings import load_toml, save_toml
from site_workers import inputs, outbox, preflight, release
from site_workers import round as site_round
from site_workers.draws import SiteDraws
from site_workers.outcome import STOPPED, Ending, Outcome
from site_workers.policy import SitePolicy
from site_workers.rows import Rows, read_site_rows
from tasks import report as reporting
from tasks.plan import Planned
from tasks.reporting import RoundRecord
from tests.small_federation import SmallFederation, make, rows, store_is_down


def answer_of(federation: SmallFederation, site: str, number: int = 1) -> dict:
    """The site's answer, or its last refusal."""
    where = site, "spring", number, 1, "train"
    path = federation.root / "store" / layout.answer(*where)
    if not path.exists():
        refusals = federation.root / "store" / layout.refusals(*where)
        path = sorted(refusals.parent.glob("refusal-*"))[-1]
    return json.loads(path.read_bytes())["body"]


def delta_of(federation: SmallFederation, site: str) -> bytes:
    return (federation.root / "store" / layout.delta(site, "spring", 1, 1)).read_bytes()


def test_an_update_says_what_was_done_and_what_it_cost(federation: SmallFederation):
    planned = federation.plan()
    assert federation.answer("north", planned) == "update"
    body = answer_of(federation, "north")
    book = ledger.read(federation.site("north").ledger)
    said = [body["update"]["mechanism"], *(release["mechanism"] for release in body["releases"])]
    assert said == [mechanism.model_dump(mode="json") for mechanism in book.charges[0].mechanisms]
    assert isinstance(book.charges[0].mechanisms[0], DpSgd)
    assert body["ledger_head"] == book.head
    assert 0 < body["epsilon"] < 8
    assert body["epsilon"] == ledger.spent(book, 1e-5)


def test_a_whole_campaign_keeps_its_promise_and_one_round_more_is_refused(federation: SmallFederation):
    """Calibrated for three rounds: the fourth would exceed the budget, so the ledger stops it, not the coordinator."""
    commits = [federation.round() for _ in range(3)]
    assert all(len(commit.updates) == 3 for commit in commits)
    planned = federation.plan()
    assert {federation.answer(name, planned) for name in ("north", "east", "south")} == {"refusal"}
    assert answer_of(federation, "north", 4)["reason"] == "budget"
    site = federation.site("north")
    assert 7 < ledger.spent(ledger.read(site.ledger), 1e-5) <= site.policy.max_epsilon


def test_attack_a_row_that_breaks_the_contract_is_no_refusal_and_counts_for_nothing(federation: SmallFederation, caplog):
    """A refusal told that it is there, and was charged nothing; now every answer is as if nothing stood in its place."""
    planned, said = federation.plan(), []
    for value in (77.125, -1000.0, 1e30):
        frame = rows(300, 1)
        frame.loc[3, "x1"] = value
        frame.to_parquet(federation.root / "data" / "north" / "train.parquet")
        found = read_site_rows(federation.site("north"))
        said.append((found.train.counts_N, found.train.inputs["x"][found.train.counts_N], found.train.targets["y"]))
    for counts_N, features_MF, _ in said:
        assert np.flatnonzero(~counts_N).tolist() == [3]
        assert np.array_equal(features_MF, said[0][1])
    assert federation.answer("north", planned) == "update"
    assert "1 row counts for nothing; failed checks: x1_in_range" in caplog.text
    assert "e+30" not in caplog.text


def test_files_with_other_columns_are_a_refusal_that_names_checks_and_no_values(federation: SmallFederation):
    rows(300, 1).rename(columns={"x1": "secret"}).to_parquet(federation.root / "data" / "north" / "train.parquet")
    planned = federation.plan()
    assert federation.answer("north", planned) == "refusal"
    body = answer_of(federation, "north")
    assert (body["reason"], body["checks"]) == ("contract", ["x1_in_range"])
    assert "secret" not in json.dumps(body["detail"])
    assert ledger.read(federation.site("north").ledger).charges == ()


def recorded(federation: SmallFederation, planned: Planned) -> RoundRecord:
    collected, committed = federation.collect(planned), federation.commit(planned)
    return reporting._record(federation.coordinator, planned, collected, committed, None, 1.0)


def test_a_warning_lets_the_round_go_on_and_tells_of_columns_only(rows_are_judged_here: None, tmp_path, caplog):
    """What rows fail is for the operator. That a column is missing may be told, where the policy lets checks out."""
    federation = make(tmp_path, contract={"name": "small", "checks": [
        {"id": "x1_small", "type": "expect_column_values_to_be_between", "severity": "warning",
         "kwargs": {"column": "x1", "min_value": -0.1, "max_value": 0.1}},
        {"id": "x9_there", "type": "expect_column_to_exist", "severity": "warning", "kwargs": {"column": "x9"}}]})
    policy = federation.root / "east" / "policy.toml"
    save_toml(load_toml(SitePolicy, policy).model_copy(update={"statistics": ("scores",)}), policy, "tells no checks")
    planned = federation.plan()
    assert read_site_rows(federation.site("north")).train.counts_N.all()
    assert [federation.answer(name, planned) for name in federation.names] == ["update"] * 3
    assert [answer_of(federation, name)["checks"] for name in federation.names] == [["x9_there"], [], ["x9_there"]]
    assert "failed checks that only warn: x9_there, x1_small" in caplog.text
    said = {finding.check: finding for finding in preflight.preflight(federation.root / "north")}["contract"]
    assert (said.ok, "train.parquet fails x1_small" in said.detail, "only a warning: " in said.detail) == (True, True, True)
    record = recorded(federation, planned)
    assert record.contract == "'small', 2 checks, of which 2 only warn: x1_small, x9_there"
    assert [row.checks for row in record.sites] == [("x9_there",), (), ("x9_there",)]


def test_attack_a_member_cannot_have_the_report_show_checks_that_nobody_agreed_on(federation: SmallFederation):
    planned = federation.plan()
    for name in federation.names:
        federation.answer(name, planned)
    federation.lie("north", planned, lambda delta_D: delta_D, checks=("x1_in_range", "the-others-lie"))
    record = recorded(federation, planned)
    assert [(row.outcome, row.checks) for row in record.sites] == [("updated", ())] * 3


def test_attack_what_refusals_can_tell_ends(federation: SmallFederation):
    """Each is one bit of what a recipe does with rows: a coordinator who asks again and again gets so many, and no more."""
    policy = federation.root / "north" / "policy.toml"
    policy.write_text(policy.read_text().replace("max_refusals = 50", "max_refusals = 2"))
    path = federation.root / "data" / "north" / "train.parquet"
    body, planned, reasons = path.read_bytes(), federation.plan(), []
    path.unlink()
    for _ in range(3):
        assert federation.answer("north", planned) == "refusal"
        reasons.append(answer_of(federation, "north")["reason"])
    path.write_bytes(body)
    assert federation.answer("north", planned) == "refusal"
    assert [*reasons, answer_of(federation, "north")["reason"]] == ["data", "data", "policy", "policy"]
    policy.write_text(policy.read_text().replace("max_refusals = 2", "max_refusals = 3"))
    assert federation.answer("north", planned) == "update"


def test_a_missing_column_is_a_refusal(federation: SmallFederation):
    rows(300, 1).drop(columns="x2").to_parquet(federation.root / "data" / "north" / "train.parquet")
    assert federation.answer("north", federation.plan()) == "refusal"
    assert answer_of(federation, "north")["reason"] == "data"


@pytest.mark.parametrize("frame", [rows(0, 1), rows(20, 1)], ids=["empty", "too few"])
def test_an_empty_or_tiny_site_refuses(federation: SmallFederation, frame: pd.DataFrame):
    frame.to_parquet(federation.root / "data" / "north" / "train.parquet")
    assert federation.answer("north", federation.plan()) == "refusal"
    assert answer_of(federation, "north")["reason"] == "data"


def test_a_file_that_is_gone_is_a_refusal(federation: SmallFederation):
    (federation.root / "data" / "north" / "train.parquet").unlink()
    assert federation.answer("north", federation.plan()) == "refusal"


def test_answering_twice_sends_the_same_bytes_and_charges_once(federation: SmallFederation):
    planned = federation.plan()
    federation.answer("north", planned)
    first = delta_of(federation, "north")
    assert "same bytes" in federation.answer("north", planned)
    assert delta_of(federation, "north") == first
    assert len(ledger.read(federation.site("north").ledger).charges) == 1


def test_killed_before_the_outbox_it_draws_the_same_noise_again(federation: SmallFederation, monkeypatch):
    """Charged, trained, and dead before anything was kept: the next process ends with the bytes the first would have."""
    planned = federation.plan()
    trained = []
    real = site_round.work

    def die_after_the_work(*arguments):
        trained.append(real(*arguments).payload)
        raise KeyboardInterrupt

    monkeypatch.setattr(site_round, "work", die_after_the_work)
    with pytest.raises(KeyboardInterrupt):
        federation.answer("north", planned)
    assert [one.plan for one in ledger.read(federation.site("north").ledger).charges] == [planned.digest], "work is paid for"
    monkeypatch.setattr(site_round, "work", real)
    federation.answer("north", planned)
    assert delta_of(federation, "north") == trained[0]
    assert len(ledger.read(federation.site("north").ledger).charges) == 1


@pytest.mark.parametrize("quieter", ["the update", "the scores"])
def test_attack_what_is_noised_otherwise_than_the_ledger_was_charged_for_stays_inside(
        federation: SmallFederation, monkeypatch, quieter):
    """Nothing is kept either, so nothing of it is sent later; the honest answer needs no second charge."""
    planned, real = federation.plan(), site_round._answer

    def halved(one):
        mechanism = one.mechanism
        name = "noise_multiplier" if quieter == "the update" else "noise_std"
        return one.model_copy(update={"mechanism": mechanism.model_copy(update={name: getattr(mechanism, name) / 2})})

    def noised_otherwise(*arguments):
        said = real(*arguments)
        if quieter == "the update":
            return said.model_copy(update={"update": halved(said.update)})
        return said.model_copy(update={"releases": tuple(halved(release) for release in said.releases)})

    monkeypatch.setattr(site_round, "_answer", noised_otherwise)
    with pytest.raises(PrivacyError, match="noised otherwise than the ledger was charged for; nothing leaves"):
        federation.answer("north", planned)
    site = federation.site("north")
    assert outbox.find(site.safe, planned.plan) is None
    assert not [key for key in site.store.list("") if "/north/" in key]
    monkeypatch.setattr(site_round, "_answer", real)
    assert federation.answer("north", planned) == "update"
    assert len(ledger.read(site.ledger).charges) == 1


def test_a_store_that_is_down_loses_nothing(federation: SmallFederation):
    """The answer waits in the outbox and leaves when the store is back."""
    planned = federation.plan()
    with store_is_down(), pytest.raises(StoreUnavailableError):
        federation.answer("north", planned)
    assert release.resend(federation.site("north")) == 1
    assert answer_of(federation, "north")["update"] is not None
    assert release.resend(federation.site("north")) == 0


def test_attack_what_somebody_lays_in_the_place_of_one_answer_keeps_no_other_inside(federation: SmallFederation):
    """Whoever owns the bucket can, while the site's answers wait in its outbox."""
    for run in ("spring", "autumn"):
        planned = federation.plan(run)
        with store_is_down(), pytest.raises(StoreUnavailableError):
            federation.answer("north", planned)
    waiting = list(outbox.unsent(federation.site("north").safe))
    assert len(waiting) == 2
    federation.coordinator.store.put_once(waiting[0].answer_key, b"something else")
    assert release.resend(federation.site("north")) == 1
    assert [entry.answer_key for entry in outbox.unsent(federation.site("north").safe)] == [waiting[0].answer_key]


def test_a_refusal_that_could_not_leave_leaves_before_the_next_one(federation: SmallFederation):
    """Who reads refusals stops at the first that is missing: otherwise the site would count as silent."""
    policy = federation.root / "north" / "policy.toml"
    policy.write_text(policy.read_text().replace("min_rows = 50", "min_rows = 10000"))
    planned = federation.plan()
    with store_is_down(), pytest.raises(StoreUnavailableError):
        federation.answer("north", planned)
    assert federation.answer("north", planned) == "refusal"
    assert federation.collect(planned).refused["north"].refusal.reason == "data"


def test_other_rows_draw_other_noise_under_the_same_plan(federation: SmallFederation):
    """Otherwise the difference of two releases would be free of noise."""
    federation.plan()
    site = federation.site("north")
    order = site_round.authorise(site, "spring", 1, 1, "train")
    before = read_site_rows(site)
    frame = pd.read_parquet(site.row_files[0])
    frame.loc[0, "x2"] += 1e-9
    frame.to_parquet(site.row_files[0])
    after = read_site_rows(federation.site("north"))
    assert np.array_equal(before.train.targets["y"], after.train.targets["y"])
    asks = Evaluate(statistics=order.plan.asks.statistics)

    def told(rows: Rows) -> Release:
        offered = offer(asks, order.plan.agreed, len(rows.train), lambda _: True)
        return work(asks, order.plan.agreed, 1, b"", inputs.read(site, order, rows, lambda: False), offered,
                    SiteDraws(site.noise_secret, order.digest, rows.digest), None).releases[0]

    first, second = told(before), told(after)
    assert np.abs(first.table - second.table).min() > 0
    assert told(before) == first


def test_a_cancelled_round_releases_nothing(federation: SmallFederation):
    planned = federation.plan()
    with pytest.raises(Cancelled):
        site_round.answer(federation.site("north"), site_round.SiteRequest(
            run="spring", round=1, attempt=1, purpose="train"), lambda: True)
    assert not (federation.root / "store" / layout.answer("north", "spring", 1, 1, "train")).exists()
    assert federation.answer("north", planned) == "update"


def test_what_a_site_says_of_its_work_is_an_outcome(federation: SmallFederation):
    """Stopped by request is no answer, and an answer is not called stopped, whatever it says."""
    federation.plan()
    job, asked = site_round.job(federation.site("north")), {"run": "spring", "round": 1, "attempt": 1, "purpose": "train"}
    assert job(asked, lambda: True) == STOPPED
    assert job(asked, lambda: False) == Outcome(Ending.ANSWERED, "update")


def test_without_noise_the_ledger_says_infinite(tmp_path):
    from tests import small_federation

    federation = small_federation.make(tmp_path, units=("record", "none"), privacy={"unit": "none"})
    federation.round()
    book = ledger.read(federation.site("north").ledger)
    assert math.isinf(ledger.spent(book, 1e-5))
    path = federation.root / "north" / "policy.toml"
    save_toml(load_toml(SitePolicy, path).model_copy(update={"units": ("record",)}), path, "changed")
    planned = federation.plan()
    assert federation.answer("north", planned) == "refusal"


def test_parameters_of_a_flow_run_are_checked(federation: SmallFederation):
    job = site_round.job(federation.site("north"))
    with pytest.raises(ContractError, match="unknown key 'command'"):
        job({"run": "spring", "round": 1, "attempt": 1, "purpose": "train", "command": "rm"}, lambda: False)
    with pytest.raises(ContractError, match="'purpose'"):
        job({"run": "spring", "round": 1, "attempt": 1, "purpose": "shell"}, lambda: False)


def test_a_promise_that_no_noise_can_keep_is_refused(tmp_path):
    """A thousand evaluations with little noise cost more than the whole epsilon; nothing is charged."""
    from tests import small_federation

    federation = small_federation.make(
        tmp_path, privacy={"unit": "record", "epsilon": 1.0, "delta_dp": 1e-5, "rounds": 1000}, evaluation={"noise_std": 1.0})
    assert federation.answer("north", federation.plan()) == "refusal"
    assert answer_of(federation, "north")["reason"] == "budget"
    assert ledger.read(federation.site("north").ledger).charges == ()


def test_a_site_that_refused_may_answer_when_its_rows_are_mended(federation: SmallFederation):
    """Asked again under the same plan: nobody else is asked for a second noise, and nobody is charged twice."""
    path = federation.root / "data" / "north" / "train.parquet"
    good = pd.read_parquet(path)
    bad = good.rename(columns={"x1": "other"})
    planned = federation.plan(quorum=3)
    bad.to_parquet(path)
    assert [federation.answer(name, planned) for name in ("north", "north", "east", "south")] == [
        "refusal", "refusal", "update", "update"]
    assert set(federation.collect(planned).refused) == {"north"}
    good.to_parquet(path)
    again = federation.plan(quorum=3)
    assert again.digest == planned.digest
    assert federation.answer("north", again) == "update"
    commit = federation.commit(again).commit
    assert ([update.site for update in commit.updates], commit.refusals) == (["east", "north", "south"], ())
    assert len(ledger.read(federation.site("east").ledger).charges) == 1


def test_a_lost_noise_secret_is_not_replaced(federation: SmallFederation):
    (federation.root / "north" / "keys" / "noise.key").unlink()
    with pytest.raises(SetupError, match="restore it from your backup"):
        federation.site("north")


def test_rows_that_change_in_the_middle_of_a_run_keep_its_promise(tmp_path, rows_are_judged_here):
    """The rest is a campaign of its own, with more noise if the promise has no room for it otherwise."""
    from tests import small_federation

    federation = small_federation.make(tmp_path, max_epsilon=50.0, privacy={
        "unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 12})
    federation.round()
    rows(360, 1).to_parquet(federation.root / "data" / "north" / "train.parquet")
    assert "north" in {update.site for update in federation.round().updates}
    assert federation.answer("north", federation.plan()) == "update"
    book = ledger.read(federation.site("north").ledger)
    noises = [charge.mechanisms[0].noise_multiplier for charge in book.charges]
    assert noises[0] != noises[1] == noises[2]
    assert [one.rounds for one in book.book.campaigns] == [3]
    assert ledger.held(book, 1e-5, run="spring") <= 8.0


def test_a_plan_is_held_to_its_own_promise_under_any_policy(tmp_path, rows_are_judged_here):
    """Epsilon 8 over three rounds; the operator would allow a hundred."""
    from tests import small_federation

    federation = small_federation.make(tmp_path, max_epsilon=100.0, privacy=small_federation.settings()["privacy"])
    for _ in range(3):
        federation.round()
    assert federation.answer("north", federation.plan()) == "refusal"
    assert ledger.held(ledger.read(federation.site("north").ledger), 1e-5) <= 8.0
    assert federation.answer("north", federation.plan("summer")) == "update"
