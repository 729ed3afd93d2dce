"""A file that the coordinator reads is read again when it is another one, whatever its length and its time of change say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from fedround.errors import ContractError
from tasks.coordinator import FOLDER_VARIABLE, current_coordinator
from tasks.evaluate import evaluate, score_statistic
from tasks.root import root_update
from tests import small_federation
from tests.disk import replace_alike, rewrite_alike
from tests.small_federation import SmallFederation

CHANGES = pytest.mark.parametrize("change", [replace_alike, rewrite_alike])
Change = Callable[[Path, bytes], None]


def csv(rows: pd.DataFrame) -> bytes:
    """Rows as text in which every number takes the same room."""
    return rows.to_csv(index=False, float_format="%+.4f").encode()


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    return small_federation.make(
        tmp_path_factory.mktemp("replaced"), aggregation={"rule": {"name": "fltrust"}}, root_set="root.csv",
        units=("record", "none"), privacy={"unit": "none"})


@CHANGES
def test_another_test_set_is_used_for_the_next_score(federation: SmallFederation, change: Change):
    coordinator = federation.coordinator
    coordinator = replace(coordinator, settings=coordinator.settings.model_copy(update={"test_set": "test.csv"}))
    path, commit = coordinator.folder / "test.csv", federation.plan().parent.commit
    path.write_bytes(csv(small_federation.rows(400, 99)))
    before = evaluate(coordinator, commit), score_statistic(coordinator, commit)
    assert (evaluate(coordinator, commit), score_statistic(coordinator, commit)) == before
    change(path, csv(small_federation.rows(400, 98)))
    after = evaluate(coordinator, commit), score_statistic(coordinator, commit)
    assert after[0] != before[0]
    assert after[1] != before[1]


@CHANGES
def test_another_root_set_is_trained_on_in_the_next_round(trusting: SmallFederation, change: Change):
    coordinator = trusting.coordinator
    path = coordinator.folder / "root.csv"
    path.write_bytes(csv(small_federation.rows(200, 77)))
    planned = trusting.plan()
    first, again = (root_update(coordinator, planned.plan, planned.digest).array_D for _ in range(2))
    assert first.tobytes() == again.tobytes()
    change(path, csv(small_federation.rows(200, 78)))
    assert root_update(coordinator, planned.plan, planned.digest).array_D.tobytes() != first.tobytes()


@CHANGES
def test_the_coordinator_is_opened_anew_when_one_of_its_files_is_another(
        federation: SmallFederation, change: Change, monkeypatch: pytest.MonkeyPatch):
    folder = federation.root / "coordinator"
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    first = current_coordinator()
    assert current_coordinator() is first
    agreed = folder / first.settings.federation
    change(agreed, agreed.read_bytes().replace(b"deadline_s = 60", b"deadline_s = 61"))
    assert current_coordinator().federation.deadline_s == 61
    for name in (first.settings.recipe, first.settings.contract):
        file = folder / name
        good = file.read_bytes()
        change(file, good.replace(b"tiny", b"tidy"))
        with pytest.raises(ContractError):
            current_coordinator()
        file.write_bytes(good)
    assert current_coordinator().federation.deadline_s == 61
