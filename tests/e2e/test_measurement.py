"""A measurement with real servers and processes: from the command line to every site and back, and into the UI."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from infra.settings import load_toml, save_toml
from site_workers.policy import SitePolicy
from tests.e2e.conftest import Federation

pytestmark = pytest.mark.stack

ASKS = ("--histogram", "x1=-1,0,1", "--top", "y=0,1", "--mean", "x1=-9:9", "--noise", "2", "--json")


@pytest.fixture
def two_measure(real: Federation) -> Iterator[None]:
    """North and east allow measurements, for as long as the test takes; south does not."""
    before = {}
    for name in ("north", "east"):
        path = real.machine.site(name) / "policy.toml"
        before[path] = path.read_text()
        save_toml(load_toml(SitePolicy, path).model_copy(update={
            "purposes": ("train", "evaluate", "measure"),
            "statistics": ("scores", "checks", "histograms", "group_counts", "moments", "importance"),
        }), path, "measures, too")
    yield
    for path, text in before.items():
        path.write_text(text)


def measure(real: Federation, run: str) -> dict:
    done = real.here("ask", "-c", real.machine.coordinator, "--run", run, *ASKS)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_a_question_goes_to_every_site_and_its_answer_into_the_ui(real: Federation, run: str, two_measure: None):
    found = measure(real, run)
    assert [told["site"] for told in found["answers"]] == ["east", "north"]
    assert [(no["site"], no["reason"]) for no in found["refusals"]] == [("south", "policy")]
    means, histogram, groups = found["tables"]
    rows = 300 + 200 + 2 * 400
    assert sum(one["value"] for one in histogram["estimates"]) == pytest.approx(rows, abs=50)
    assert sum(one["value"] for one in groups["estimates"]) == pytest.approx(rows, abs=50)
    records, mean, _ = means["estimates"]
    assert records["low"] - 50 < rows < records["high"] + 50
    assert -1 < mean["low"] < mean["value"] < mean["high"] < 1
    for name, charges in (("north", 1), ("east", 1), ("south", 0)):
        assert len(real.charges(name, run)) == charges
    assert real.site_run(run, "north", 0, "measure").state.is_completed()

    async def artifacts(client):
        return await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[f"measured-{run}"])))

    (shown,) = real.ask(artifacts)
    assert "counted at 2 of 3 sites" in shown.data

    assert measure(real, run) == found, "nobody is asked again"
    assert len(real.charges("north", run)) == 1
    proven = real.here("verify", run, "--as", real.machine.coordinator)
    assert proven.exit_code == 0, proven.stderr


def test_which_columns_matter_is_asked_about_a_model_and_told_with_what_public_rows_say(
        real: Federation, run: str, two_measure: None):
    assert real.ended(real.start("federated-training", run=run, rounds=1)).state.is_completed()
    wanted = ("models", "explain", f"{run}/round-00001", "-c", real.machine.coordinator, "--at-sites", "--noise", "4",
              "--json")
    done = real.works(*wanted)
    told = json.loads(done)
    assert told["at_sites"]["sites"] == 2
    assert {one["column"] for one in told["at_sites"]["drops"]} == {"x1", "x2"}
    assert {one["column"] for one in told["importance"]} == {"x1", "x2"}
    assert [one["charge"]["purpose"] for one in real.charges("north", run)].count("measure") == 1
    assert json.loads(real.here(*wanted).stdout) == told, "nobody is asked again"


def test_a_form_that_asks_for_nonsense_is_refused_by_name(real: Federation):
    request = {"run": "nonsense", "statistics": [{"kind": "histogram", "column": "x1", "edges": [2, 1], "noise_std": 1.0}]}
    ended = real.ended(real.start("federated-measurement", **request))
    assert ended.state.is_failed()
    assert "edges must ascend" in ended.state.message
