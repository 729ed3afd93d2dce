"""A campaign on one week's rows: only they are trained on, and only they pay. And what a coordinator might try."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedround import layout
from fedround.errors import ContractError
from fedround.privacy import ledger
from fedround.privacy.spec import DpSgd, RecordPrivacy
from fedround.records import Evaluate, Plan
from fedround.rounds.offer import offer
from fedround.signing import seal
from fedround.statistics.partitions import Partition, Partitions, Recurring
from infra.settings import SiteSettings, load_toml, save_toml
from site_workers import database
from site_workers.authorise import Order
from site_workers.charging import _candidates
from site_workers.policy import SitePolicy
from site_workers.preflight import preflight
from site_workers.recover import forgotten, restore
from site_workers.rows import only, read_columns, read_site_rows
from tasks.ask import plan_question
from tasks.plan import Planned
from tasks.requests import RoundRequest
from tests import weekly
from tests.small_federation import SmallFederation, changed
from validation import query

FIRST, SECOND = weekly.name(1), weekly.name(2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallFederation:
    return weekly.make(tmp_path_factory.mktemp("made"), 3)


@pytest.fixture
def federation(made: SmallFederation, tmp_path: Path, rows_are_judged_here: None) -> SmallFederation:
    """A copy: rows, ledgers and all."""
    return made.copy(tmp_path)


def week(name: str) -> Partition:
    return Partition(column="day", by="week", name=name)


def book(federation: SmallFederation, site: str = "north") -> ledger.Ledger:
    return ledger.read(federation.site(site).ledger)


def forged(federation: SmallFederation, planned: Planned, attempt: int, **changes: object) -> Planned:
    """Signed by the coordinator as it stands, whatever its own checks say."""
    plan = changed(planned.plan, attempt=attempt, **changes)
    document = seal(plan, federation.coordinator.identity)
    federation.coordinator.store.put_once(layout.plan(plan.run, plan.round, attempt, plan.asks.kind), document)
    return Planned(plan, "", planned.parent)


def about(planned: Planned, part: Partition | None) -> object:
    return planned.plan.asks.model_copy(update={"partition": part})


def refusal(federation: SmallFederation, plan: Plan, site: str = "north") -> tuple[str, str]:
    prefix = federation.root / "store" / layout.refusals(site, plan.run, plan.round, plan.attempt, plan.asks.kind)
    said = json.loads(sorted(prefix.parent.glob("refusal-*"))[-1].read_bytes())["body"]
    return said["reason"], said["detail"]


def allow(federation: SmallFederation, site: str = "north", **changes: object) -> None:
    path = federation.root / site / "policy.toml"
    save_toml(load_toml(SitePolicy, path).model_copy(update=changes), path, "changed")


def test_the_rows_are_those_of_the_week_as_if_there_were_no_others(federation: SmallFederation):
    site = federation.site("north")
    rows = read_site_rows(site)
    told = only(replace(rows, columns=read_columns(site, ["day", "x1"])), week(SECOND), encoded=True)
    data = federation.root / "data" / "north"
    for side, found in (("train", told.train), ("validation", told.validation)):
        frame = pd.read_parquet(data / f"{side}.parquet")
        alone = site.recipe.encode(frame[frame["day"].dt.isocalendar().week == 3].reset_index(drop=True))
        assert alone.digest == found.digest
        assert len(found) == {"train": 80, "validation": 20}[side]
    assert len(told.columns["x1"]) == 100


def test_a_row_that_breaks_the_contract_stays_in_its_week_and_counts_for_nothing_there(federation: SmallFederation):
    """Otherwise the sampling rate, which is told, would tell of it."""
    path = federation.root / "data" / "north" / "train.parquet"
    frame = pd.read_parquet(path)
    broken = frame.index[frame["day"].dt.isocalendar().week == 2][0]
    frame.assign(x1=frame["x1"].where(frame.index != broken, 99.0)).to_parquet(path)
    planned = federation.plan("one", partition=FIRST)
    assert federation.answer("north", planned) == "update"
    (mechanism, _), = [charge.mechanisms for charge in book(federation).charges]
    assert isinstance(mechanism, DpSgd)
    assert mechanism.sampling_rate == 32 / 80


def test_each_week_pays_for_its_own_campaign_and_for_no_other(federation: SmallFederation):
    for name in (FIRST, SECOND):
        planned = federation.plan(f"weekly-{name}", partition=name)
        assert planned.plan.asks.partition == week(name)
        assert federation.answer("north", planned) == "update"
    found = book(federation)
    assert [charge.partition for charge in found.charges] == [week(FIRST).in_ledger, week(SECOND).in_ledger]
    assert 7.9 < ledger.held(found, 1e-5) <= 8.0
    (mechanism, _), _ = [charge.mechanisms for charge in found.charges]
    assert isinstance(mechanism, DpSgd)
    assert mechanism.sampling_rate == 32 / 80, "of the week's rows"


def test_attack_a_coordinator_that_names_another_week_in_the_second_round(federation: SmallFederation):
    first = federation.plan("spring", partition=FIRST)
    for site in federation.names:
        federation.answer(site, first)
    federation.commit(first)
    second = federation.plan("spring")
    other = forged(federation, second, 2, asks=about(second, week(SECOND)))
    before = book(federation).entries
    assert federation.answer("north", other) == "refusal"
    reason, detail = refusal(federation, other.plan)
    assert (reason, "a run keeps its partition" in detail) == ("policy", True)
    question = plan_question(federation.coordinator, RoundRequest(run="spring"))
    assert isinstance(question.plan.asks, Evaluate)
    assert question.plan.asks.partition == week(FIRST)
    scored = forged(federation, question, 2, asks=about(question, week(SECOND)))
    assert federation.answer("north", scored) == "refusal"
    assert book(federation).entries == before
    assert federation.answer("north", second) == "update"
    assert federation.answer("north", question) == "answer"
    assert {charge.partition for charge in book(federation).charges} == {week(FIRST).in_ledger}


def test_attack_a_plan_whose_rows_are_not_those_of_its_terms(federation: SmallFederation):
    """A campaign on all rows under terms that tell them apart, and the other way round, is no plan at all."""
    planned = federation.plan("spring", partition=FIRST)
    for attempt, changes in enumerate((
            {"asks": about(planned, None)}, {"partitions": None},
            {"asks": about(planned, Partition(column="day", by="month", name="2026-01"))}), start=2):
        with pytest.raises(ContractError, match="nobody could read: .* if, and only if"):
            forged(federation, planned, attempt, **changes)


@pytest.mark.parametrize("allowed", [(), (Partitions(column="day", by="month"),), (Partitions(column="x1"),)],
                         ids=["none", "months", "of another column"])
def test_attack_rows_told_apart_as_the_policy_does_not_say(federation: SmallFederation, allowed: tuple):
    """The sampling rate tells how many rows a partition has: of a diagnosis, say. So the operator names the column."""
    allow(federation, partitions=allowed)
    planned = federation.plan("spring", partition=FIRST)
    assert federation.answer("north", planned) == "refusal"
    reason, detail = refusal(federation, planned.plan)
    assert (reason, "the week in column 'day'" in detail) == ("policy", True)
    assert book(federation).charges == ()


def test_a_week_with_few_rows_is_refused_and_nothing_is_charged(federation: SmallFederation):
    weekly.fill(federation, "north", range(1, 4), 0)
    for path in (federation.root / "data" / "north").glob("*.parquet"):
        frame = pd.read_parquet(path)
        few = frame["day"].dt.isocalendar().week == 2
        pd.concat([frame[~few], frame[few].iloc[:40]]).to_parquet(path)
    planned = federation.plan("one", partition=FIRST)
    assert federation.answer("north", planned) == "refusal"
    assert refusal(federation, planned.plan) == ("policy", "fewer rows than the site's policy asks for")
    nobody = federation.plan("none", partition="2020-w01")
    assert federation.answer("north", nobody) == "refusal"
    assert book(federation).charges == ()
    assert federation.answer("north", federation.plan("other", partition=SECOND)) == "update"


@pytest.mark.parametrize(("delta_dp", "says"), [(5e-4, "update"), (2e-3, "refusal")])
def test_delta_is_held_against_the_rows_of_the_week(federation: SmallFederation, delta_dp: float, says: str):
    """100 rows of a week and 300 in all: at 5e-4 the week's promise means something, at 2e-3 none does."""
    allow(federation, delta_dp=delta_dp)
    privacy = federation.coordinator.federation.privacy.model_dump(exclude_none=True)
    federation.agree(privacy=privacy | {"delta_dp": delta_dp})
    planned = federation.plan("spring", partition=FIRST)
    assert federation.answer("north", planned) == says
    if says == "refusal":
        assert "means nothing" in refusal(federation, planned.plan)[1]


