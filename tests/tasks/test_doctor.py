"""Why a round did not commit is said site by site, from what stands in the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedround_cli import doctor as command
from fedround_cli.main import app
from tasks.ask import MeasurementRequest, plan_question
from tasks.doctor import diagnose
from tests.small_federation import LABELS, SmallFederation


def spends_nothing(folder: Path) -> None:
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text().replace("max_epsilon = 8.0", "max_epsilon = 0.1"))


def test_each_site_is_answered_refused_not_admitted_or_silent_with_what_helps(federation: SmallFederation):
    spends_nothing(federation.root / "east")
    planned = federation.plan()
    for name in ("north", "east"):
        federation.answer(name, planned)
    found = diagnose(federation.coordinator, "spring")
    waiting, = found.waits
    assert (found.committed, waiting.plan.round, waiting.missing) == (0, 1, 1)
    assert {one.site: one.said for one in waiting.sites} == {"north": "answered", "east": "refused", "south": "nothing"}
    east = next(one for one in waiting.sites if one.site == "east")
    assert east.why.startswith("budget: ")
    assert "max_epsilon" in east.helps
    answer = federation.root / "store" / "sites/north/spring/rounds/00001/01/answer.json"
    answer.chmod(0o600)
    answer.write_bytes(b"{}\x1b[31m")
    forged = next(one for one in diagnose(federation.coordinator, "spring").waits[0].sites if one.site == "north")
    assert forged.said == "not admitted"
    assert "\x1b" not in forged.why


def test_nothing_is_in_the_way_of_a_run_that_has_not_begun_or_is_committed(federation: SmallFederation):
    assert diagnose(federation.coordinator, "spring").committed is None
    federation.round()
    found = diagnose(federation.coordinator, "spring")
    assert (found.committed, found.waits) == (1, ())


def test_the_command_says_it_and_ends_with_1(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "_silent", lambda folder: (["south"], None))
    planned = federation.plan()
    federation.answer("north", planned)
    folder = str(federation.root / "coordinator")
    said = CliRunner().invoke(app, ["doctor", "-c", folder, "--run", "spring"])
    assert said.exit_code == 1, said.output
    assert "round 1 of run 'spring' waits: 1 more of 3 sites must answer, the quorum is 2" in said.output
    assert "south does not serve" in said.output
    told = json.loads(CliRunner().invoke(app, ["doctor", "-c", folder, "--run", "spring", "--json"]).output)
    waiting, = told["waits"]
    assert [(one["site"], one["said"]) for one in waiting["sites"]] == [
        ("north", "answered"), ("east", "nothing"), ("south", "nothing")]
    assert (waiting["missing"], told["silent"]) == (1, ["south"])
    federation.answer("east", planned)
    enough = CliRunner().invoke(app, ["doctor", "-c", folder, "--run", "spring"])
    assert "round 1 of run 'spring' waits: enough sites have answered, the quorum is 2" in enough.output
    none = CliRunner().invoke(app, ["doctor", "-c", folder])
    assert "no round was begun from this folder" in none.output


def test_a_question_that_nobody_answers_is_explained_too(federation: SmallFederation):
    """Only rounds were: whoever asked for counts, or for keys of a secure sum, was told that nothing waits."""
    asked = plan_question(federation.coordinator, MeasurementRequest(run="spring", statistics=(LABELS,)))
    federation.answer("north", asked)
    waiting, = diagnose(federation.coordinator, "spring").waits
    assert (waiting.plan.asks.kind, waiting.missing, waiting.is_held) == ("measure", 2, True)
    assert [one.said for one in waiting.sites] == ["refused", "nothing", "nothing"]
    assert waiting.sites[0].why.startswith("policy: ")
    assert "operator allows" in waiting.sites[0].helps


def test_a_region_that_has_not_added_up_is_named(federation: SmallFederation):
    federation.with_regions({"hills": ("north", "east"), "plains": ("south",)})
    planned = federation.plan()
    for name in planned.plan.cohort:
        federation.answer(name, planned)
    federation.add_up("plains", planned)
    waiting, = diagnose(federation.coordinator, "spring").waits
    assert (waiting.missing, waiting.is_held) == (0, True)
    assert {one.site: one.said for one in waiting.regions} == {"hills": "nothing", "plains": "answered"}
    federation.add_up("hills", planned)
    assert not diagnose(federation.coordinator, "spring").waits[0].is_held
