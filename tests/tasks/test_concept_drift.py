"""Whether a model's scores still mean what they meant: the counts of truth by score, week by week, of one frozen model."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from fedround.drift.judge import Drift
from fedround.drift.spec import TRUTH
from fedround.errors import ContractError
from fedround.privacy import ledger
from tasks.ask import conclude, plan_question
from tasks.drift import DriftRequest, judgements, question
from tasks.verify import verify_run
from tests import weekly
from tests.site_workers.test_measure import allow
from tests.small_federation import SmallFederation

WEEKS = {"column": "day", "by": "week"}
DRIFT = {"columns": [{"column": "x1", "edges": [-1.0, 0.0, 1.0]}], "noise_std": 4.0, "measurements": 4,
         "false_alarms": 1e-4, "partitions": WEEKS, "calibration": [0.3, 0.5, 0.7]}


def measured(federation: SmallFederation, week: int) -> Drift:
    """What `fedround drift run --run spring` does in the week after this one."""
    coordinator = federation.coordinator
    asked = plan_question(coordinator, question(
        coordinator, DriftRequest(run="spring"), weekly.MONDAY + timedelta(weeks=week)))
    assert asked.plan.asks.partition is not None
    assert asked.plan.asks.partition.name == weekly.name(week)
    assert [federation.answer(site, asked) for site in federation.names] == ["answer"] * 3
    conclude(coordinator, asked, federation.collect(asked))
    return judgements(coordinator, "spring")[-1]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """A model of the first week. In the fourth week the clients are as before, and most of them default."""
    federation = weekly.make(tmp_path_factory.mktemp("watched"), 5, drift=DRIFT)
    for seed, site in enumerate(federation.names):
        allow(federation, site, statistics=("scores", "checks", "histograms"))
        rows = weekly.rows(range(1, 6), 400, 90 + seed)
        turned = (rows["day"] >= pd.Timestamp(weekly.MONDAY + timedelta(weeks=3))) & (rows.index % 4 > 0)
        rows.assign(y=rows["y"].where(~turned, 1)).to_parquet(
            federation.root / "data" / site / "validation.parquet")
    planned = federation.plan("spring", partition=weekly.name(1))
    for site in federation.names:
        assert federation.answer(site, planned) == "update"
    federation.commit(planned)
    assert not measured(federation, 2).is_alarm
    return federation


def test_a_change_of_what_is_true_is_found_though_every_column_lies_as_before(watched: SmallFederation):
    calm, changed = measured(watched, 3), measured(watched, 4)
    assert {shift.column for shift in calm.whole} == {"x1", TRUTH}
    assert not calm.is_alarm
    assert {shift.column for shift in changed.over_time if shift.drifted} == {TRUTH}
    assert {shift.since for shift in changed.whole if shift.drifted} == {weekly.name(4)}
    assert changed.largest is not None
    assert changed.largest.column == TRUTH
    book = ledger.read(watched.site("north").ledger)
    assert [(charge.purpose, len(charge.mechanisms)) for charge in book.charges] == [("train", 2), *[("measure", 2)] * 3]
    assert len({charge.partition for charge in book.charges}) == 4, "each week's rows pay for their own week"
    assert len(list(verify_run(watched.coordinator.store, "spring", watched.coordinator.identity.key))[-1].findings) == 3


def test_another_model_is_compared_with_nothing_that_was_said_of_this_one(watched: SmallFederation, tmp_path: Path):
    federation = watched.copy(tmp_path)
    planned = federation.plan("spring")
    for site in federation.names:
        federation.answer(site, planned)
    federation.commit(planned)
    found = measured(federation, 5)
    assert {shift.column for shift in found.over_time} == {"x1"}
    assert TRUTH in {shift.column for shift in found.at_sites}


def test_a_run_without_a_model_is_refused_in_words(watched: SmallFederation):
    with pytest.raises(ContractError, match="run 'watch' has no model whose calibration could be watched"):
        question(watched.coordinator, DriftRequest(), weekly.MONDAY + timedelta(weeks=2))