def test_attack_weeks_then_months_so_that_a_row_pays_for_one_of_both(federation: SmallFederation):
    """A row of the first week is in January, too: its month's campaign is paid by all rows, and the budget says no."""
    assert federation.answer("north", federation.plan("week", partition=FIRST)) == "update"
    allow(federation, partitions=(Partitions(column="day", by="week"), Partitions(column="day", by="month")))
    planned = federation.plan("month", partition=SECOND)
    other = forged(federation, planned, 2, partitions=Recurring(column="day", by="month"), asks=about(
        planned, Partition(column="day", by="month", name="2026-01")))
    assert federation.answer("north", other) == "refusal"
    assert refusal(federation, other.plan)[0] == "budget"
    allow(federation, max_epsilon=30.0)
    assert federation.answer("north", other) == "update"
    assert [charge.partition for charge in book(federation).charges] == [week(FIRST).in_ledger, None]
    assert ledger.held(book(federation), 1e-5) > 10


def test_attack_in_a_fixed_order_another_part_of_the_rows_is_another_order(federation: SmallFederation):
    """Where all rows pay for both: a row at other places in the two is in rounds that the first one's passes did not pay."""
    site, privacy = federation.site("north"), RecordPrivacy(epsilon=8.0, delta_dp=1e-5, rounds=3, mechanism="dp_ftrl")
    planned, rows = federation.plan("one", partition=FIRST), read_site_rows(site)
    orders = []
    for part in (week(FIRST), week(SECOND), week(FIRST), None):
        plan = changed(planned.plan, privacy=privacy, asks=about(planned, part))
        offered = offer(plan.asks, plan.agreed, 80, lambda _: True)
        order = Order(plan, "0" * 64, planned.parent, site.identity, federation.coordinator.federation)
        (_, charge), = _candidates(site, order, book(federation), offered, rows.digest)
        orders.append(charge.order)
    assert orders[0] == orders[2]
    assert len({*orders}) == 3


