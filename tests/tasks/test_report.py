"""What people read about a round: also of one whose process died before it could write it, and of a lost race."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from fedround import layout
from fedround.errors import ContractError
from fedround.signing import digest
from infra.history import read_commit
from infra.model_registry import ModelRegistry
from tasks.ask import conclude, plan_question
from tasks.catch_up import catch_up, rebuild
from tasks.coordinator import Coordinator
from tasks.evaluate import evaluate
from tasks.pages import read_record
from tasks.report import page, records, report
from tasks.reporting import RoundRecord
from tasks.reporting.record import NOT_TIMED, Lineage, Timing, timing_of
from tasks.requests import RoundRequest
from tests import small_federation
from tests.small_federation import NAMES
from tests.tasks.conftest import Answered
from tests.tasks.recorded import Page

TIMING = Timing(steps=(("plan", 0.5), ("wait for the sites", 1.0)), answered={"north": 0.5, "south": 0.75},
                fetched={"north": (0.25, 3)})


@pytest.fixture
def coordinator(answered: Answered, tmp_path: Path) -> Coordinator:
    """With a folder of its own for reports and models."""
    for name in ("approved", "test.parquet"):
        (tmp_path / name).symlink_to(answered.federation.root / "coordinator" / name)
    return answered.coordinator(answered.store(), tmp_path)


def written(coordinator: Coordinator, answered: Answered) -> None:
    """A whole round: commit and report."""
    collected = answered.federation.collect(answered.planned, coordinator)
    committed = answered.federation.commit(answered.planned, coordinator)
    report(coordinator, answered.planned, collected, committed, evaluate(coordinator, committed.commit), 1.5, timing=TIMING)


def untimed(record: RoundRecord) -> RoundRecord:
    """Without what only the process knows that did the round."""
    return record.model_copy(update={"seconds": 0.0, "steps": (), "sites": tuple(
        row.model_copy(update={"answered_s": None, "fetched_s": None, "fetches": None}) for row in record.sites)})


def outcomes(coordinator: Coordinator) -> dict[str, str]:
    return {site.site: site.outcome for site in records(coordinator, "spring")[-1].sites}


def test_a_report_says_what_became_of_everybody(coordinator: Coordinator, answered: Answered):
    written(coordinator, answered)
    assert outcomes(coordinator) == {"north": "updated", "east": "updated", "south": "refused"}
    assert page(coordinator, "spring", 2).exists()
    told, key = records(coordinator, "spring")[-1].lineage, coordinator.identity.key
    commit = read_commit(coordinator.store, "spring", 2, key)
    assert told == Lineage(
        coordinator=key, commit=commit.digest, plan=answered.planned.digest,
        federation_file=digest(coordinator.federation_document), log=commit.commit.log.number, recipe="tiny",
        recipe_digest=coordinator.federation.recipe_digest, contract_digest=coordinator.contract.digest)
    written_page = page(coordinator, "spring", 2).read_text()
    assert all(said in written_page for said in told.model_dump().values() if isinstance(said, str))
    assert timing_of(records(coordinator, "spring")[-1]) == TIMING
    assert "plan 0.5 s, wait for the sites 1.0 s by the coordinator's clock" in Page(written_page).text
    assert 'data-label="Answered after">0.8 s' in written_page
    assert 'data-label="Read in">0.25 s</td>\n<td class="number" data-label="Round trips">3</td>' in written_page
    assert "0.75" not in read_commit(coordinator.store, "spring", 2, key).commit.model_dump_json(), "nobody signs a time"
    assert [v.tag for v in ModelRegistry.open(coordinator.folder / "models").versions()] == ["spring/round-00002"]


def test_a_round_that_was_committed_and_not_reported_is_reported_by_the_next_process(
        coordinator: Coordinator, answered: Answered, tmp_path: Path):
    """Word for word, the time it took excepted."""
    twin = dataclasses.replace(coordinator, folder=tmp_path / "twin")
    twin.folder.mkdir()
    for name in ("approved", "test.parquet"):
        (twin.folder / name).symlink_to(coordinator.folder / name)
    answered.federation.commit(answered.planned, coordinator)                # and dies
    catch_up(coordinator, "spring")
    written(twin, answered)
    mine, others = records(coordinator, "spring")[-1], records(twin, "spring")[-1]
    assert (mine.seconds, others.seconds) == (0.0, 1.5)
    assert (timing_of(mine), timing_of(others)) == (NOT_TIMED, TIMING)
    assert untimed(mine) == untimed(others)
    assert [v.tag for v in ModelRegistry.open(coordinator.folder / "models").versions()] == [
        "spring/round-00001", "spring/round-00002"]          # nobody had reported the first, either
    assert not list((coordinator.folder / "spool").rglob("*.safetensors"))


def test_a_late_answer_does_not_creep_into_the_report_that_is_caught_up(answered: Answered, tmp_path: Path):
    late = layout.answer("east", "spring", 2, 1, "train")
    store = answered.store(without=late)
    coordinator = answered.coordinator(store, tmp_path)
    for name in ("approved", "test.parquet"):
        (tmp_path / name).symlink_to(answered.federation.root / "coordinator" / name)
    planned = dataclasses.replace(answered.planned, plan=answered.planned.plan.model_copy(update={"quorum": 1}))
    answered.federation.commit(planned, coordinator)
    store.put_once(late, answered.store().get(late))
    catch_up(coordinator, "spring")
    assert outcomes(coordinator) == {"north": "updated", "east": "missing", "south": "refused"}


def test_what_the_sites_found_returns_with_the_reports_that_are_written_again(tmp_path: Path, rows_are_judged_here: None):
    """Also about the last round, which no later round's answers tell of."""
    federation = small_federation.make(tmp_path, privacy={"unit": "none"}, units=("none",),
                                       evaluation={"bins": 10, "noise_std": 0.0})
    federation.round()
    federation.round()
    coordinator = federation.coordinator
    question = plan_question(coordinator, RoundRequest(run="spring"))
    for name in NAMES:
        federation.answer(name, question)
    conclude(coordinator, question, federation.collect(question))
    assert list(rebuild(coordinator, "spring")) == [1, 2]
    first, last = records(coordinator, "spring")
    for record in (first, last):
        assert record.at_sites is not None
        assert record.at_sites.auc is not None
        assert {row.site for row in record.sites if row.local is not None} == set(NAMES)
    told = [answer.scores for answer in federation.collect(question).answers.values()]
    assert last.at_sites == question.plan.task.metrics_of(told)


