"""The aggregation's passes on the workers of a Dask cluster, as Prefect tasks: for models that are slow on one machine.

Needs the extra `dask` (`pip install 'fedround[dask]'`), and workers that run the same fedround and read the coordinator's
folder under the same path. The bytes are the same as from one process (`fedround.aggregation.sweep.Sweeper`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from prefect import task
from prefect.cache_policies import NO_CACHE

from fedround.aggregation.rows import Numbers
from fedround.aggregation.sweep import SLAB, Sweeper, Swept, Work, joined, sweep
from fedround.errors import SetupError
from tasks.coordinator import Coordinator

_RANGES_PER_WORKER = 2          # the last range of a slow worker is then half as late


@contextmanager
def sweeper_of(coordinator: Coordinator) -> Iterator[Sweeper | None]:
    """The sweeper that the coordinator's own settings name: a cluster's workers, or None for its own process."""
    settings = coordinator.settings
    if settings.dask is None:
        yield None
        return
    with dask_sweeper(settings.dask, settings.memory_budget_mb << 20) as sweeper:
        yield sweeper


@contextmanager
def dask_sweeper(address: str, memory_budget_bytes: int) -> Iterator[Sweeper]:
    """A sweeper on the cluster whose scheduler listens at `address`. Only inside of a Prefect flow.

    memory_budget_bytes: of each worker.
    Raises SetupError if the extra is missing or nobody listens.
    """
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise SetupError("dask is set in coordinator.toml and not installed: pip install 'fedround[dask]'") from None
    with DaskTaskRunner(address=address, client_kwargs={"timeout": "10s"}) as runner:
        try:
            workers = len(runner.client.scheduler_info()["workers"])
        except OSError:
            raise SetupError(f"no Dask scheduler answers at {address}: start it, or take 'dask' out of "
                             "coordinator.toml") from None

        def over(points: Sequence[Numbers], work: Work, coordinates: int) -> Swept:
            futures = [runner.submit(_sweep_range, parameters={
                "points": points, "work": work, "start": start, "stop": stop, "memory_budget_bytes": memory_budget_bytes})
                       for start, stop in ranges(coordinates, max(1, workers) * _RANGES_PER_WORKER)]
            return joined([future.result() for future in futures])

        yield over


def ranges(coordinates: int, parts: int) -> list[tuple[int, int]]:
    """At most `parts` ranges of whole slabs, of sizes as equal as possible."""
    slabs = -(-coordinates // SLAB)
    cuts = sorted({part * slabs // parts for part in range(parts + 1)})
    return [(low * SLAB, min(high * SLAB, coordinates)) for low, high in pairwise(cuts)]


def sweep_range(points: Sequence[Numbers], work: Work, start: int, stop: int, memory_budget_bytes: int) -> Swept:
    """What one worker does."""
    return sweep(points, work, start, stop, memory_budget_bytes=memory_budget_bytes)


_sweep_range = task(name="sweep", cache_policy=NO_CACHE, persist_result=False, retries=0)(sweep_range)