def test_a_round_beyond_the_plans_is_refused_in_a_week_too_whatever_the_policy_allows(federation: SmallFederation):
    """The campaign is of two rounds; tried again and again, its run would cost the week's records more than it promises."""
    allow(federation, max_epsilon=100.0)
    planned = federation.plan("spring", partition=FIRST)
    said = [federation.answer("north", planned)]
    said += [federation.answer("north", forged(federation, planned, attempt, quorum=3, deadline_s=attempt + 60))
             for attempt in (2, 3)]
    assert said == ["update", "update", "refusal"]
    assert ledger.held(book(federation), 1e-5, run="spring") <= 8.0
    assert federation.answer("north", federation.plan("summer", partition=SECOND)) == "update"


def test_attack_a_row_on_both_sides_pays_for_both_within_its_week_and_no_week_pays_for_another(federation: SmallFederation):
    """Recognised by its content. It has one date wherever it lies, so it joins no two weeks."""
    data = federation.root / "data" / "north"
    train, held_out = (pd.read_parquet(data / f"{side}.parquet") for side in ("train", "validation"))
    pd.concat([held_out, train.head(1)]).to_parquet(data / "validation.parquet")
    for name in (FIRST, SECOND):
        assert federation.answer("north", federation.plan(f"weekly-{name}", partition=name)) == "update"
    found = book(federation)
    assert len(found.book.shared) == 1
    assert {charge.rows for charge in found.charges} == {()}
    assert [charge.partition for charge in found.charges] == [week(FIRST).in_ledger, week(SECOND).in_ledger]
    assert 7.9 < ledger.held(found, 1e-5) <= 8.0


def test_the_operator_sees_what_parts_there_are(federation: SmallFederation):
    def said() -> tuple[bool, str]:
        return next((one.ok, one.detail) for one in preflight(federation.root / "north") if one.check == "partitions")

    path = federation.root / "data" / "north" / "train.parquet"
    frame = pd.read_parquet(path)
    second = frame["day"].dt.isocalendar().week == 3
    few = frame[~second | (second.cumsum() <= 12)].reset_index(drop=True)
    few.loc[few.index[few["day"].dt.isocalendar().week == 3][9:], "day"] = pd.NaT
    few.to_parquet(path)
    ok, detail = said()
    assert ok
    assert detail == ("3 parts, told apart by the week in column 'day'; '2026-w04' has 80 training rows; 1 part has fewer "
                      "than 50, and a plan about such a part is refused; 3 training rows are in none, and never trained on")
    allow(federation, partitions=(Partitions(column="date"),))
    assert said()[0] is False
    allow(federation, partitions=(Partitions(column="x1"),))
    assert "no training row is in any part" in said()[1]
    allow(federation, partitions=(Partitions(column="x1", by="value"),))
    assert said()[1].endswith("expected 30 letters a to z, digits and hyphens at most"), "no plan can name 0.37"
    allow(federation, partitions=())
    assert said()[0] is True


