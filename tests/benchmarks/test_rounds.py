"""The benchmarks of rounds run with the product as it is: a benchmark that nobody runs measures nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import large_model, onboarding, round_overhead

ROOT = Path(__file__).parents[2]


def measured(benchmark: str, *arguments: str) -> dict[str, Any]:
    """As it is typed: Prefect is pointed at one API when it is imported, so a process has one machine."""
    done = subprocess.run([sys.executable, "-m", benchmark, "--json", *arguments], cwd=ROOT, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_large_models_round_is_measured_beside_its_floor(tmp_path: Path):
    result = large_model.measure(tmp_path, sites=2, parameters=20_000, repeats=1, unit="site")
    assert all(spent[part] > 0 for name in ("floor", "round") for spent in result[name] for part in ("coordinator", "sites"))
    assert "ratio" in large_model.table(result)


def test_a_round_with_every_process_is_measured_by_part():
    result = measured("benchmarks.round_overhead", "--sites", "2", "--rounds", "1")
    assert {part for part, spent in result["cpu_s"].items() if spent > 0} == {
        "server", "database", "store", "coordinator", "sites"}
    assert "all" in round_overhead.table(result)


def test_five_commands_lead_from_an_invitation_to_a_dry_run_that_costs_and_sends_nothing():
    result = measured("benchmarks.onboarding")
    assert list(result["commands"]) == ["federation invite", "site init", "federation add", "site check", "site rehearse"]
    assert all(spent["cpu_s"] > 0 for spent in result["commands"].values())
    assert {name: result[name] for name in ("charges", "answers", "objects")} == {"charges": 0, "answers": 0, "objects": 0}
    assert "all five" in onboarding.table(result)
