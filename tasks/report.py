"""What people read about a round: a record, a page that opens offline, a version in the model store."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedround import codec, layout
from fedround.aggregation.engine import estimates_distances
from fedround.aggregation.verdict import Verdict
from fedround.agreement import Reputation
from fedround.errors import TrustError
from fedround.files import write_whole
from fedround.learning.evaluate import Metrics, metrics_from_counts
from fedround.privacy.spec import NoPrivacy, Privacy, SitePrivacy
from fedround.signing import digest
from fedround.types import Commit, TensorSpec, Update
from fedround.values import Value
from infra.history import Committed, read_checkpoint, read_named
from infra.model_registry import ModelRegistry
from tasks.collect import Collected
from tasks.coordinator import Coordinator
from tasks.plan import Planned
from tasks.reporting import RoundRecord, SiteRow, render_html
from tasks.reporting.heatmap import MOST_SITES


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
    over_all, per_site = _at_the_sites(collected, coordinator.recipe.classes)
    base = planned.parent.commit.round
    path = _path(coordinator, planned.plan.run, base)
    if base == 0 or not path.exists():
        return over_all
    record = read_record(path)
    rows = tuple(dataclasses.replace(row, local_auc=m.auc, local_accuracy=m.accuracy, local_rows=m.rows)
                 if (m := per_site.get(row.site)) is not None else row for row in record.sites)
    local = {} if over_all is None else {f"sites_{name}": value for name, value in over_all.known().items()}
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
    distances = tuple(tuple(row) for row in data["distances"])
    return RoundRecord(**{**data, "sites": sites, "near": tuple(data["near"]), "distances": distances})


def page(coordinator: Coordinator, run: str, number: int) -> Path:
    """Where the round's page is."""
    return _path(coordinator, run, number).with_suffix(".html")


def _at_the_sites(collected: Collected, classes: int) -> tuple[Metrics | None, dict[str, Metrics | None]]:
    """The plan's base model on the rows that sites hold out, from noised counts: over all sites, and per site."""
    counts = {site: admitted.answer.evaluation for site, admitted in sorted(collected.admitted.items())
              if admitted.answer.evaluation is not None}
    return (metrics_from_counts(list(counts.values()), classes),
            {site: metrics_from_counts([own], classes) for site, own in counts.items()})


def _record(coordinator: Coordinator, planned: Planned, collected: Collected, committed: Committed,
            metrics: Metrics | None, seconds: float) -> RoundRecord:
    plan, commit = planned.plan, committed.commit
    return RoundRecord(
        federation=plan.federation, run=plan.run, round=plan.round, model=commit.model, parent=commit.base_model,
        aggregation=str(plan.aggregation), optimizer=_in_words(plan.optimizer),
        training=_in_words(plan.training), compression="none" if plan.compression is None else _in_words(plan.compression),
        uploaded_bytes=sum(update.size_bytes for update in commit.updates), privacy=_privacy_in_words(plan.privacy),
        quorum=plan.quorum, seconds=seconds,
        epsilon_limit=None if isinstance(plan.privacy, NoPrivacy) else plan.privacy.epsilon,
        metrics={} if metrics is None else metrics.known(),
        reputation=_reputation_in_words(coordinator.federation.reputation), note=commit.note,
        **_distances(coordinator, commit), estimated=estimates_distances(plan.aggregation, codec.coordinates(plan.tensors)),
        sites=tuple(_row(coordinator, site, collected, commit) for site in plan.cohort) + tuple(
            SiteRow(site=out.site, outcome="excluded", note=f"{out.reason}; asked again in round {out.until}",
                    weight=coordinator.federation.site(out.site).weight) for out in plan.excluded))


