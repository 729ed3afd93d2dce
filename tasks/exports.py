"""Report committed rounds to other tools, after the fact.

Nothing here can fail a round: it is called when the round exists, from a process of its own, and an error becomes one
sentence.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from filelock import FileLock

from fedround.aggregation.verdict import Verdict
from fedround.errors import ContractError
from fedround.records import Commit, Plan
from infra import git_history
from infra.exporters.base import Exporter, RoundTold, SiteTold
from infra.exporters.to_lineage import to_lineage
from infra.exporters.to_mlflow import to_mlflow
from infra.exporters.to_traces import to_traces
from infra.history import read_answer, read_commit, read_plan
from infra.model_registry import ModelRegistry
from tasks.coordinator import Coordinator
from tasks.plan import planned_of
from tasks.report import records

_KINDS: dict[str, Callable[[str], Exporter]] = {
    "mlflow": lambda to: partial(to_mlflow, to), "lineage": lambda to: partial(to_lineage, Path(to)),
    "traces": lambda to: partial(to_traces, Path(to))}


def export(coordinator: Coordinator, run: str, targets: tuple[str, ...]) -> dict[str, int | str]:
    """Report all rounds of a run to every target. Says for each target how many rounds were new to it, or the kind of error.

    targets: `mlflow=sqlite:///…`, `mlflow=http://…`, `lineage=FILE`, `traces=FILE`.
    Raises ContractError for any other target, before anything is reported, and if there is no such run.
    """
    exporters = {target: exporter_of(target) for target in targets}
    with FileLock(coordinator.folder / ".exporting"):
        rounds = told(coordinator, run)
        return {target: _tried(exporter, rounds) for target, exporter in exporters.items()}


def export_apart(coordinator: Coordinator, run: str) -> None:
    """The same for the targets of coordinator.toml, in a process that nobody waits for; it writes to logs/exports.log."""
    if not coordinator.settings.exports:
        return
    with suppress(OSError):
        (coordinator.folder / "logs").mkdir(exist_ok=True)
        with (coordinator.folder / "logs" / "exports.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "fedround_cli.main", "models", "export", run, "-c", str(coordinator.folder)],
                env={**os.environ, "OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)


def exporter_of(target: str) -> Exporter:
    """What a target names. Raises ContractError."""
    kind, between, to = target.partition("=")
    if kind not in _KINDS or not between or not to:
        raise ContractError(f"'{kind}' is nothing to export to: expected mlflow=URI, lineage=FILE or traces=FILE")
    return _KINDS[kind](to)


def told(coordinator: Coordinator, run: str) -> list[RoundTold]:
    """Every committed and registered round of the run, in order. Raises ContractError if there is none."""
    registry, known = ModelRegistry.open(coordinator.folder / "models"), {one.round: one for one in records(coordinator, run)}
    metrics = {version.checkpoint.round: version.metrics for version in registry.versions() if version.checkpoint.run == run}
    found = []
    for number in range(1, (coordinator.last_round(run) or 0) + 1):
        if number in metrics and number in known:
            ended_s = git_history.committed_at(registry.root, f"{run}/round-{number:05d}")
            found.append(_told(coordinator, run, number, dict(metrics[number]), ended_s, known[number].seconds))
    if not found:
        raise ContractError(f"run '{run}' has no committed round in the model store: 'fedround models list' shows what is")
    return found


def _told(coordinator: Coordinator, run: str, number: int, metrics: dict[str, float], ended_s: float,
          seconds: float) -> RoundTold:
    head = read_commit(coordinator.store, run, number, coordinator.key)
    commit, plan = head.commit, read_plan(coordinator.store, head.commit, coordinator.key)
    terms = plan.agreed
    return RoundTold(
        federation=commit.federation, run=run, round=number, commit=head.digest, parent=commit.parent or "",
        model=commit.model, base_model=commit.base_model or "", recipe_digest=terms.recipe_digest,
        aggregation=str(terms.aggregation), optimizer=terms.optimizer.name, sites=_sites(coordinator, plan, commit),
        privacy={name: value for name, value in terms.privacy.model_dump(mode="json").items() if not isinstance(value, dict)},
        metrics=metrics, ended_s=ended_s, seconds=seconds, tool_version=commit.tool_version)


def _sites(coordinator: Coordinator, plan: Plan, commit: Commit) -> tuple[SiteTold, ...]:
    planned = planned_of(coordinator.store, coordinator.key, plan, commit.plan or "", read_commit(
        coordinator.store, commit.run, commit.round - 1, coordinator.key))
    used = [SiteTold(site=update.site, outcome="used" if update.verdict is Verdict.USED else "left out",
                     influence=update.influence, size_bytes=update.size_bytes,
                     epsilon=read_answer(coordinator.store, planned.of(update.site).plan, update).epsilon)
            for update in commit.updates]
    others = [*(SiteTold(site=no.site, outcome="refused") for no in commit.refusals),
              *(SiteTold(site=out.site, outcome="not admitted") for out in commit.rejected),
              *(SiteTold(site=site, outcome="no answer") for site in commit.missing)]
    return tuple(sorted([*used, *others], key=lambda one: one.site))


def _tried(exporter: Exporter, rounds: list[RoundTold]) -> int | str:
    try:
        return exporter(rounds)
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed: pip install 'fedround[mlflow,lineage,traces]'"
    except Exception as error:      # of another tool: its words may hold an address with a password
        return f"failed ({type(error).__name__}); the rounds are as they are, run it again"
