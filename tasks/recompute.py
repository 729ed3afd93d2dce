"""Computing a committed round again from the sites' stored tensors, and comparing every byte with what was committed.

Signatures prove who said what. This proves that the model follows from the updates, the agreed rule and the server's step. It
runs the coordinator's own code (`aggregate.combine`, `step.take_step`) at an auditor's place. Memory is bounded as the
coordinator's is. Updates are brought to local disk, one round at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedround import codec
from fedround.aggregation.rows import Numbers
from fedround.errors import ChainError, FedroundError, StoreDeniedError
from fedround.federation import Federation
from fedround.records import Answer, Blob, Commit, CommittedUpdate, Told
from fedround.rounds.clusters import picked_in
from fedround.rounds.tickets import ticket_of
from fedround.signing import digest
from infra.documents import read_tensors
from infra.stores import ObjectStore
from tasks.aggregate import Aggregated, combine, of_sum
from tasks.memory import Shelf
from tasks.plan import Planned
from tasks.prove_regions import again_by_region, check_regions
from tasks.prove_sum import prove_sum
from tasks.publish import committed
from tasks.rows import row_of
from tasks.step import take_step
from tasks.weights import loss_of, to_commit, weights_of

_NOT = "is not what the stored updates, the plan's rule and the server's step give"


@dataclass(frozen=True)
class Bench:
    """An auditor's folder for one round's tensors, which is emptied after each, and how much memory the work may take."""

    folder: Path
    store: ObjectStore
    memory_budget_bytes: int = 64 << 20


def recompute(bench: Bench, key: str, planned: Planned, commit: Commit, members: Federation,
              answers: Mapping[str, Answer], also: Callable[[Aggregated], None] = lambda _: None) -> str:
    """Compute the round again; returns why it could not be, or nothing if every byte is as committed.

    key: the coordinator's. answers: every update that the commit names, proven. also: is given what was aggregated, while its
    rows can be read.
    Raises ChainError that names the first thing that differs. A model that differs in last bits only may come from another
    kind of processor or another numpy than the coordinator's; the message says by how much.
    """
    if (rule := planned.plan.agreed.aggregation.rule).needs_root:
        return f"{rule.name} compares with an update that the coordinator computes on rows of its own"
    source = f"round {commit.round} of run '{commit.run}'"
    try:
        weights = weights_of(planned, members, answers)
        if commit.weights != to_commit(planned.plan, weights):
            raise ChainError(f"commit of {source}: names other weights than the sites' answers give")
        check_regions(bench, planned, members, commit, answers)
        if planned.plan.asks.slot is not None:
            done = _of_sum(bench, planned, members, key, commit, answers, weights)
        elif planned.plan.by_region:
            done = again_by_region(bench, planned, commit, answers, weights)
        else:
            done = again(bench, planned, answers, weights)
        stepped = take_step(bench.store, planned, done)
        if digest(stepped.model) != commit.model:
            raise ChainError(f"the model of {source} {_NOT}{_how_far(bench, planned, commit, stepped.model)}")
        if commit.state != stepped.state:
            raise ChainError(f"the {_other(commit.state, stepped.state)} of {source} {_NOT}")
        _check_said(planned, commit, members, answers, done, source)
        also(done)
    finally:
        clear(bench)
    return ""


def _of_sum(bench: Bench, planned: Planned, members: Federation, key: str, commit: Commit, answers: Mapping[str, Answer],
            weights: Mapping[str, float]) -> Aggregated:
    """What the sum of the masked vectors gives, its masks taken off again."""
    told = [Told(site=one.site, answer=one.answer) for one in commit.updates]
    found = prove_sum(bench.store, key, members, planned, commit.sum, told, answers).sum
    if found is None:
        raise StoreDeniedError(f"{planned.in_words}: what takes the masks off its sum may not be read here, or is gone")
    return of_sum(planned, found, answers, weights, Shelf(bench, planned))


def again(bench: Bench, planned: Planned, answers: Mapping[str, Answer], weights: Mapping[str, float],
          root: Numbers | None = None) -> Aggregated:
    """What the plan makes of the updates in these answers. They lie on the bench until it is cleared."""
    rows = [row_of(bench, planned, site, answer.update, weights[site])
            for site, answer in sorted(answers.items()) if answer.update is not None]
    return combine(bench, planned, rows, weights, root, bench.memory_budget_bytes, answers)


def clear(bench: Bench) -> None:
    """Drop what lies there."""
    shutil.rmtree(bench.folder / "spool", ignore_errors=True)


def _check_said(planned: Planned, commit: Commit, members: Federation, answers: Mapping[str, Answer], done: Aggregated,
                source: str) -> None:
    """What the commit says of every update, and what the coordinator remembers."""
    for said in commit.updates:
        answer, weight = answers[said.site], members.site(said.site).weight
        again = None if answer.payload is None else committed(
            answer, answer.payload, said.answer, weight, done.result.standings[said.site], loss_of(planned, members, answer),
            ticket_of(planned.plan, said.site), picked_in(planned.plan, answer))
        if again != said:
            raise ChainError(f"commit of {source}: says of '{said.site}' {_difference(said, again)}: computed again from "
                             "the stored updates, it is otherwise")
    if commit.note != done.result.note[:1000]:
        raise ChainError(f"commit of {source}: its note of the gate is another than the stored updates give")
    if commit.memory != done.memory:
        raise ChainError(f"commit of {source}: remembers other averages of the sites than their stored updates give")


def _other(said: tuple[Blob, ...], again: tuple[Blob, ...]) -> str:
    """The names of the parts of the state that differ."""
    return " and ".join(dict.fromkeys(f"'{blob.name}'" for blob in (*said, *again)
                                      if (blob in said) != (blob in again))) or "order of the state"


def _difference(said: CommittedUpdate, again: CommittedUpdate | None) -> str:
    return ", ".join(f"{name} {getattr(said, name)}" for name in CommittedUpdate.model_fields
                     if getattr(said, name) != getattr(again, name, None))


def _how_far(bench: Bench, planned: Planned, commit: Commit, again: bytes) -> str:
    """How far the committed model is from the computed one, compared with the step that was taken."""
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
