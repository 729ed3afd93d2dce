"""One pass over all updates: read ahead, work on chunks, add up in a fixed order.

Legend: P vectors of numbers (updates, the coordinator's own), C coordinates of a chunk, S slabs.

Work is done on chunks whose size follows from P alone. What chunks yield is added up chunk by chunk within a slab of 2^20
coordinates, and slab by slab. So no sum depends on how much was read at once, on the number of threads, or on the number of
machines. Slabs that were swept elsewhere and are joined in order give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Protocol

import numpy as np
from threadpoolctl import ThreadpoolController

from fedround.aggregation.rows import Coordinates, Floats, Numbers

SLAB = 1 << 20
"""Coordinates whose sums are kept apart; a sweep may begin and end at multiples of it."""

_LONGEST_READ = 1 << 15
"""Coordinates: an eighth of a megabyte per update. Longer reads gain nothing, and leave the processor's cache."""

Kernel = Callable[[Coordinates, Coordinates], Floats]
"""Takes a chunk x_PC (finite or not; not to be written to), fills out_C if the work writes, yields what is to be added up."""


class Work(Protocol):
    """The work to do on every chunk: a value that can be sent to another process."""

    @property
    def writes(self) -> bool:
        """Whether it computes a number for every coordinate."""

    def kernel(self, chunk: int) -> Kernel:
        """A function with scratch space for chunks of at most `chunk` coordinates; each thread has its own."""

    def scratch_bytes(self, chunk: int) -> int:
        """How much space that is."""


def chunk_of(points: int) -> int:
    """How many coordinates are worked on at once: few enough to stay in the cache, enough for long vector loops."""
    return 8192 if points <= 72 else 4096


@dataclass(frozen=True, eq=False)
class Swept:
    """What a sweep found between two coordinates."""

    slabs: Floats
    """One sum per slab, (S, ...)."""
    out_D: Coordinates
    """A number for each coordinate; empty if the work writes none."""


class Sweeper(Protocol):
    """What goes over all coordinates of the points: this process, or many.

    The same bytes come out if each range that begins at a multiple of SLAB is given to `sweep`, wherever, and the parts
    are `joined`. Points and work can be pickled; the points must be readable there.
    """

    def __call__(self, points: Sequence[Numbers], work: Work, coordinates: int) -> Swept:
        """Do the work from coordinate 0 to the last."""


def sweep(points: Sequence[Numbers], work: Work, start: int, stop: int, *, memory_budget_bytes: int,
          threads: int = 1) -> Swept:
    """Do `work` on the coordinates from `start` (a multiple of SLAB) to `stop`.

    Memory: within the budget, which covers two blocks that are read and each thread's scratch; but one chunk at least.
    What is written comes on top. BLAS has one thread meanwhile: the threads are here.
    """
    chunk = chunk_of(len(points))
    room = memory_budget_bytes - threads * work.scratch_bytes(chunk)
    block = min(max(room // (8 * len(points)) // chunk, 1) * chunk, _LONGEST_READ)
    spans = [(low, min(low + block, slab + SLAB, stop)) for slab in range(start, stop, SLAB)
             for low in range(slab, min(slab + SLAB, stop), block)]
    kernels = [work.kernel(min(chunk, stop - start)) for _ in range(threads)]
    out_D = np.empty(stop - start if work.writes else 0, np.float32)
    slabs: dict[int, Floats] = {}
    with one_blas_thread(), ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads)) if threads > 1 else None
        for low, x_PB in _read_ahead(points, spans, stack):
            for part in _on_chunks(kernels, x_PB, out_D[low - start:low - start + x_PB.shape[1]], chunk, pool):
                if low // SLAB in slabs:
                    slabs[low // SLAB] += part
                else:
                    slabs[low // SLAB] = part.copy()
    return Swept(np.stack(list(slabs.values())), out_D)


def joined(parts: Sequence[Swept]) -> Swept:
    """Sweeps of neighbouring ranges, in their order, as one."""
    return Swept(np.concatenate([part.slabs for part in parts]), np.concatenate([part.out_D for part in parts]))


def total(slabs: Floats) -> Floats:
    """The sum over slabs, in their order."""
    result: Floats = slabs[0].copy()
    for part in slabs[1:]:
        result += part
    return result


def one_blas_thread() -> AbstractContextManager[Any]:
    """BLAS threads wait for each other by spinning. On a busy machine two of them use ten times the CPU time of one."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _read_ahead(points: Sequence[Numbers], spans: Sequence[tuple[int, int]],
                stack: ExitStack) -> Iterator[tuple[int, Coordinates]]:
    """Every span's first coordinate and numbers, while the next one is being read."""
    width = max(high - low for low, high in spans)
    buffers = [np.empty((len(points), width), np.float32) for _ in spans[:2]]

    def read(turn: int) -> Coordinates:
        low, high = spans[turn]
        x_PB = buffers[turn % 2][:, :high - low]
        for point, out_B in zip(points, x_PB, strict=True):
            point.read(low, out_B)
        return x_PB

    reader = stack.enter_context(ThreadPoolExecutor(1)) if len(spans) > 1 else None
    coming = None
    for turn, (low, _) in enumerate(spans):
        x_PB = read(turn) if coming is None else coming.result()
        coming = reader.submit(read, turn + 1) if reader is not None and turn + 1 < len(spans) else None
        yield low, x_PB


def _on_chunks(kernels: Sequence[Kernel], x_PB: Coordinates, out_B: Coordinates, chunk: int,
               pool: ThreadPoolExecutor | None) -> Iterator[Floats]:
    """What each chunk of a block yields, in order."""
    cuts = range(0, x_PB.shape[1], chunk)

    def share(turn: int) -> list[Floats]:
        with np.errstate(all="ignore"):      # rows that are not finite are looked for later; errstate holds for one thread
            return [kernels[turn](x_PB[:, cut:cut + chunk], out_B[cut:cut + chunk]).copy()
                    for cut in islice(cuts, turn, None, len(kernels))]

    shares = list((map if pool is None else pool.map)(share, range(len(kernels))))
    return (shares[turn % len(shares)][turn // len(shares)] for turn in range(len(cuts)))