def test_a_plan_that_is_sent_again_is_answered_with_the_same_bytes_and_paid_once(federation: SmallFederation):
    planned = federation.plan("spring", partition=FIRST)
    assert federation.answer("north", planned) == "update"
    before = {path: path.read_bytes() for path in (federation.root / "store" / "sites" / "north").rglob("*")
              if path.is_file()}
    assert "sent again" in federation.answer("north", planned)
    assert {path: path.read_bytes() for path in before} == before
    assert len(book(federation).charges) == 1


def test_attack_a_member_that_gives_its_answer_for_another_week(federation: SmallFederation):
    """Trained once, sent twice: an answer names its plan, and so its week."""
    first, second = (federation.plan(f"weekly-{name}", partition=name) for name in (FIRST, SECOND))
    for site in federation.names:
        federation.answer(site, first)
        if site != "north":
            federation.answer(site, second)
    store = federation.root / "store"
    for key in (layout.delta, lambda *where: layout.answer(*where, "train")):
        source, target = (store / key("north", planned.plan.run, 1, 1) for planned in (first, second))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    collected = federation.collect(second)
    assert sorted(collected.admitted) == ["east", "south"]
    assert "north" in collected.rejected


def test_what_a_backup_forgot_is_charged_to_the_weeks_again(federation: SmallFederation):
    """If it were charged to all rows, a year of weeks would be over after one restored backup."""
    kept = federation.site("north").ledger.read_bytes()
    for name in (FIRST, SECOND):
        federation.answer("north", federation.plan(f"weekly-{name}", partition=name))
    site = federation.site("north")
    told = ledger.held(book(federation), 1e-5)
    site.ledger.write_bytes(kept)
    restore(site, forgotten(site))
    again = book(federation)
    assert sorted(charge.partition or "" for charge in again.charges) == [week(FIRST).in_ledger, week(SECOND).in_ledger]
    assert ledger.held(again, 1e-5) == pytest.approx(told)


def test_held_out_rows_of_another_week_are_not_scored(federation: SmallFederation):
    """East's rows of week 2 are all of one label: the counts of the base model's scores say of which week they are."""
    for path in (federation.root / "data" / "north").glob("*.parquet"):
        frame = pd.read_parquet(path)
        second = frame["day"].dt.isocalendar().week == 3
        frame.assign(y=frame["y"].where(~second, 1)).to_parquet(path)
    planned = federation.plan("spring", partition=SECOND)
    federation.answer("north", planned)
    answer = federation.collect(planned).answers["north"]
    counts = np.array(answer.releases[0].table)
    assert counts.sum() == pytest.approx(20, abs=6 * 5.0 * np.sqrt(counts.size))


@pytest.mark.parametrize("form", ["%Y-%m-%d", None], ids=["dates as text", "a column of dates"])
def test_a_week_of_rows_from_a_database_is_the_same_and_pays_alone(federation: SmallFederation, monkeypatch, form):
    """The query gives all rows, with the column; the plan's week cuts them, as it cuts a file's."""
    folder, data = federation.root / "north", federation.root / "data" / "north"
    frames = {side: pd.read_parquet(data / f"{side}.parquet") for side in ("train", "validation")}
    with sqlite3.connect(data / "people.sqlite") as connection:
        for side, frame in frames.items():
            frame.assign(day=frame["day"] if form is None else frame["day"].dt.strftime(form)).reset_index(
                names="id").to_sql(side, connection, index=False)
            (data / f"{side}.sql").write_text(f"SELECT x1, x2, y, day FROM {side} ORDER BY id")
    settings = load_toml(SiteSettings, folder / "site.toml")
    named = settings.data.model_copy(update={side: str(data / f"{side}.sql") for side in frames})
    save_toml(settings.model_copy(update={"data": named}), folder / "site.toml", "")
    database.keep_url(folder, named, {database.VARIABLE: f"sqlite:///{data / 'people.sqlite'}"})
    monkeypatch.setattr(query, "ask_in_subprocess", lambda asked, url, timeout_s: query.ask(
        {one: (query.checked(one), into) for one, into in asked.items()}, url))
    assert federation.answer("north", federation.plan("one", partition=SECOND)) == "update"
    (charge,) = book(federation).charges
    assert charge.partition == week(SECOND).in_ledger
    assert isinstance(charge.mechanisms[0], DpSgd)
    assert charge.mechanisms[0].sampling_rate == 32 / 80
    held = only(replace(read_site_rows(federation.site("north")), columns=read_columns(federation.site("north"), ["day"])),
                week(SECOND), encoded=True)
    inside = frames["train"]["day"].dt.isocalendar().week == 3
    np.testing.assert_array_equal(held.train.inputs["x"], frames["train"].loc[inside, ["x1", "x2"]].to_numpy("float32"))
