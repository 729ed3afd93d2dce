"""Computing a committed round again from the sites' stored tensors, and comparing every byte with what was committed.

Signatures prove who said what; this proves that the model is what the updates, the agreed rule and the server's step make of
each other. It is the coordinator's own code (`aggregate.combine`, `step.take_step`) on an auditor's bench. Memory is bounded
as the coordinator's is; updates are brought to local disk, one round at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedround import codec
from fedround.aggregation.spec import CenteredClipping, FLTrust
from fedround.agreement import Federation
from fedround.errors import ChainError, FedroundError
from fedround.signing import digest
from fedround.types import Commit, CommittedUpdate, Update
from infra.history import read_tensors
from infra.stores import ObjectStore
from tasks import memory, spool
from tasks.aggregate import Aggregated, combine
from tasks.plan import Planned
from tasks.publish import committed
from tasks.rows import row_of
from tasks.step import take_step
from tasks.weights import to_commit, weights_of

_NOT = "is not what the stored updates, the plan's rule and the server's step give"


@dataclass(frozen=True)
class Bench:
    """An auditor's folder for one round's tensors, which is emptied after each, and how much memory the work may take."""

    folder: Path
    store: ObjectStore
    memory_budget_bytes: int = 64 << 20


def recompute(bench: Bench, planned: Planned, commit: Commit, members: Federation, answers: Mapping[str, Update]) -> str:
    """Compute the round again; returns why it could not be, or nothing if every byte is as committed.

    answers: every update that the commit names, proven.
    Raises ChainError that names the first thing that differs. A model that differs in last bits only may come from another
    kind of processor or another numpy than the coordinator's; the message says by how much.
    """
    if isinstance(planned.plan.aggregation.rule, FLTrust):
        return "fltrust compares with an update that the coordinator computes on rows of its own"
    source = f"round {commit.round} of run '{commit.run}'"
    try:
        weights = weights_of(planned.plan, planned.parent.commit, members, answers)
        if commit.weights != to_commit(planned.plan, weights):
            raise ChainError(f"commit of {source}: names other weights than the sites' answers give")
        rows = [row_of(bench, planned, update, weights[site]) for site, update in sorted(answers.items())]
        done = combine(bench, planned, rows, None, bench.memory_budget_bytes)
        stepped = take_step(bench.store, planned.plan, planned.parent.commit, done.result, weights)
        if digest(stepped.model) != commit.model:
            raise ChainError(f"the model of {source} {_NOT}{_how_far(bench, planned, commit, stepped.model)}")
        for what, name, blob in (("optimizer state", commit.optimizer_state, stepped.state),
                                 ("control variate", commit.control, stepped.control)):
            _same(name, blob, f"the {what} of {source}")
        _check_said(planned, commit, members, answers, done, source)
    finally:
        spool.clear(bench, planned)
        shutil.rmtree(bench.folder / "spool", ignore_errors=True)
    return ""


def _check_said(planned: Planned, commit: Commit, members: Federation, answers: Mapping[str, Update], done: Aggregated,
                source: str) -> None:
    """What the commit says of every update, and what the coordinator remembers."""
    result = done.result
    for update in commit.updates:
        again = committed(answers[update.site], update.answer, members.site(update.site).weight,
                          result.standings[update.site])
        if again != update:
            raise ChainError(f"commit of {source}: says of '{update.site}' {_difference(update, again)}: computed again from "
                             "the stored updates, it is otherwise")
    if commit.note != result.note[:1000]:
        raise ChainError(f"commit of {source}: its note of the gate is another than the stored updates give")
    _same(commit.distances, codec.encode({"distances": result.distances_NN.astype(np.float32)}), f"the distances of {source}")
    if isinstance(planned.plan.aggregation.rule, CenteredClipping):
        _same(commit.centre, codec.encode({"centre": result.delta_D}), f"the centre of {source}")
    if commit.memory != memory.remain(planned, done.remembered, result.standings):
        raise ChainError(f"commit of {source}: remembers other averages of the sites than their stored updates give")


def _difference(said: CommittedUpdate, again: CommittedUpdate) -> str:
    return ", ".join(f"{name} {getattr(said, name)}" for name in CommittedUpdate.model_fields
                     if getattr(said, name) != getattr(again, name))


def _same(name: str | None, again: bytes | None, source: str) -> None:
    if name != (None if again is None else digest(again)):
        raise ChainError(f"{source} {_NOT}")


def _how_far(bench: Bench, planned: Planned, commit: Commit, again: bytes) -> str:
    """How much the model that was committed differs from the one that was computed, against the step that was taken."""
    schema = planned.plan.tensors
    try:
        said_D, base_D = (codec.flatten(read_tensors(bench.store, name, schema, "model"))
                          for name in (commit.model, planned.plan.base_model))
    except FedroundError:
        return "; it is not even a model of this plan"
    again_D = codec.flatten(codec.decode(again, schema, "model"))
    far, step = np.linalg.norm(said_D - again_D), np.linalg.norm(again_D - base_D)
    return (f": {np.count_nonzero(said_D != again_D)} of {len(again_D)} numbers differ, together by {far:.3g} where the step "
            f"is {step:.3g} long")
