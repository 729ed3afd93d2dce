"""`fedround train compare` says what the page says."""

from __future__ import annotations

import json

from tasks import pages
from tests.cli.conftest import Fedround
from tests.small_federation import SmallFederation
from tests.tasks.test_compare import run


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
