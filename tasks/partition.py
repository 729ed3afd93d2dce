"""On whose rows a run trains, if the federation tells rows apart: chosen once, when the run begins, and never again.

The run's checkpoints name the partition, each plan names it, and `verify` compares them (`tasks.agreed`).
"""

from __future__ import annotations

from datetime import date
from typing import TypeVar

from pydantic import ValidationError

from fedround import layout
from fedround.errors import ContractError
from fedround.records import Commit
from fedround.statistics.partitions import Partition, Recurring
from infra.history import read_checkpoint
from tasks.coordinator import Coordinator
from tasks.requests import NextRoundRequest, TrainingRequest

R = TypeVar("R", bound=NextRoundRequest)


def partition_of(coordinator: Coordinator, commit: Commit) -> Partition | None:
    """The partition of a commit's run; None: it trains on all rows."""
    return read_checkpoint(coordinator.store, commit, coordinator.key).partition


def settled(coordinator: Coordinator, request: R, today: date) -> R:
    """The request with the partition that its run trains on. A new run takes the last that is complete today.

    Raises ContractError if there is none to be had.
    """
    how = coordinator.federation.partitions
    if how is None or request.partition is not None or _known(coordinator, request.run) is not None:
        return request
    return request.model_copy(update={"partition": _complete(how, today)})


def with_its_run(coordinator: Coordinator, request: TrainingRequest, today: date) -> TrainingRequest:
    """The request with a run of its own for its partition, if that was asked for. Raises as `settled`."""
    if not request.one_run_per_partition:
        return request
    how = coordinator.federation.partitions
    if how is None:
        raise ContractError("a run for each partition was asked for, and this federation does not tell rows apart: agree on "
                            "[partitions] in its settings (docs/operating/coordinator.md), or ask for one run")
    name = request.partition or _complete(how, today)
    try:
        return type(request).model_validate(
            request.model_dump() | {"run": f"{request.run}-{name}", "partition": name, "one_run_per_partition": False,
                                    "after": _before(coordinator, request.run, name) if how.continues else request.after})
    except ValidationError:
        raise ContractError(f"'{request.run}-{name}' is too long for the name of a run: ask for a shorter one") from None


def partition_asked(coordinator: Coordinator, request: NextRoundRequest) -> Partition | None:
    """The partition that the run trains on, or will.

    Raises ContractError if the request names another, or nobody names one.
    """
    how = coordinator.federation.partitions
    if how is None:
        if request.partition is not None:
            raise ContractError("this federation does not tell rows apart: agree on [partitions] in its settings "
                                "(docs/operating/coordinator.md), or name no partition")
        return None
    known = _known(coordinator, request.run)
    begun = None if known is None else partition_of(coordinator, known)
    if begun is not None and request.partition not in (None, begun.name):
        raise ContractError(f"run '{request.run}' trains on the rows of {begun.name}, from its first round to its last: for "
                            f"{request.partition} begin a new run")
    if begun is None and request.partition is None:
        raise ContractError("on whose rows? Name a partition, such as --partition 2026-w48")
    return begun if request.partition is None else how.named(request.partition)


def _before(coordinator: Coordinator, prefix: str, name: str) -> str | None:
    """The scheduled run of the newest partition before this one that has a trained model; None: there is none."""
    found = {place[0] for key in coordinator.store.list(layout.RUNS) if (place := layout.parse_commit(key)) is not None}
    earlier = sorted((run for run in found if f"{prefix}-" < run < f"{prefix}-{name}"), reverse=True)
    return next((run for run in earlier if _is_scheduled_and_trained(coordinator, run, prefix)), None)


def _is_scheduled_and_trained(coordinator: Coordinator, run: str, prefix: str) -> bool:
    commit = _known(coordinator, run)
    part = None if commit is None or commit.round == 0 else partition_of(coordinator, commit)
    return part is not None and run == f"{prefix}-{part.name}"


def _complete(how: Recurring, today: date) -> str:
    try:
        return how.complete(today)
    except ValueError as error:
        raise ContractError(f"{error} with --partition") from None


def _known(coordinator: Coordinator, run: str) -> Commit | None:
    """The run's last commit; None: it is new."""
    head = coordinator.head(run)
    return None if head is None else head.commit
