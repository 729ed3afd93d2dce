"""A site counts on others' noise as far as its operator says so, and no sum is asked to hold more than was agreed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fedround.privacy import ledger
from fedround.records import Answer
from fedround.values import parse
from infra.settings import load_toml, save_toml
from site_workers import outbox, recover
from site_workers.policy import SitePolicy
from tasks.plan import Planned
from tests import summing
from tests.small_federation import X1, rows
from tests.summing import Summing


@pytest.fixture
def sums(tmp_path: Path, rows_are_judged_here: None) -> Summing:
    federation = summing.make(tmp_path)
    federation.keys()
    return federation


def allow(federation: Summing, **changes: object) -> None:
    path = federation.root / "north" / "policy.toml"
    save_toml(load_toml(SitePolicy, path).model_copy(update=changes), path, "changed")


def said(federation: Summing, planned: Planned) -> dict:
    (entry,) = [one for one in outbox.entries(federation.site("north").safe) if one.body.plan == planned.digest]
    return json.loads(entry.answer)["body"]


def test_alone_no_more_is_spent_than_the_policy_says_and_without_a_line_no_more_than_together(sums: Summing):
    planned = sums.plan("spring")
    for alone in (None, 8.5):
        allow(sums, max_epsilon_alone=alone)
        copy = sums.copy(sums.root.parent / f"copy-{alone}")
        assert copy.answer("north", planned) == "refusal"
        assert said(copy, planned)["reason"] == "budget"
        assert ledger.read(copy.site("north").ledger).charges == ()
    allow(sums, max_epsilon_alone=40.0)
    sums.answer("north", planned)
    told, book = said(sums, planned), ledger.read(sums.site("north").ledger)
    assert told["epsilon"] == ledger.spent(book, 1e-5, run="spring")
    assert told["epsilon_alone"] == ledger.spent(book, 1e-5, run="spring", alone=True) > told["epsilon"]
    assert 8.0 < ledger.held(book, 1e-5, alone=True) <= 40.0


def test_a_statistic_that_may_not_leave_is_a_refusal_for_a_sum_has_the_same_numbers_of_all(sums: Summing):
    allow(sums, statistics=("checks",))
    planned = sums.plan("spring")
    assert sums.answer("north", planned) == "refusal"
    assert "scores" in said(sums, planned)["detail"]


def test_more_rows_than_a_sum_has_room_for_are_not_added(sums: Summing):
    planned = sums.ask(X1)
    rows(451, 0).to_parquet(sums.root / "data" / "north" / "train.parquet")
    assert sums.answer("north", planned) == "refusal"
    assert "1.5 times the rows" in said(sums, planned)["detail"]
    rows(450, 0).to_parquet(sums.root / "data" / "north" / "train.parquet")
    shutil.rmtree(next(one.folder for one in outbox.entries(sums.site("north").safe) if one.body.plan == planned.digest))
    assert sums.answer("north", planned) == "waits"


def test_a_lost_ledger_sets_the_campaign_aside_again(sums: Summing):
    planned = sums.plan("spring")
    sums.answer("north", planned)
    book = ledger.read(sums.site("north").ledger)
    site = sums.site("north")
    charge = recover._from_answer(site, parse(Answer, said(sums, planned), "answer"), planned.plan)
    assert charge.campaign == book.charges[0].campaign
    assert charge.mechanisms == book.charges[0].mechanisms


def test_attack_a_refusal_tells_of_no_persons_rows_where_persons_are_protected(tmp_path: Path, rows_are_judged_here: None):
    """The coordinator writes the agreed number; how many persons there are is public, and how many rows one has is not."""
    promise = {"unit": "person", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3, "person": "customer",
               "rows_per_person": 1}
    sums = summing.make(tmp_path, max_epsilon=50.0, units=("person",), max_epsilon_person=20.0, privacy=promise)
    sums.keys()
    file = sums.root / "data" / "north" / "train.parquet"
    many = rows(1000, 0)
    many["customer"] = [min(row, 150) for row in range(len(many))]      # the last one has 850 of them
    many.to_parquet(file)
    planned = sums.ask(X1)
    assert sums.answer("north", planned) == "waits"
