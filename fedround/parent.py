"""Makes a child process end when its parent ends, for any reason: a site that is killed leaves no running child; and when
its parent has no more use for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress

_PARENT = "FEDROUND_PARENT"
_LOADER = "LD_LIBRARY_PATH"
_PR_SET_PDEATHSIG = 1


def as_parent() -> dict[str, str]:
    """What stands in a child's environment: who started it, and where the interpreter's libraries lie, if that is said."""
    return {_PARENT: str(os.getpid()), **({_LOADER: os.environ[_LOADER]} if _LOADER in os.environ else {})}


def end_with_parent(number: signal.Signals = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask Linux for this signal when the parent ends, and end at once if it has ended before that. The child's first line.

    parent: the parent's process id; None: it is read from the environment (`as_parent`). A process that was started by hand
    has none there; then nothing is done.
    """
    expected = int(os.environ.get(_PARENT, "0")) if parent is None else parent
    if expected == 0:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != expected:
        os._exit(1)


def end_now(child: subprocess.Popen[bytes]) -> None:
    """End a child that leads a session, and all that it has started there. It is still to be waited for: until then, its
    number is nobody else's. One that was waited for is left alone.
    """
    if child.returncode is not None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)      # it may not lead a session yet; `child.kill` would wait for it
