"""Drift from the sites' rows to a round's record: asked, noised, charged within the campaign, judged, shown."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from fedround.privacy import ledger
from infra.model_registry import ModelRegistry
from tasks.ask import conclude, plan_question
from tasks.collect import read_again
from tasks.drift import drift_after, due, evidence
from tasks.evaluate import evaluate
from tasks.report import records, report
from tasks.reporting import render_html, render_markdown
from tasks.requests import RoundRequest
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import NAMES, SmallFederation
from tests.tasks.test_ask import allow

DRIFT = {"columns": [{"column": "x1", "edges": [-1.0, 0.0, 1.0]}, {"column": "y", "values": [0, 1]}], "noise_std": 6.0}


def measured(federation: SmallFederation, number: int, sites: tuple[str, ...] = NAMES) -> None:
    """What a round's flow does after the commit."""
    question = due(federation.coordinator, RoundRequest(run="spring"), number)
    assert question is not None
    planned = plan_question(federation.coordinator, question)
    for name in sites:
        federation.answer(name, planned)
    conclude(federation.coordinator, planned, federation.collect(planned))


def whole_round(federation: SmallFederation) -> int:
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    committed = federation.commit(planned)
    measured(federation, committed.commit.round)
    coordinator = federation.coordinator
    metrics = evaluate(coordinator, committed.commit)
    report(coordinator, planned, read_again(coordinator, planned, ()), committed, metrics, 0.0)
    return committed.commit.round


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Two rounds; before the second, x1 grows by 2 at every site."""
    federation = small_federation.make(tmp_path_factory.mktemp("drifting"), drift=DRIFT)
    allow(federation, *NAMES)
    whole_round(federation)
    for name in NAMES:
        for path in (federation.root / "data" / name).glob("*.parquet"):
            frame = pd.read_parquet(path)
            frame.assign(x1=(frame["x1"] + 2).clip(-9, 9)).to_parquet(path)
    whole_round(federation)
    return federation


def test_a_rounds_record_says_what_has_drifted_and_who_pays(drifting: SmallFederation):
    first, second = records(drifting.coordinator, "spring")
    assert first.drift is not None
    assert not first.drift.is_alarm
    assert first.drift.round == 1
    found = second.drift
    assert found is not None
    assert found.is_alarm
    assert (found.round, found.first, found.sites) == (2, "round 1", tuple(sorted(NAMES)))
    assert {shift.column for shift in found.over_time if shift.drifted} == {"x1"}
    assert {shift.site for shift in found.over_time if shift.drifted and shift.column == "x1"} == {None, *NAMES}
    for name in NAMES:
        book = ledger.read(drifting.site(name).ledger)
        assert [charge.purpose for charge in book.charges] == ["train", "measure", "train", "measure"]
        assert ledger.spent(book, 1e-5, run="spring") <= ledger.held(book, 1e-5, run="spring") <= 8.0
        assert len({charge.campaign for charge in book.charges[:2]}) == 1, "the measurement is part of the campaign"


def test_metrics_and_evidence_carry_it(drifting: SmallFederation):
    registry = ModelRegistry.open(drifting.coordinator.folder / "models")
    one, two = registry.versions()
    assert one.metrics["drift_alarm"] == 0.0
    assert "drift_distance" not in one.metrics
    assert two.metrics["drift_alarm"] == 1.0
    assert two.metrics["drift_distance"] > 0.3
    told = evidence(records(drifting.coordinator, "spring")[-1].drift)
    assert told is not None
    assert 0.2 < told.low < told.value < told.high
    assert "'x1'" in told.words
    assert told.round == 2
    assert evidence(records(drifting.coordinator, "spring")[0].drift) is None


def test_page_and_artifact_show_it(drifting: SmallFederation):
    told = records(drifting.coordinator, "spring")
    page, artifact = render_html(told), render_markdown(told)
    assert "Drift: the data have changed" in page
    assert "since round 2" in page
    assert "| `x1` | `all` | changed, since round 2 |" in artifact
    assert "| `y` | `all` | as in round 1 |" in artifact
    assert "the data have changed" not in render_html(told[:1])


def test_a_round_between_two_measurements_carries_the_last_one(drifting: SmallFederation):
    before = records(drifting.coordinator, "spring")[-1].drift
    assert drift_after(drifting.coordinator, "spring", 5) == before


def test_the_judgement_is_made_again_from_the_store_alone(drifting: SmallFederation):
    first, second = records(drifting.coordinator, "spring")
    assert drift_after(drifting.coordinator, "spring", 1) == first.drift
    assert drift_after(drifting.coordinator, "spring", 2) == second.drift
    assert verify_run(drifting.coordinator.store, "spring", drifting.coordinator.identity.key) is not None


def test_no_value_of_any_row_and_no_exact_count_is_in_what_the_coordinator_keeps(drifting: SmallFederation):
    """A canary: the extreme values, which Evidently's own report would hold, and the exact cells of every histogram."""
    kept = [path.read_bytes() for folder in ("coordinator", "store") for path in (drifting.root / folder).rglob("*")
            if path.is_file() and path.suffix != ".parquet"]
    assert sum(b"jensenshannon" in body for body in kept) >= 2, "the records are among them"
    for name in NAMES:
        frame = pd.concat([pd.read_parquet(path) for path in (drifting.root / "data" / name).glob("*.parquet")])
        for value in (frame["x1"].min(), frame["x1"].max(), frame["x2"].max()):
            assert not any(f"{value:.6f}".encode() in body or repr(float(value)).encode() in body for body in kept)
    for asked in ("measurements/00001", "measurements/00002"):
        answers = [json.loads(path.read_bytes())["body"] for path in (drifting.root / "store").rglob("answer*.json")
                   if asked in str(path)]
        assert len(answers) == len(NAMES)
        for release in (release for answer in answers for release in answer["releases"]):
            assert release["mechanism"]["kind"] == "gaussian_counts"
            assert not any(float(number).is_integer() for number in release["numbers"])


def test_a_site_whose_policy_names_no_histograms_refuses_and_the_others_are_judged(tmp_path: Path):
    federation = small_federation.make(tmp_path, drift=DRIFT)
    allow(federation, "north", "east")
    whole_round(federation)
    (record,) = records(federation.coordinator, "spring")
    assert record.drift is not None
    assert record.drift.sites == ("east", "north")
    assert [charge.purpose for charge in ledger.read(federation.site("south").ledger).charges] == ["train"]
