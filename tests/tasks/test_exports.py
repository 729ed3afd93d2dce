"""Other tools are told what was committed, once, and nothing else; what goes wrong there is a sentence."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedround.errors import ContractError
from fedround_cli.main import app
from infra.model_registry import ModelRegistry
from tasks import exports
from tasks.exports import export, export_apart, told
from tests.bundled import Bundled
from tests.small_federation import SmallFederation

CANARY = "canary-4711"


@pytest.fixture
def own(bundled: Bundled, tmp_path: Path) -> SmallFederation:
    return bundled.federation.copy(tmp_path / "own")


def test_what_is_told_is_what_is_committed(bundled: Bundled):
    first, second = told(bundled.federation.coordinator, "spring")
    assert (second.parent, second.base_model) == (first.commit, first.model)
    assert [site.outcome for site in first.sites] == ["used"] * 3
    assert 0 < first.sites[0].epsilon < second.sites[0].epsilon
    versions = ModelRegistry.open(bundled.federation.root / "coordinator" / "models").versions()
    assert [one.metrics for one in (first, second)] == [dict(version.metrics) for version in versions]


def test_mlflow_has_a_step_for_every_round_and_the_models_stores_metrics(own: SmallFederation, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    target = f"mlflow=sqlite:///{tmp_path / 'mlflow.db'}"
    assert export(own.coordinator, "spring", (target,)) == {target: 2}
    assert export(own.coordinator, "spring", (target,)) == {target: 0}
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    for one in told(own.coordinator, "spring"):
        for name, value in one.metrics.items():
            steps = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
            assert steps[one.round] == value
    assert run.data.tags["fedround.model"] == told(own.coordinator, "spring")[-1].model


def test_lineage_and_traces_are_lines_that_are_written_once(own: SmallFederation, tmp_path):
    lineage, traces = tmp_path / "lineage.jsonl", tmp_path / "traces.jsonl"
    targets = (f"lineage={lineage}", f"traces={traces}")
    assert set(export(own.coordinator, "spring", targets).values()) == {2}
    assert set(export(own.coordinator, "spring", targets).values()) == {0}
    first, second = told(own.coordinator, "spring")
    events = [json.loads(line) for line in lineage.read_text().splitlines()]
    assert [event["outputs"][0]["name"] for event in events] == [f"models/{first.model}", f"models/{second.model}"]
    assert [len(event["inputs"]) for event in events] == [4, 4]
    spans = [json.loads(line) for line in traces.read_text().splitlines()]
    assert [span["attributes"]["fedround.commit"] for span in spans] == [first.commit, second.commit]
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    assert len(spans[0]["events"]) == 3


def test_nothing_that_anybody_typed_and_no_secret_is_in_any_of_them(own: SmallFederation, tmp_path, monkeypatch):
    """Canaries where words of people and secrets are: rows, notes, card, policy, environment, keys."""
    pytest.importorskip("mlflow")
    coordinator = own.root / "coordinator"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    (coordinator / "card.toml").write_text(f'limits = "{CANARY}"\n')
    for record in (coordinator / "reports" / "spring").glob("*.json"):
        known = json.loads(record.read_bytes())
        known["note"] = CANARY
        for site in known["sites"]:
            site["note"] = CANARY
        record.write_text(json.dumps(known))
    out = tmp_path / "out"
    out.mkdir()
    targets = (f"mlflow=sqlite:///{out / 'mlflow.db'}", f"lineage={out / 'l'}", f"traces={out / 't'}")
    assert set(export(own.coordinator, "spring", targets).values()) == {2}
    written = b"".join(path.read_bytes() for path in out.iterdir())
    secret = (coordinator / "keys" / "identity.pem").read_bytes().splitlines()[1]
    for canary in (CANARY.encode(), secret, str(own.root).encode()):
        assert canary not in written


def test_a_target_that_fails_harms_no_other_and_tells_no_address(own: SmallFederation, tmp_path):
    pytest.importorskip("mlflow")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = f"mlflow=http://user:{CANARY}@127.0.0.1:{nobody.getsockname()[1]}"
        done = export(own.coordinator, "spring", (dead, f"lineage={tmp_path / 'l'}"))
    assert done[f"lineage={tmp_path / 'l'}"] == 2
    assert "failed (" in str(done[dead])
    assert CANARY not in str(done[dead])


def test_wrong_targets_and_runs_are_sentences(own: SmallFederation):
    for target in ("mlflow", "wandb=x", "lineage="):
        with pytest.raises(ContractError, match="expected mlflow=URI"):
            export(own.coordinator, "spring", (target,))
    done = CliRunner().invoke(app, ["models", "export", "spring", "-c", str(own.root / "coordinator")])
    assert (done.exit_code, "say where to" in done.output) == (1, True)
    done = CliRunner().invoke(app, ["models", "export", "summer", "--to", "traces=t", "-c", str(own.root / "coordinator")])
    assert (done.exit_code, "has no committed round" in done.output) == (1, True)


def test_a_round_starts_an_export_that_it_does_not_wait_for_and_that_cannot_fail_it(own: SmallFederation, monkeypatch):
    started = []

    def popen(*line: object, **_: object) -> None:
        started.append(line)
        raise OSError("no more processes")

    monkeypatch.setattr(exports.subprocess, "Popen", popen)
    export_apart(own.coordinator, "spring")
    assert started == []
    path = own.root / "coordinator" / "coordinator.toml"
    path.write_text(path.read_text().replace("exports = []", 'exports = ["lineage=l"]'))
    export_apart(own.coordinator, "spring")
    assert len(started) == 1
