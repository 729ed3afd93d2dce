"""`fedround site recover`: what an operator with yesterday's backup sees, answers and is left with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from fedround.privacy import ledger
from infra import serving
from tests import small_federation
from tests.attacks.test_recovery import hide, three_rounds_later
from tests.cli.conftest import Fedround, one_sentence
from tests.cli.test_site_say import typed
from tests.small_federation import SmallFederation


@pytest.fixture
def federation(tmp_path: Path, rows_are_judged_here: None) -> SmallFederation:
    """With budget for many rounds; north's folder is of yesterday, and one of three answers is hidden."""
    federation = small_federation.make(tmp_path, max_epsilon=80.0)
    three_rounds_later(federation)
    hide(federation, "autumn", 1)
    return federation


def test_it_says_what_is_forgotten_what_is_guessed_and_what_it_comes_to_and_asks(fedround: Fedround,
                                                                               federation: SmallFederation):
    north = federation.root / "north"
    assert "fedround site recover" in fedround("site", "start", north).stderr
    told = typed("n\n", "site", "recover", north)
    assert told.exit_code == 1
    for words in ("dp_sgd, gaussian_counts", "this site's answers or audit log", "priced at the dearest", "autumn",
                  "go back into the outbox: 2", "ε of a record:", "allowed 80"):
        assert words in told.output
    assert len(ledger.read(north / "ledger.jsonl").charges) == 1
    assert typed("y\n", "site", "recover", north).exit_code == 0
    assert len(ledger.read(north / "ledger.jsonl").charges) == 4
    again = fedround("site", "recover", north)
    assert (again.exit_code, "nothing is forgotten" in again.stdout) == (0, True)
    assert "recovered" in fedround("site", "audit", north).stdout


def test_for_scripts_it_is_json_and_asks_nothing(fedround: Fedround, federation: SmallFederation):
    north = federation.root / "north"
    one_sentence(fedround("site", "recover", north, "--json"), "--yes")
    told = json.loads(fedround("site", "recover", north, "--json", "--yes").stdout)
    assert (len(told["answers"]), len(told["proven"]), [charge["run"] for charge in told["unknown"]]) == (2, 2, ["autumn"])
    spent = told["epsilon"]["record"]
    assert spent["before"] < spent["after"] == ledger.held(ledger.read(north / "ledger.jsonl"), 1e-5) < spent["allowed"]
    empty = json.loads(fedround("site", "recover", north, "--json", "--yes").stdout)
    assert (empty["answers"], empty["proven"], empty["unknown"]) == ([], [], [])


def test_a_site_that_serves_is_stopped_first(fedround: Fedround, federation: SmallFederation,
                                             monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "PATIENCE_S", 0.1)
    with FileLock(federation.root / "north" / ".serving"):
        one_sentence(fedround("site", "recover", federation.root / "north", "--yes"), "stop that one first")
