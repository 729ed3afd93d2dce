"""Hold the process that trains to what the operator allows: threads and priority at its start, memory and time at work.

Memory: Linux counts the writable memory that the process asks for (RLIMIT_DATA), and refuses more. So a recipe, a model or a
batch that is too big fails before it can hurt the machine. Time, and the hours in which plans may be carried out, are checked
between two steps.
Promised: no plan gets more. Not promised: that code of a recipe which never returns is stopped where it runs in this process
(`site_workers.apart`: elsewhere it is); that the process survives a library which ends it when memory is refused. A service
manager starts it again.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from fedround.errors import SetupError
from fedround.records import Reason
from site_workers.policy import Limits, SitePolicy

_MIB = 1 << 20
_ROOM_MIB = 128
"""Memory that even a small round needs beyond what the process has at its start."""

_RESERVE = 0.1
"""The share of its time that a site keeps for what follows training: encoding, signing, sending."""


def settle_in(limits: Limits, *, trains: bool = True) -> None:
    """Threads and priority of this process, once, at its start. Raises SetupError if its memory is too little to begin with.

    trains: whether models are trained in it; if they are elsewhere, it needs no torch.
    Another number of threads may change the last bit of a sum, so change it between two rounds.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(limits.threads)          # also for the process that judges rows
    from threadpoolctl import threadpool_limits

    if trains:
        import torch

        torch.set_num_threads(limits.threads)
    threadpool_limits(limits.threads)
    os.nice(max(0, limits.nice - os.nice(0)))           # never back up: that would need another right
    if limits.memory_mb is not None and sys.platform == "linux" and (used := _data_mib()) + _ROOM_MIB > limits.memory_mb:
        raise SetupError(f"policy.toml: memory_mb = {limits.memory_mb}, and this process has taken {used} before any "
                         f"training: allow at least {used + _ROOM_MIB}")


@contextmanager
def memory(limits: Limits) -> Iterator[None]:
    """While this lasts, the system gives the process no more than `memory_mb`. Raises MemoryError when it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if limits.memory_mb is not None:
        wanted = limits.memory_mb * _MIB
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" in str(error):       # torch's allocator
            raise MemoryError from None
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextmanager
def confined(limits: Limits) -> Iterator[None]:
    """The same for a process that does one thing and ends: also priority and CPU seconds. Out of time, it is killed."""
    os.nice(limits.nice)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = limits.seconds if hard == resource.RLIM_INFINITY else min(limits.seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted, hard))
    with memory(limits):
        yield


class Guard:
    """What training looks at between two steps: whether to stop, and afterwards why."""

    def __init__(self, policy: SitePolicy, deadline_s: int, cancelled: Callable[[], bool], clock: Callable[[], datetime]):
        """deadline_s: the plan's, as counted from now."""
        self._policy, self._deadline_s, self._cancelled, self._clock = policy, deadline_s, cancelled, clock
        self._began = clock()
        self.over: tuple[Reason, str] | None = None
        """The limit that was reached, in words for the coordinator."""
        self._looked, self._longest_step_s = self._began, 0.0

    def __call__(self) -> bool:
        """Whether to stop now: looked at before a step."""
        self._looked = self._clock()
        return self._is_over(self._looked)

    def is_over(self) -> bool:
        """The same in the middle of a step."""
        return self._is_over(self._clock())

    def _is_over(self, now: datetime) -> bool:
        hours = self._policy.hours
        if (now - self._began).total_seconds() > self._policy.limits.seconds:
            self.over = Reason.LIMITS, f"not done within the {self._policy.limits.seconds} s that one plan may take here"
        elif hours is not None and not hours.open(now):
            self.over = Reason.HOURS, f"not done in time: plans are carried out here {hours}"
        return self.over is not None or self._cancelled()

    def time_is_up(self) -> bool:
        """Called after a step: whether another step, and what follows, might exceed the policy's time or the plan's."""
        now, limit_s = self._clock(), min(self._policy.limits.seconds, self._deadline_s)
        self._longest_step_s = max(self._longest_step_s, (now - self._looked).total_seconds())
        left_s = limit_s - (now - self._began).total_seconds()
        return left_s < max(2 * self._longest_step_s, _RESERVE * limit_s)


def _data_mib() -> int:
    import psutil

    return int(psutil.Process().memory_info().data) // _MIB
