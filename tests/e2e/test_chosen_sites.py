"""Chosen sites, target and rule with real servers and processes: by the deployment's parameters, as the form sends them."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Federation
from tests.small_federation import NAMES

pytestmark = pytest.mark.stack

CHOSEN = ["south", "north"]


def test_a_round_of_chosen_sites_asks_and_charges_them_alone_and_the_next_one_asks_all(real: Federation, run: str):
    ended = real.ended(real.start_raw("federated-round", {"request": {"run": run, "asked": {"sites": CHOSEN}}}))
    assert ended.state.is_completed(), ended.state.message
    assert real.record(run)["outcomes"] == {"north": "updated", "south": "updated", "east": "excluded"}
    assert real.site_run(run, "east") is None, "nobody knocks at the door of who was not chosen"
    assert real.site_run(run, "north").state.is_completed()
    assert [len(real.charges(name, run)) > 0 for name in NAMES] == [True, False, True]
    ended = real.ended(real.start("federated-round", run=run))
    assert ended.state.is_completed(), ended.state.message
    assert real.record(run, 2)["outcomes"] == dict.fromkeys(NAMES, "updated")
    proven = real.works("verify", run, "--as", real.machine.coordinator, "--json")
    assert [one["excluded"] for one in json.loads(proven)["rounds"]] == [[], ["east"], []]


def test_fewer_than_the_quorum_are_refused_in_the_flow_run_and_nobody_is_asked(real: Federation, run: str):
    ended = real.ended(real.start_raw("federated-round", {"request": {"run": run, "asked": {"sites": ["south"]}}}))
    assert ended.state.is_failed()
    assert "the quorum is 2" in ended.state.message
    assert all(real.site_run(run, name) is None for name in NAMES)


def test_a_run_has_the_target_and_the_rule_that_it_began_with(real: Federation, run: str):
    chosen = {"terms": {"epsilon": 16.0, "rule": "coordinate_median"}}
    ended = real.ended(real.start_raw("federated-round", {"request": {"run": run, **chosen}}))
    assert ended.state.is_completed(), ended.state.message
    ended = real.ended(real.start_raw("federated-training", {"request": {"run": run, "rounds": 2}}))
    assert ended.state.is_completed(), ended.state.message
    assert [real.record(run, number)["epsilon_limit"] for number in (1, 2)] == [16.0, 16.0]
    assert real.record(run, 2)["aggregation"] == "coordinate_median"
    proven = real.here("verify", run, "--as", real.machine.coordinator)
    assert "epsilon 16, coordinate_median, when the run began" in " ".join(proven.output.split())
    other = real.ended(real.start_raw("federated-round", {"request": {"run": run, "terms": {"epsilon": 20.0}}}))
    assert other.state.is_failed()
    assert f"run '{run}' trains with epsilon 16" in other.state.message
