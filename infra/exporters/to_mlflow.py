"""MLflow: an experiment for the federation, a run for the run, a step for every round. Needs the extra `mlflow`."""

from __future__ import annotations

import os
from typing import Any

from infra.exporters.base import RoundTold


def to_mlflow(uri: str, rounds: list[RoundTold]) -> int:
    """uri: of the tracking store, `sqlite:///…` or `http://…`. What is there already stays."""
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    for name, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")):
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client, first = MlflowClient(tracking_uri=uri), rounds[0]
    run_id = _run(client, first)
    known = {metric.step for metric in client.get_metric_history(run_id, "round")}
    new = [told for told in rounds if told.round not in known]
    for told in new:
        at_ms = int(told.ended_s * 1000)
        client.log_batch(
            run_id, metrics=[Metric(name, value, at_ms, told.round) for name, value in told.numbers().items()],
            params=[Param(name, value) for name, value in _agreed(told).items()] if told is first else [],
            tags=[RunTag("fedround.model", told.model), RunTag("fedround.commit", told.commit)])
    return len(new)


def _run(client: Any, told: RoundTold) -> str:
    experiment = client.get_experiment_by_name(told.federation)
    number = client.create_experiment(told.federation) if experiment is None else experiment.experiment_id
    found = client.search_runs([number], f"tags.`fedround.run` = '{told.run}'", max_results=1)
    run = found[0] if found else client.create_run(number, run_name=told.run, tags={"fedround.run": told.run})
    return str(run.info.run_id)


def _agreed(told: RoundTold) -> dict[str, str]:
    return {"recipe_digest": told.recipe_digest, "aggregation": told.aggregation[:500], "optimizer": told.optimizer[:500],
            **{f"privacy_{name}": str(value) for name, value in told.privacy.items()}}
