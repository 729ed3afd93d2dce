"""Kill a process at every change that it makes to the disk. The changes are found by watching it once, so a new one is tried
without being named anywhere.

A change is what Python tells its audit hooks of, which is before it happens: a file opened for writing, a name taken, linked
or removed, a folder made. And `os.fsync`, before which what was written may be on the disk in part only ("torn"): then the
power failed. Changes by other processes, and writes that nobody syncs, are not seen.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NAMES = {"os.rename": 1, "os.link": 1, "os.symlink": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0,
          "os.chmod": 0, "shutil.rmtree": 0}
"""Events, and which of their arguments says where."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Place:
    """One change: where a process can be killed."""

    what: str
    where: str
    """The file, without what is random in a temporary name."""
    torn: bool = False
    """Half of what was written since the file was opened is lost, as in a power cut."""

    def __str__(self) -> str:
        return f"{self.what} {self.where}" + (", torn" if self.torn else "")


@dataclass
class Watch:
    """Counts the changes below a folder, and kills this very process before one of them."""

    root: Path
    kill_at: int | None = None
    """None: only count."""
    places: list[Place] = field(default_factory=list)
    _length: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        """From now on. There is no end: an audit hook stays until its process ends."""
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if self._is_ours(path):
                self._change("sync", path)
                if os.path.isfile(path):
                    self._change("sync", path, descriptor)
            fsync(descriptor)

        os.fsync = synced
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path, _, flags = arguments
            path = os.path.abspath(os.fsdecode(path))
            if self._is_ours(path) and flags & _WRITING:
                self._length[path] = os.path.getsize(path) if os.path.isfile(path) and not flags & os.O_TRUNC else 0
                self._change("open", path)
        elif event in _NAMES and not isinstance(name := arguments[_NAMES[event]], int):
            path = os.path.abspath(os.fsdecode(name))
            if self._is_ours(path):
                self._change(event.rpartition(".")[2], path)

    def _is_ours(self, path: str) -> bool:
        return path.startswith(f"{self.root}/")

    def _change(self, what: str, path: str, torn: int | None = None) -> None:
        if len(self.places) == self.kill_at:
            if torn is not None:
                before = self._length.get(path, 0)
                os.truncate(torn, before + (os.path.getsize(path) - before) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        self.places.append(Place(what, _without_chance(str(Path(path).relative_to(self.root))), torn is not None))


def _without_chance(where: str) -> str:
    """Temporary names are `.<name>.<chance>`."""
    return "/".join(part.rpartition(".")[0] + ".*" if part.startswith(".") and part.count(".") > 1 else part
                    for part in where.split("/"))


def places(root: Path, work: Callable[[], object]) -> list[Place]:
    """The changes that `work` makes below `root`, done in a process of its own."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        watch = Watch(root)
        _carry_out(watch, work, lambda: os.write(writes, "\n".join(
            f"{one.what}\t{one.where}\t{int(one.torn)}" for one in watch.places).encode()))
    os.close(writes)
    with open(reads) as pipe:
        said = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise AssertionError("it did not work although nobody disturbed it; its traceback is above")
    return [Place(what, where, torn == "1") for what, where, torn in (line.split("\t") for line in said.splitlines())]


def killed_at(number: int, root: Path, work: Callable[[], object]) -> bool:
    """Do `work` in a process of its own, which is killed before its change with this number. False: it had ended before."""
    pid = os.fork()
    if pid == 0:
        _carry_out(Watch(root, number), work)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise AssertionError(f"it failed before it was killed at change {number}; its traceback is above")
    return code != 0


def done(work: Callable[[], object]) -> bool:
    """Do `work` undisturbed, in a process that has just started as far as its memory goes. Whether it worked."""
    pid = os.fork()
    if pid == 0:
        _carry_out(None, work)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _carry_out(watch: Watch | None, work: Callable[[], object], after: Callable[[], object] = lambda: None) -> None:
    status = 1
    try:
        if watch is not None:
            watch.begin()
        work()
        after()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