def test_there_is_nothing_to_catch_up_with_when_all_is_written(coordinator: Coordinator, answered: Answered):
    written(coordinator, answered)
    before = page(coordinator, "spring", 2).stat().st_mtime_ns
    catch_up(coordinator, "spring")
    catch_up(coordinator, "a-run-that-never-was")
    assert page(coordinator, "spring", 2).stat().st_mtime_ns == before


def test_versions_and_reports_of_a_lost_folder_are_written_again_from_the_store(coordinator: Coordinator, answered: Answered):
    written(coordinator, answered)
    before = records(coordinator, "spring")[-1]
    for lost in ("models", "models-data", "reports"):
        shutil.rmtree(coordinator.folder / lost)
    assert list(rebuild(coordinator, "spring")) == [1, 2]
    assert untimed(records(coordinator, "spring")[-1]) == untimed(before)
    assert [record.round for record in records(coordinator, "spring")] == [1, 2]
    registry = ModelRegistry.open(coordinator.folder / "models")
    assert [version.tag for version in registry.versions()] == ["spring/round-00001", "spring/round-00002"]
    assert list(rebuild(coordinator, "spring")) == [1, 2]                    # nothing is in its own way
    assert len(registry.versions()) == 2


def test_the_loser_of_a_race_reports_what_the_winner_committed(answered: Answered, tmp_path: Path):
    """It had admitted east; the commit that won had not."""
    store = answered.store()
    loser = answered.coordinator(store, tmp_path)
    for name in ("approved", "test.parquet"):
        (tmp_path / name).symlink_to(answered.federation.root / "coordinator" / name)
    collected = answered.federation.collect(answered.planned, loser)
    planned = dataclasses.replace(answered.planned, plan=answered.planned.plan.model_copy(update={"quorum": 1}))
    winner = answered.coordinator(answered.store(without=layout.answer("east", "spring", 2, 1, "train")))
    committed = answered.federation.commit(planned, winner)
    for key in (*winner.store.list("models/"), *winner.store.list("memory/")):
        store.put_once(key, winner.store.get(key))
    for key in winner.store.list("runs/spring/rounds/00002/"):
        store.put_once(key, winner.store.get(key))
    report(loser, planned, collected, committed, None, 1.0)
    assert outcomes(loser) == {"north": "updated", "east": "missing", "south": "refused"}


def test_a_record_is_json_for_anybody(coordinator: Coordinator, answered: Answered):
    written(coordinator, answered)
    text = (coordinator.reports / "spring" / "00002.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["run"] == "spring"


@pytest.mark.parametrize(("old", "new", "says"), [
    ('"round": 2', '"round": "two"', "'round'"), ('"quorum"', '"kworum"', "unknown key 'kworum'"),
    ('"outcome": "updated"', '"outcome": "vanished"', "'sites.0.outcome'")])
def test_a_record_that_is_none_is_refused_and_written_again(coordinator: Coordinator, answered: Answered, old: str,
                                                            new: str, says: str):
    written(coordinator, answered)
    path = coordinator.reports / "spring" / "00002.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ContractError, match=f"record .*00002.json: .*{says}"):
        read_record(path)
    assert records(coordinator, "spring") == []
    catch_up(coordinator, "spring")
    assert [record.round for record in records(coordinator, "spring")] == [1, 2]
