"""The stages of dvc.yaml: train the banks' federation for real, evaluate its model, report.

    python -m fedround_examples.banks.pipeline train|evaluate|fairness|report

Training starts the servers and the thirteen processes, runs the campaign, compares groups, copies out records, groups and the
last model, and stops them. What lies in experiment/ belongs to the experiment; the federation's model store is another one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from fedround_examples.banks.split import HERE, STORY
from fedround_examples.live import set_up

RUN = "experiment"
BUILD = Path("experiment")
CAMPAIGN, MODEL, METRICS, CURVE, REPORT = (
    BUILD / name for name in ("campaign.json", "model.safetensors", "metrics.json", "rounds.csv", "report.html"))
GROUPS, FAIRNESS, GAPS = (BUILD / name for name in ("groups.json", "fairness.json", "gaps.csv"))


def train() -> None:
    """The campaign of params.yaml, with real processes. The servers' data are deleted with the temporary folder."""
    from fedround_cli.campaign import show_campaign
    from fedround_cli.compare_groups import compare_groups
    from flows.one_machine import OneMachine
    from infra.history import read_commit
    from infra.model_registry import ModelRegistry
    from tasks.compare_groups import compared
    from tasks.report import records

    asked = yaml.safe_load(Path("params.yaml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        machine = OneMachine(Path(folder) / "home")
        try:
            machine.start_servers(print)
            set_up(STORY, machine, machine.home / "data", asked["rounds"], asked["epsilon"])
            coordinator = machine.start_processes(lambda _: None)
            asyncio.run(show_campaign(coordinator, "federated-training", {"run": RUN, "rounds": asked["rounds"]}))
            campaign = records(coordinator, RUN)
            last = read_commit(coordinator.store, RUN, campaign[-1].round, coordinator.identity.key).commit
            compare_groups(coordinator, RUN, last.round)
            found = compared(coordinator, last)
            registry = ModelRegistry.open(machine.coordinator / "models")
            MODEL.unlink(missing_ok=True)
            registry.fetch(f"{RUN}/round-{campaign[-1].round:05d}", MODEL)
        finally:
            machine.stop()
    GROUPS.write_text("null" if found is None else found.model_dump_json(indent=1))
    CAMPAIGN.write_text(json.dumps([record.model_dump(mode="json") for record in campaign], indent=1))


def evaluate() -> None:
    """The model on the public test set, from its file, and the campaign's curve for `dvc plots`."""
    import pandas as pd

    from fedround import codec
    from fedround.learning.evaluate import scores
    from fedround.learning.recipe import initial_tensors, load_recipe

    recipe = load_recipe(HERE / "recipe.py")
    test = recipe.encode(pd.read_parquet(BUILD / "banks" / "public_test.parquet"))
    schema = codec.schema_of(initial_tensors(recipe, 0))
    reached = recipe.task.metrics(scores(recipe, codec.decode(MODEL.read_bytes(), schema, str(MODEL)), test))
    campaign = json.loads(CAMPAIGN.read_text())
    spent = max((site["epsilon"] or 0 for site in campaign[-1]["sites"]), default=0)
    METRICS.write_text(json.dumps({"auc": reached.auc, "recall_at_20_fpr": reached.recall_at_20_fpr, "epsilon": spent,
                                   "rounds": len(campaign), **_drift(campaign[-1])}, indent=1))
    curve = [{"round": record["round"], **record["public"]} for record in campaign]
    pd.DataFrame(curve)[["round", "auc", "recall_at_20_fpr"]].to_csv(CURVE, index=False)


def fairness() -> None:
    """The largest gaps between groups for `dvc metrics`, and all gaps with their intervals for `dvc plots`."""
    import pandas as pd

    from fedround.fairness_of_groups import GroupFairness
    from fedround.values import parse

    found = parse(GroupFairness, json.loads(GROUPS.read_text()), str(GROUPS))
    FAIRNESS.write_text(json.dumps(found.numbers(), indent=1))
    pd.DataFrame([{"measure": one.measure, "attribute": one.attribute, "gap": one.value, "low": one.low, "high": one.high}
                  for one in found.gaps]).to_csv(GAPS, index=False)


def _drift(record: dict[str, Any]) -> dict[str, float]:
    from fedround.values import parse
    from tasks.reporting import RoundRecord

    drift = parse(RoundRecord, record, "the last round").drift
    return {} if drift is None else drift.numbers()


def report() -> None:
    """The page of the campaign, from its records."""
    from fedround.values import parse
    from tasks.reporting import RoundRecord, render_html

    REPORT.write_text(render_html([parse(RoundRecord, data, str(CAMPAIGN)) for data in json.loads(CAMPAIGN.read_text())]))


if __name__ == "__main__":
    {"train": train, "evaluate": evaluate, "fairness": fairness, "report": report}[sys.argv[1]]()
