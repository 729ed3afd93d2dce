"""The benchmarks of rounds run with the product as it is: a benchmark that nobody runs measures nothing."""

from __future__ import annotations

from pathlib import Path

from benchmarks import large_model, onboarding, round_overhead
from flows.one_machine import OneMachine


def test_a_large_models_round_is_measured_beside_its_floor(tmp_path: Path):
    result = large_model.measure(tmp_path, sites=2, parameters=20_000, repeats=1, unit="site")
    assert all(spent[part] > 0 for name in ("floor", "round") for spent in result[name] for part in ("coordinator", "sites"))
    assert "ratio" in large_model.table(result)


def test_a_round_with_every_process_is_measured_by_part(short_folder: Path):
    machine = OneMachine(short_folder / "overhead")
    try:
        result = round_overhead.measure(machine, sites=2, rounds=1, parameters=17_000)
    finally:
        machine.stop()
    assert {part for part, spent in result["cpu_s"].items() if spent > 0} == {
        "server", "database", "store", "coordinator", "sites"}
    assert "all" in round_overhead.table(result)


def test_five_commands_lead_from_an_invitation_to_a_dry_run_that_costs_and_sends_nothing(short_folder: Path):
    machine = OneMachine(short_folder / "onboarding")
    try:
        result = onboarding.measure(machine, parameters=17_000)
    finally:
        machine.stop()
    assert list(result["commands"]) == ["federation invite", "site init", "federation add", "site check", "site rehearse"]
    assert all(spent["cpu_s"] > 0 for spent in result["commands"].values())
    assert {name: result[name] for name in ("charges", "answers", "objects")} == {"charges": 0, "answers": 0, "objects": 0}
    assert "all five" in onboarding.table(result)
