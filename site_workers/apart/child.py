"""One process that answers, and what ends it: time, a cancelled run, an answer of another form, or whoever has no more use
for it.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache

from fedround import sandbox
from fedround.errors import Cancelled, ContractError
from fedround.parent import end_now
from fedround.sandbox import Sandbox
from fedround.spoken import one_line, visible
from site_workers.apart import wire
from site_workers.apart.wire import Array, Forms, Said

_LOOK_S = 0.2
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031           # F_SETPIPE_SZ
_WORDS = 4000

Watch = Callable[[], bool]
"""Whether to stop: looked at while one waits."""


class Child:
    """A process with a recipe in it. `call` asks it one thing after the other."""

    def __init__(self, name: str, arguments: Sequence[str], allowed: Sandbox, threads: int):
        """name: of the recipe, for messages. arguments: of `guest`."""
        self._name = name
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                       **{one: os.environ[one] for one in ("LD_LIBRARY_PATH",) if one in os.environ},
                       **{one: str(threads) for one in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}}
        command = sandbox.command(allowed, [sys.executable, "-P", "-m", "site_workers.apart.guest", *arguments])
        self._process = _starter(os.getpid()).submit(lambda: subprocess.Popen(
            command, env=environment, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, bufsize=0)).result()
        for stream in (self._process.stdin, self._process.stdout):
            os.set_blocking(stream.fileno(), False)  # type: ignore[union-attr]
            with suppress(OSError):         # more than this user may have
                fcntl.fcntl(stream, _SET_PIPE_SIZE, _PIPE_BYTES)  # type: ignore[arg-type]
        self.end = weakref.finalize(self, _end, self._process)
        """Ends it, with all that it has; again, it does nothing."""

    def call(self, said: Said, arrays: Sequence[Array], wanted: Callable[[Said], Forms], watch: Watch,
             seconds: float) -> tuple[Said, list[Array]]:
        """Ask one thing; returns what it says, of which only the form of the arrays was looked at.

        wanted: the form that the arrays must have, or ValueError. seconds: after so many it is ended.
        Raises ContractError with its words, MemoryError, Cancelled if `watch` says so, ContractError if it does
        not answer in that time or form. After an error it has ended.
        """
        line = _Line(self._process, watch, time.monotonic() + seconds)
        try:
            for piece in wire.packed(said, arrays):
                line.write(piece)
            told = wire.read_said(line.read)
            if "error" in told:
                raise self._error(told)
            found = wanted(told)
            if list(wire.forms_of(told)) != [(dtype, tuple(shape)) for dtype, shape in found]:
                raise ValueError("other arrays than were asked for")
            return told, wire.read_arrays(found, line.into)
        except _TimeUp:
            self.end()
            raise ContractError(f"recipe '{self._name}': did not end in {seconds:g} s, and was stopped") from None
        except EOFError:
            self.end()
            raise ContractError(f"recipe '{self._name}': its process ended without an answer: not enough memory "
                                "(memory_mb in policy.toml), or code that ends it") from None
        except (ValueError, TypeError, KeyError):
            self.end()
            raise ContractError(f"recipe '{self._name}': its process gave an answer of another form than it was asked "
                                "for") from None
        except BaseException:
            self.end()
            raise

    def _error(self, told: Said) -> Exception:
        kind, words = told["error"], str(told.get("words", ""))[:_WORDS]
        if kind == "MemoryError":
            return MemoryError()
        if kind in ("ContractError", "SetupError"):     # either is its word: such a plan is refused, and counted
            return ContractError(one_line(words))
        shown = "\n".join(f"  | {line}" for line in visible(words).split("\n"))       # no line of it looks like the log's
        return ContractError(f"recipe '{self._name}': its code raised an error\n{shown}")


class _TimeUp(Exception):  # noqa: N818 - it is no error of ours
    pass


class _Line:
    """Reads and writes, and looks between whether to stop."""

    def __init__(self, process: subprocess.Popen[bytes], watch: Watch, end: float):
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()  # type: ignore[union-attr]
        self._watch, self._end, self._next_look = watch, end, 0.0

    def write(self, piece: memoryview) -> None:
        while len(piece):
            self._wait(self._in, select.POLLOUT)
            try:
                piece = piece[os.write(self._in, piece):]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise EOFError from None

    def into(self, memory: memoryview) -> None:
        while len(memory):
            self._wait(self._out, select.POLLIN)
            try:
                found = os.readv(self._out, [memory])
            except BlockingIOError:
                continue
            if found == 0:
                raise EOFError
            memory = memory[found:]

    def read(self, size: int) -> bytes:
        made = bytearray(size)
        self.into(memoryview(made))
        return bytes(made)

    def _wait(self, stream: int, event: int) -> None:
        """Until the stream is ready. Now and then it is looked whether to stop, also if a byte comes every moment."""
        poll, ready = select.poll(), False
        poll.register(stream, event)
        while not ready:
            ready = bool(poll.poll(_LOOK_S * 1000))
            if (now := time.monotonic()) < self._next_look:
                continue
            self._next_look = now + _LOOK_S
            if self._watch():
                raise Cancelled("the recipe was stopped; nothing was released")
            if now > self._end:
                raise _TimeUp


@cache
def _starter(process: int) -> ThreadPoolExecutor:
    """A thread that lives as long as this process: Linux ends a sandbox's program with the thread that started it."""
    return ThreadPoolExecutor(1, thread_name_prefix="recipes")


def _end(process: subprocess.Popen[bytes]) -> None:
    end_now(process)
    for stream in (process.stdin, process.stdout):
        stream.close()  # type: ignore[union-attr]
    process.wait()
