"""What people read about a round: a record, a page that opens offline, a version in the model store."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedround import layout
from fedround.learning.evaluate import Metrics, metrics_from_counts
from fedround.types import Commit, NoPrivacy, Privacy, RecordPrivacy, Rule, Update
from infra.model_registry import ModelRegistry
from tasks.collect import Collected
from tasks.coordinator import Coordinator
from tasks.history import Committed, read_checkpoint
from tasks.plan import Planned
from tasks.reporting import RoundRecord, SiteRow, render_html


def report(coordinator: Coordinator, planned: Planned, collected: Collected, committed: Committed,
           metrics: Metrics | None, seconds: float) -> RoundRecord:
    """Record the round, tag its model, write its page; returns the record.

    The sites' own evaluation of this round's model arrives with the next round's answers: see `record_evaluation`.
    """
    record = _record(coordinator, planned, collected, committed, metrics, seconds)
    record_evaluation(coordinator, planned, collected)
    _register(coordinator, committed.commit, record)
    _write(coordinator, record)
    return record


def record_evaluation(coordinator: Coordinator, planned: Planned, collected: Collected) -> Metrics | None:
    """Add what the sites found about the plan's base model to the record of the round that made it."""
    over_all, per_site = _at_the_sites(collected)
    base = planned.parent.commit.round
    path = _path(coordinator, planned.plan.run, base)
    if base == 0 or not path.exists():
        return over_all
    record = read_record(path)
    rows = tuple(dataclasses.replace(row, local_auc=m.auc, local_rows=m.rows)
                 if (m := per_site.get(row.site)) is not None else row for row in record.sites)
    local = {} if over_all is None else {"sites_auc": over_all.auc, "sites_recall_at_20_fpr": over_all.recall_at_20_fpr}
    _write(coordinator, dataclasses.replace(record, sites=rows, metrics={**record.metrics, **local}))
    return over_all


def records(coordinator: Coordinator, run: str) -> list[RoundRecord]:
    """The run's records so far, by round."""
    return [read_record(path) for path in sorted((coordinator.reports / run).glob("[0-9]*.json"))]


def read_record(path: Path) -> RoundRecord:
    """One record as `report` wrote it."""
    return record_of(json.loads(path.read_bytes()))


def record_of(data: dict[str, Any]) -> RoundRecord:
    """The record that these JSON fields are."""
    sites = tuple(SiteRow(**{**row, "checks": tuple(row["checks"])}) for row in data["sites"])
    return RoundRecord(**{**data, "sites": sites})


def page(coordinator: Coordinator, run: str, number: int) -> Path:
    """Where the round's page is."""
    return _path(coordinator, run, number).with_suffix(".html")


def _at_the_sites(collected: Collected) -> tuple[Metrics | None, dict[str, Metrics | None]]:
    """The plan's base model on the rows that sites hold out, from noised counts: over all sites, and per site."""
    counts = {site: admitted.answer.evaluation for site, admitted in sorted(collected.admitted.items())
              if admitted.answer.evaluation is not None}
    return metrics_from_counts(list(counts.values())), {site: metrics_from_counts([c]) for site, c in counts.items()}


def _record(coordinator: Coordinator, planned: Planned, collected: Collected, committed: Committed,
            metrics: Metrics | None, seconds: float) -> RoundRecord:
    plan, commit = planned.plan, committed.commit
    return RoundRecord(
        federation=plan.federation, run=plan.run, round=plan.round, model=commit.model, parent=commit.base_model,
        rule=_in_words(plan.rule), optimizer=_in_words(plan.optimizer), privacy=_privacy_in_words(plan.privacy),
        quorum=plan.quorum, seconds=seconds,
        epsilon_limit=plan.privacy.epsilon if isinstance(plan.privacy, RecordPrivacy) else None,
        metrics={} if metrics is None else {"auc": metrics.auc, "recall_at_20_fpr": metrics.recall_at_20_fpr},
        sites=tuple(_row(coordinator, site, collected, commit) for site in plan.cohort))


def _row(coordinator: Coordinator, site: str, collected: Collected, commit: Commit) -> SiteRow:
    row = SiteRow(site=site, outcome="missing", note="no answer before the deadline",
                  weight=coordinator.federation.site(site).weight)
    if site in collected.admitted and isinstance(answer := collected.admitted[site].answer, Update):
        numbers = next((update for update in commit.updates if update.site == site), None)
        if numbers is None:      # it came after another process had committed the round
            return row
        return dataclasses.replace(row, outcome="updated", note="", norm=numbers.norm, distance=numbers.distance,
                                   epsilon=answer.epsilon)
    if site in collected.refused:
        refusal, _ = collected.refused[site]
        return dataclasses.replace(row, outcome="refused", note=f"{refusal.reason}: {refusal.detail}",
                                   checks=refusal.checks)
    if site in collected.rejected:
        return dataclasses.replace(row, outcome="rejected", note=collected.rejected[site].reason)
    return row


def _register(coordinator: Coordinator, commit: Commit, record: RoundRecord) -> None:
    model = coordinator.folder / "spool" / f"{commit.model}.safetensors"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(coordinator.store.get(layout.model(commit.model)))
    checkpoint = read_checkpoint(coordinator.store, commit, coordinator.identity.key)
    _registry(coordinator.folder / "models").register(checkpoint, model, record.metrics)
    model.unlink()


@functools.lru_cache(maxsize=1)
def _registry(folder: Path) -> ModelRegistry:
    """One per process: opening costs more than registering."""
    return ModelRegistry.open(folder)


def _write(coordinator: Coordinator, record: RoundRecord) -> None:
    path = _path(coordinator, record.run, record.round)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(dataclasses.asdict(record), indent=1))
    _replace(path.with_suffix(".html"), render_html(_up_to(coordinator, record)))


def _up_to(coordinator: Coordinator, record: RoundRecord) -> Sequence[RoundRecord]:
    return [r for r in records(coordinator, record.run) if r.round <= record.round]


def _path(coordinator: Coordinator, run: str, number: int) -> Path:
    return coordinator.reports / run / f"{number:05d}.json"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def _in_words(value: Rule) -> str:
    parameters = ", ".join(f"{key}={item:g}" for key, item in value.model_dump().items() if key != "name")
    return f"{value.name.replace('_', ' ')}" + (f" ({parameters})" if parameters else "")


def _privacy_in_words(privacy: Privacy) -> str:
    if isinstance(privacy, NoPrivacy):
        return "none: updates leave without noise"
    return (f"record level (add or remove one record of a site), epsilon <= {privacy.epsilon:g} at "
            f"delta {privacy.delta_dp:g} over {privacy.rounds} rounds; DP-SGD, Poisson sampling, PLD accountant")
