"""`fedround train compare` says what the page says."""

from __future__ import annotations

import json

from fedround_cli.campaign import line, sites_table
from tasks import pages
from tests.cli.conftest import Fedround
from tests.small_federation import SmallFederation
from tests.tasks.recorded import record, updated, with_
from tests.tasks.test_compare import run


def test_a_round_on_the_terminal_says_no_less_epsilon_than_was_spent():
    said = with_(record(1), sites=(updated("a", epsilon=4.991), updated("b", epsilon=2.001)))
    assert "ε 5.00" in line(said)
    assert [*sites_table(said).columns[5].cells] == ["5.00", "2.01"]


def test_the_command_prints_both_and_writes_the_page(federation: SmallFederation, fedround: Fedround):
    reports = federation.coordinator.reports
    for one in (*run("spring", 0.760), *run("autumn", 0.726, aggregation="median")):
        pages.write(reports, one)
    arguments = ("train", "compare", "spring", "autumn", "-c", federation.root / "coordinator")
    said = fedround(*arguments)
    assert said.exit_code == 0, said.output
    assert "no more than noise does" in said.stdout
    assert (reports / "spring-and-autumn.html").exists()
    told = json.loads(fedround(*arguments, "--json").stdout)
    assert told["differences"] == [{"what": "Aggregation", "one": "weighted_mean", "other": "median", "apart": ""}]
    refused = fedround("train", "compare", "spring", "summer", "-c", federation.root / "coordinator")
    assert (refused.exit_code, refused.exception.__class__) == (1, SystemExit)
    assert "no round of a run 'summer' is recorded" in refused.stderr
