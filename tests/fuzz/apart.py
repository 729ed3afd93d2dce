"""A forked process for what may not end: the kernel stops it, and what it was busy with is known."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

MOST_CPU_S = 60
"""Of processor time, whatever else the machine does. An input takes a few thousandths of a second, or for ever."""


def apart(judge: Callable[[Path], bool], paths: Sequence[Path], most_cpu_s: int = MOST_CPU_S) -> dict[str, str]:
    """What `judge` says of each file, by name; of the one that ended the process, how; of those behind it, nothing."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (most_cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXCPU, signal.SIG_DFL)
            for path in paths:
                os.write(writing, f"\n{path.name}\t".encode())
                os.write(writing, _said(judge, path).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, errors="replace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    verdicts = dict(line.partition("\t")[::2] for line in said.splitlines() if line)
    if os.WIFSIGNALED(status):
        verdicts[list(verdicts)[-1]] = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return verdicts


def _said(judge: Callable[[Path], bool], path: Path) -> str:
    try:
        return str(judge(path))
    except BaseException:       # of whatever kind: it is what the test is about
        return traceback.format_exc().replace("\n", " | ").replace("\t", " ")
