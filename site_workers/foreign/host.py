"""Runs a foreign client in a sandbox (`fedround.sandbox`), and takes nothing from it but a file of the expected length.

site.toml says what it runs with::

    [foreign]
    python = "/opt/flower/bin/python"    # the interpreter of its own environment
    folder = "client"                    # its code; the recipe names each file's digest
    data = ["client-data"]               # what it may read besides; links to it are in the folder that it works in
    node = {partition-id = 0, num-partitions = 1}
    environment = {HF_HOME = "client-data/hf"}
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO

from fedround import codec, sandbox
from fedround.codec import Tensors
from fedround.errors import Cancelled, CodecError, ContractError, SetupError
from fedround.files import others_folder
from fedround.learning.foreign.spec import Foreign
from fedround.parent import end_now
from fedround.sandbox import Sandbox
from infra.settings import ForeignSettings
from site_workers.foreign import guest
from site_workers.site import Site

log = logging.getLogger("fedround.site")

LOG = "foreign.log"
"""In the site's folder: what the client printed in its last round, as plain text. It may quote rows, and never leaves."""

_LOOK_S, _LOOKS = 0.2, 20
_LOG_MIB = 16
_OBEYED = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]")
"""What a terminal would obey, on which somebody reads it."""


def check(site: Site) -> None:
    """Raise SetupError or ContractError, which says what to do, unless the recipe's client can be run here.

    Its files are read, and none of them is run. A recipe without such a client needs nothing.
    """
    if site.recipe.foreign is None:
        return
    client, settings = _agreed(site)
    if (lacks := sandbox.lacking()) is not None:
        raise SetupError(f"recipe '{site.recipe.name}' has a foreign client, which runs in a sandbox only: {lacks}")
    if not (python := Path(settings.python)).is_file() or not os.access(python, os.X_OK):
        raise SetupError(f"site.toml: foreign.python is {python}, and there is no program: make the client's environment, "
                         "for example with 'python -m venv', and name its python")
    _verified(client, site.folder / settings.folder)
    for path in settings.data:
        if not (site.folder / path).exists():
            raise SetupError(f"site.toml: foreign.data names {site.folder / path}, which is not there")
    _readable(site)


def trainer(site: Site, number: int, order: tuple[str, ...], cancelled: Callable[[], bool],
            seconds: float) -> Callable[[Tensors], Tensors]:
    """What trains the model in round `number` (`fedround.learning.foreign.site.Elsewhere`).

    order: of the tensors, as the recipe's model has them. seconds: after so many it is ended.
    What it returns raises ContractError or SetupError if the client gives back no file of the model's form, MemoryError if
    it was refused memory, and Cancelled.
    """
    def train(base: Tensors) -> Tensors:
        check(site)
        with _running(site, _task(site, number, order), base, cancelled, seconds) as answer:
            return _decoded(answer, base)

    return train


def _agreed(site: Site) -> tuple[Foreign, ForeignSettings]:
    """The client that the recipe names, and what it runs with here."""
    if site.recipe.foreign is None:
        raise ContractError(f"recipe '{site.recipe.name}' names no foreign client")
    if site.settings.foreign is None:
        raise SetupError(f"recipe '{site.recipe.name}' has a foreign client, and site.toml has no section [foreign]: add it, "
                         "with python = the interpreter of the client's environment, and folder = the client's code")
    return site.recipe.foreign, site.settings.foreign


def _verified(client: Foreign, folder: Path) -> dict[str, bytes]:
    """The client's files, by name. Raises ContractError if one is not the file that the recipe names."""
    found = {}
    for name, digest in client.files:
        try:
            found[name] = (folder / name).read_bytes()
        except OSError as error:
            raise ContractError(f"the client's file {folder / name} cannot be read ({error.strerror}); the recipe names "
                                "it: put it there") from None
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise ContractError(f"the client's file {folder / name} is not the one that the approved recipe names: restore "
                                "it, or approve a recipe that names this one")
    return found


def _task(site: Site, number: int, order: tuple[str, ...]) -> dict[str, object]:
    client, settings = _agreed(site)
    return {"kind": client.kind, "client": client.client, "config": client.config, "run_config": client.run_config,
            "arguments": client.arguments, "node": settings.node, "site": site.name, "round": number, "order": order}


