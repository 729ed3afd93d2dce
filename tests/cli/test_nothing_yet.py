"""Where there is nothing to show yet, a sentence says so and what to do; for a script it is an empty list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Fedround


@pytest.mark.parametrize(("line", "says", "empty"), [
    (("models", "stages", "-c"), "no model is in a stage yet: fedround models promote", {"stages": {}, "history": []}),
    (("models", "list", "-c"), "there is no version yet: each committed round makes one, fedround train run", []),
    (("federation", "log", "--as"), "the federation log has no entry yet: fedround deploy", [])])
def test_an_empty_table_is_a_sentence(fedround: Fedround, coordinator: Path, line: tuple[str, ...], says: str, empty: object):
    shown = fedround(*line, coordinator)
    assert shown.exit_code == 0, shown.output
    assert says in shown.stdout
    assert len(shown.stdout.splitlines()) == 1
    assert json.loads(fedround(*line, coordinator, "--json").stdout) == empty
