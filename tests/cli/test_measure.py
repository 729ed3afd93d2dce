"""`fedround measure`: what the options mean, what people and scripts read, and what the certificate says of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fedround.agreement import Federation
from fedround.statistics import GroupCounts, Histogram, Levels
from fedround_cli import campaign, measure
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import NAMES, SmallFederation
from tests.tasks.test_ask import allow, concluded, request

WANTED = ("--histogram", "x1=-1,0,1", "--groups", "y=0,1", "--noise", "4")
ASKED = (Histogram(column="x1", edges=(-1.0, 0.0, 1.0), noise_std=4.0),
         GroupCounts(by=(Levels(column="y", values=(0, 1)),), noise_std=4.0))


@pytest.fixture
def federation(federation: SmallFederation) -> SmallFederation:
    """All sites allow measurements."""
    allow(federation, *NAMES)
    return federation


@pytest.fixture
def by_the_sites(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """In the place of servers and processes: who asks for a flow gets its work done here. What was asked for."""
    seen: list[dict] = []

    async def carry_out(coordinator: object, flow: str, asked: dict, *, quiet: bool = False) -> None:
        from tasks.ask import MeasurementRequest

        assert flow == "federated-measurement"
        seen.append(asked)
        await asyncio.to_thread(concluded, federation, MeasurementRequest.model_validate_json(json.dumps(asked)))

    monkeypatch.setattr(campaign, "show_campaign", carry_out)
    return seen


def test_options_become_statistics(federation: SmallFederation):
    members: Federation = federation.coordinator.federation
    assert measure.statistics(members, ["x1=-1,0,1"], ["y=0,1"], 4.0) == ASKED
    (crossed,) = measure.statistics(members, [], ["sex=f, m x age group=1.5,old"], None)
    assert crossed == GroupCounts(noise_std=members.evaluation.noise_std, by=(
        Levels(column="sex", values=("f", "m")), Levels(column="age group", values=(1.5, "old"))))


def test_it_asks_shows_a_table_and_asks_nobody_twice(fedround: Fedround, coordinator: Path, by_the_sites: list[dict]):
    told = fedround("measure", "run", "-c", coordinator, *WANTED)
    assert told.exit_code == 0, told.output
    text = " ".join(told.stdout.split())
    for words in ("Run study, round 0: counted at 3 of 3 sites", "histograms of columns: x1", "below -1", "from 1", "missing",
                  "counts of groups: y", "other", "± 14"):         # 1.96 · 4 · sqrt(3)
        assert words in text, words
    assert len(by_the_sites) == 1
    again = fedround("measure", "run", "-c", coordinator, *WANTED)
    assert "nobody is asked, or charged, again" in again.stdout
    assert len(by_the_sites) == 1
    shown = fedround("measure", "show", "--as", coordinator)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout in again.stdout


def test_a_script_reads_the_signed_numbers(fedround: Fedround, coordinator: Path, by_the_sites: list[dict]):
    (found,) = json.loads(fedround("measure", "run", "-c", coordinator, *WANTED, "--json").stdout)
    assert [total["statistic"]["kind"] for total in found["totals"]] == ["histogram", "group_counts"]
    (histogram, groups) = found["tables"]
    assert [cell["words"] for cell in groups["cells"]] == [["0"], ["1"], ["other"]]
    assert [cell["number"] for cell in histogram["cells"]] == found["totals"][0]["numbers"]
    assert histogram["cells"][0]["plus_minus"] == pytest.approx(1.96 * 4 * 3 ** 0.5)
    assert json.loads(fedround("measure", "show", "study", "--as", coordinator.parent / "north", "--json").stdout) == [found]


def test_who_did_not_answer_is_named(fedround: Fedround, federation: SmallFederation, coordinator: Path):
    (federation.root / "data" / "south" / "train.parquet").unlink()
    concluded(federation, request("study"))
    shown = fedround("measure", "show", "study", "--as", coordinator)
    assert shown.exit_code == 0, (shown.output, shown.exception)
    text = " ".join(shown.stdout.split())
    assert "counted at 2 of 3 sites" in text
    assert "refused south (data)" in text


def test_without_a_coordinators_process_it_says_so(fedround: Fedround, coordinator: Path):
    one_sentence(fedround("measure", "run", "-c", coordinator, *WANTED), "the Prefect API", "does not answer")


def test_the_certificate_says_what_was_found_and_that_the_sites_said_so(fedround: Fedround, federation: SmallFederation,
                                                                       coordinator: Path):
    federation.round("study")
    concluded(federation, request("study"))
    text = " ".join(fedround("verify", "study", "--as", coordinator).stdout.split())
    for words in ("measure", "(x1)", "(y)", "sites said"):
        assert words in text, words
    rounds = json.loads(fedround("verify", "study", "--as", coordinator, "--json").stdout)["rounds"]
    assert [finding["asked"] for finding in rounds[1]["findings"]] == ["measure"]
    assert rounds[0]["findings"] == []