def _distances(coordinator: Coordinator, commit: Commit) -> dict[str, Any]:
    """Pairwise distances from what the commit names; nothing for cohorts that no reader could look through."""
    near = tuple(update.site for update in commit.updates if update.verdict not in (Verdict.NOT_FINITE, Verdict.NORM))
    if commit.distances is None or len(near) > MOST_SITES:
        return {}
    schema = (TensorSpec(name="distances", shape=(len(near), len(near))),)
    source = f"distances of round {commit.round}"
    body = coordinator.store.get(layout.memory(commit.distances), max_bytes=codec.size_bytes(schema))
    if digest(body) != commit.distances:
        raise TrustError(f"{source}: the stored bytes do not have the digest that names them")
    distances_NN = codec.decode(body, schema, source)["distances"]
    return {"near": near, "distances": tuple(tuple(float(f"{distance:.4g}") for distance in row_N) for row_N in distances_NN)}


def _row(coordinator: Coordinator, site: str, collected: Collected, commit: Commit) -> SiteRow:
    row = SiteRow(site=site, outcome="missing", note="no answer before the deadline",
                  weight=coordinator.federation.site(site).weight)
    if site in collected.admitted and isinstance(answer := collected.admitted[site].answer, Update):
        numbers = next((update for update in commit.updates if update.site == site), None)
        if numbers is None:      # it came after another process had committed the round
            return row
        used = numbers.verdict is Verdict.USED
        return dataclasses.replace(row, outcome="updated" if used else "left_out", note=numbers.reason,
                                   verdict=numbers.verdict, norm=numbers.norm, distance=numbers.distance,
                                   influence=numbers.influence, epsilon=answer.epsilon)
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
    checkpoint = read_checkpoint(coordinator.store, commit, coordinator.identity.key)
    model.write_bytes(read_named(
        coordinator.store, layout.model(commit.model), commit.model, f"model of round {commit.round}", by="commit",
        max_bytes=checkpoint.model.size_bytes))
    _registry(coordinator.folder / "models").register(checkpoint, model, record.metrics)
    model.unlink()


@functools.lru_cache(maxsize=1)
def _registry(folder: Path) -> ModelRegistry:
    """One per process: opening costs more than registering."""
    return ModelRegistry.open(folder)


def _write(coordinator: Coordinator, record: RoundRecord) -> None:
    path = _path(coordinator, record.run, record.round)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(dataclasses.asdict(record), indent=1).encode(), durable=True)
    write_whole(path.with_suffix(".html"), render_html(_up_to(coordinator, record)).encode(), durable=True)


def _up_to(coordinator: Coordinator, record: RoundRecord) -> Sequence[RoundRecord]:
    return [r for r in records(coordinator, record.run) if r.round <= record.round]


def _path(coordinator: Coordinator, run: str, number: int) -> Path:
    return coordinator.reports / run / f"{number:05d}.json"


def _in_words(value: Value) -> str:
    """`fedprox (mu=0.1)`: a value with a name by its name, what is not agreed left out."""
    said = ", ".join(f"{key}={_item(getattr(value, key))}" for key in type(value).model_fields
                     if key != "name" and getattr(value, key) is not None)
    name = getattr(value, "name", "").replace("_", " ")
    return f"{name} ({said})" if name and said else name or said


def _item(item: object) -> str:
    return _in_words(item) if isinstance(item, Value) else f"{item:g}" if isinstance(item, float) else str(item)


def _reputation_in_words(policy: Reputation | None) -> str:
    if policy is None:
        return "off: every member is asked in every round"
    return (f"who is left out of {policy.exclude_after} of {policy.window} rounds sits out {policy.exclude_for}, and is then "
            "asked again")


def _privacy_in_words(privacy: Privacy) -> str:
    if isinstance(privacy, NoPrivacy):
        return "none: updates leave without noise"
    budget = f"epsilon <= {privacy.epsilon:g} at delta {privacy.delta_dp:g} over {privacy.rounds} rounds"
    if isinstance(privacy, SitePrivacy):
        return f"site level (all that a site contributes, or nothing), {budget}; update clipped and noised, PLD accountant"
    how = "DP-FTRL, fixed order" if privacy.mechanism == "dp_ftrl" else "DP-SGD, Poisson sampling"
    adaptive = "" if privacy.adaptive is None else f", clip norm at quantile {privacy.adaptive.quantile:g}"
    return f"record level (one record of a site, or nothing), {budget}; {how}{adaptive}, PLD accountant"