@contextmanager
def _running(site: Site, task: dict[str, object], base: Tensors, cancelled: Callable[[], bool],
             seconds: float) -> Iterator[bytes]:
    """The client's answer, unread, no longer than it may be."""
    (client, settings), limits = _agreed(site), site.policy.limits
    with others_folder("fedround-client-") as made:
        code, scratch = made / "code", made / "scratch"
        scratch.mkdir()
        for name, body in _verified(client, site.folder / settings.folder).items():     # what was verified is what runs
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            (code / name).write_bytes(body)
        allowed = Sandbox(read=(str(code), guest.__file__, *_readable(site)), write=(str(scratch),),
                          memory_mb=limits.memory_mb, seconds=limits.seconds)
        environment = {
            "PATH": os.defpath, "HOME": str(scratch), "TMPDIR": str(scratch), "USER": "client", "LANG": "C.UTF-8",
            **{name: str(limits.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")},
            "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
            **{name: _placed(site, scratch, value) for name, value in settings.environment.items()}}
        for path in settings.data:
            _link(site.folder / path, scratch / Path(path).name)
        task = {**task, "folder": str(code), "scratch": str(scratch)}
        yield _ask(sandbox.command(allowed, [settings.python, "-P", guest.__file__]), environment, scratch, task, base,
                   site.folder / LOG, cancelled, seconds)


def _ask(command: list[str], environment: dict[str, str], scratch: Path, task: dict[str, object], base: Tensors,
         prints: Path, cancelled: Callable[[], bool], seconds: float) -> bytes:
    """What the process writes as its answer. It has ended, with all that it started, when this returns."""
    longest = codec.size_bytes(codec.schema_of(base))
    reads, writes = os.pipe()
    with tempfile.TemporaryFile(dir=scratch) as told, tempfile.TemporaryFile(dir=scratch.parent) as asked:
        asked.write(json.dumps({**task, "answer": writes}).encode() + b"\n" + codec.encode(base))
        asked.seek(0)
        child = subprocess.Popen(command, env=environment, cwd=scratch, stdin=asked, stdout=told, stderr=told,
                                 pass_fds=(writes,))
        os.close(writes)
        ended = _Watch(child, cancelled, seconds, scratch)
        try:
            with os.fdopen(reads, "rb") as answer:
                body = answer.read(longest + 1)
        finally:
            ended.stop()
            _keep(told, prints)
    if ended.why is _Why.CANCELLED:
        raise Cancelled("the client was stopped; nothing was released")
    if ended.why is not None:
        raise ContractError(ended.why.value.format(seconds))
    if child.returncode != 0 and not body:
        raise ContractError(f"the client ended without an answer (exit {child.returncode}): {prints} has what it printed")
    return body


class _Why(Enum):
    """Why a client was ended, in words."""

    CANCELLED = "the client was stopped"
    TIME = "the client was not done in {:g} s"
    DISK = "the client was ended, because half of the free space of the disk was used up meanwhile"
    UNWATCHED = "the client was ended, because it could not be watched; the lines above say why"


class _Watch:
    """Ends the client and all that it started: when the time is up, when the run is cancelled, when half of the disk's free
    space is used up, or when `stop` is called.
    """

    def __init__(self, child: subprocess.Popen[bytes], cancelled: Callable[[], bool], seconds: float, disk: Path):
        self._child, self._cancelled, self._left_s = child, cancelled, seconds
        self._disk, self._least_free = disk, shutil.disk_usage(disk).free // 2
        self.why: _Why | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        try:
            self._watch()
        except Exception:
            log.exception("the client cannot be watched any more")
            self.why = _Why.UNWATCHED
        if self.why is not None:
            end_now(self._child)

    def _watch(self) -> None:
        while self.why is None and not self._over.wait(_LOOK_S):
            self._left_s -= _LOOK_S
            full = shutil.disk_usage(self._disk).free < self._least_free
            self.why = (_Why.CANCELLED if self._cancelled() else _Why.TIME if self._left_s <= 0 else
                        _Why.DISK if full else None)

    def stop(self) -> None:
        """It has said all that it will."""
        self._over.set()
        self._thread.join()
        for _ in range(_LOOKS):         # for its exit code; it is not buried yet, so that its number is nobody else's
            if os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(_LOOK_S / _LOOKS)
        end_now(self._child)
        self._child.wait()


def _keep(told: IO[bytes], prints: Path) -> None:
    told.seek(max(0, told.seek(0, os.SEEK_END) - (_LOG_MIB << 20)))
    descriptor = os.open(prints, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_OBEYED.sub(b"?", told.read().replace(b"\r", b"\n")))


def _decoded(body: bytes, base: Tensors) -> Tensors:
    try:
        return codec.decode(body, codec.schema_of(base), "the client's answer")
    except CodecError as error:
        raise ContractError(f"the client gave back no model of the agreed form: {error}") from None


def _readable(site: Site) -> tuple[str, ...]:
    """The client's interpreter with its libraries, and the data: what it may read besides its code.

    Raises SetupError if the site's keys were among them.
    """
    _, settings = _agreed(site)
    python, data = Path(settings.python), [(site.folder / path).resolve() for path in settings.data]
    environment = python.parent.parent
    homes = [python.resolve().parent.parent]
    if (says := environment / "pyvenv.cfg").is_file():
        said = dict(line.split(" = ", 1) for line in says.read_text().splitlines() if " = " in line)
        homes = [*homes, environment.resolve(), Path(said.get("home", python.parent)).resolve().parent]
    found = [path for path in homes if (path / "pyvenv.cfg").is_file() or any(path.glob("lib/python3*/os.py"))] + data
    if inside := next((path for path in found if (site.folder / "keys").resolve().is_relative_to(path)), None):
        raise SetupError(f"site.toml: the client could read {inside}, and the site's keys lie below it: name a smaller "
                         "folder in foreign.data, or an interpreter elsewhere")
    return tuple(map(str, found))


def _link(source: Path, target: Path) -> None:
    """Folders of the client's own, full of links to the data's files: it reads these, and may put others (locks, caches)
    beside them.
    """
    source = source.resolve()
    if source.is_file():
        target.symlink_to(source)
        return
    for folder, _, files in os.walk(source):
        own = target / Path(folder).relative_to(source)
        own.mkdir()
        for file in files:
            (own / file).symlink_to(Path(folder) / file)


def _placed(site: Site, scratch: Path, value: str) -> str:
    """A value that is the data's name, or that of something below it, is its path in the client's folder; any other is as it
    stands.
    """
    _, settings = _agreed(site)
    for path in settings.data:
        data, named = (site.folder / path).absolute(), (site.folder / value).absolute()
        if named.is_relative_to(data):
            return str(scratch / Path(path).name / named.relative_to(data))
    return value
