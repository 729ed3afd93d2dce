"""Encodes files of rows to a recipe's arrays, in a child process, so that memory is limited and is given back.

The child writes one line of JSON (how it ended), then every array of every file as numpy's own format has it; nothing of it
is written to a disk. It has no credentials, and nothing that it prints is passed on. It may take no more memory than the size
of the files explains (`rows.limited_by`), and an input that crashes a parser kills only this process. A recipe's code has
neither network nor other files than the rows, and starts no process, where the system can keep it from that
(`fedround.sandbox`).

Where a recipe says `COLUMNS` and `TARGET`, its file does not run in that process: these values encode the rows. Where it does
run, what comes back is its own word: of it is believed that it is arrays of the task's form, and no longer than what the
child may hold. The child ends when its answer is read, or its time is over, whatever it does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedround import sandbox
from fedround.errors import ContractError, SetupError
from fedround.learning import encoding as apart
from fedround.learning.described import Described, described, is_here, recipe_of
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe, load_recipe
from fedround.learning.tasks import Task
from fedround.parent import as_parent, end_now, end_with_parent
from fedround.sandbox import Sandbox
from fedround.values import LARGEST_WHOLE, parse
from validation import row_files
from validation import rows as gate
from validation.answers import ChildSaid, raise_if_it_failed
from validation.picture import Picture, picture, read_back
from validation.tables import plain_frame

if TYPE_CHECKING:
    import pandas as pd

PATIENCE_S = 3600.0
"""How long a recipe may take to encode rows, where nobody says otherwise."""

_ANY = 604_800
"""Seconds: whoever starts the process has a limit of its own."""
_LONG = 60_000
"""Characters of names that are passed to a process one by one; of more files, their folder is."""


def encode(path: Path, recipe: Recipe, file: Path) -> Examples:
    """What the recipe makes of one file of rows, each by itself (`fedround.learning.encoding`). file: the recipe's own.

    Raises SetupError or ContractError that quotes no value.
    """
    frame = gate.read_typed(path, exactly=True)
    try:
        return apart.encode(frame, recipe, lambda: load_recipe(file, recipe.digest))
    except ContractError as error:
        raise ContractError(f"rows at {path}: {error}") from None


def encoded(paths: Sequence[Path], recipe: Recipe, file: Path, timeout_s: float = PATIENCE_S) -> list[Examples]:
    """What the recipe, which `file` holds, makes of every file: in a process of its own, unless pandas and the recipe's code
    are in this one.

    Raises as `encode_in_subprocess` does.
    """
    if "pandas" in sys.modules and is_here(recipe):
        return [encode(path, recipe, file) for path in paths]
    if not recipe.declared.is_whole:
        return encode_in_subprocess(paths, file, recipe.digest, timeout_s, recipe.task)
    with _child("declared", *map(str, paths), timeout_s=timeout_s, allowed=beside(None, paths),
                said=described(recipe)) as answer:
        return answer.examples(paths)


def encoded_alone(path: Path, recipe: Recipe, file: Path) -> Examples:
    """The same of one file. Raises ContractError also if it takes too much memory."""
    try:
        return encoded([path], recipe, file)[0]
    except MemoryError:
        raise ContractError(gate.too_large(path)) from None


def encode_in_subprocess(paths: Sequence[Path], recipe: Path, digest: str, timeout_s: float = PATIENCE_S,
                         task: Task | None = None) -> list[Examples]:
    """`encode` of every file, in a process of its own; recipe: the approved file, digest: of what was approved.

    task: of which the labels must be; None: it is not known yet. Raises what `encode` and `load_recipe` raise, and
    ContractError for labels that are not of the task; MemoryError or SetupError if the process ends without an answer, and
    SetupError if it takes longer than `timeout_s`.
    """
    with _child("encode", str(recipe), digest, *map(str, paths), timeout_s=timeout_s,
                allowed=beside(recipe, paths)) as answer:
        found = answer.examples(paths)
    if task is not None:
        for one in found:
            _check_labels(one, task, recipe.name)       # its code has looked at them, or not
    return found


def _check_labels(examples: Examples, task: Task, recipe: str) -> None:
    try:
        task.check(examples.targets, recipe)
    except (ValueError, TypeError, IndexError, KeyError):       # of another number of dimensions, say
        raise ContractError(f"recipe '{recipe}': labels must be {task.expects}, as {task.in_words} has them") from None


def beside(recipe: Path | None, rows: Sequence[Path]) -> Sandbox:
    """What a recipe's code may have when it encodes these rows: them, and what this interpreter can import. None: there is
    no such code.

    Raises ContractError if they are too many to be named one by one, and something else lies beside them.
    """
    (read, names), above = sandbox.own_python(), [str(row_files.above(path)) for path in rows]
    parts = [str(part.path) for path in rows if row_files.is_there(path) for part in row_files.parts_of(path)]
    files = parts if sum(map(len, parts)) < _LONG else above        # a command's line has an end
    for folder in above if files is above else ():
        row_files.check_nothing_else(Path(folder))
    own = () if recipe is None else (str(recipe),)
    return Sandbox(read=(*read, *own, *files), names=(*names, *above), seconds=_ANY, nice=0)


def columns(paths: Sequence[Path], names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """These columns of all files, one after the other, (N,) each; without those that one of them does not have.

    Numbers are numbers, and a whole one is exact, whatever stands in other rows; other values are as in the file; None where
    there is no value. Raises SetupError or ContractError
    that quotes no value.
    """
    frames = [gate.read_typed(path, names, exactly=True) for path in paths]
    return {name: _joined(values) for name in names
            if all(name in frame.columns for frame in frames) and (values := [_plain(frame[name]) for frame in frames])}


def columns_in_subprocess(paths: Sequence[Path], names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """`columns`, in a process of its own. Raises what it raises; MemoryError or SetupError as `encode_in_subprocess` does."""
    with _child("columns", json.dumps(list(names)), *map(str, paths)) as answer:
        return {name: answer.array() if values is None else np.array(values, dtype=object)
                for name, values in answer.said(-1).items()}


def columns_alone(paths: Sequence[Path], names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """`columns`, in this process only if pandas is in it already."""
    return columns(paths, names) if "pandas" in sys.modules else columns_in_subprocess(paths, names)


def prints(path: Path, key: str) -> npt.NDArray[np.uint64]:
    """A keyed hash of each row's content, (N,): the same in whatever format, width of numbers and order of columns. Raises as
    `columns`.
    """
    import pandas as pd

    frame = gate.read_typed(path)
    same = {name: _same(frame[name]) for name in sorted(map(str, frame.columns))}
    salt = pd.Series([key] * len(frame), dtype=str)     # pandas keys only strings
    hashed = pd.util.hash_pandas_object(pd.DataFrame({"": salt, **same}), index=False, hash_key=key, categorize=False)
    return hashed.to_numpy().astype(np.uint64)


def prints_alone(paths: Sequence[Path], key: str) -> list[npt.NDArray[np.uint64]]:
    """`prints` of every file, in this process only if pandas is in it already. Raises as `columns_in_subprocess` does."""
    if "pandas" in sys.modules:
        return [prints(path, key) for path in paths]
    with _child("prints", key, *map(str, paths)) as answer:
        return [answer.array() for _ in paths]


def pictures_alone(paths: Sequence[Path]) -> list[Picture]:
    """`picture` of each path, in this process only if pandas is in it already. Raises as `columns_in_subprocess` does."""
    if "pandas" in sys.modules:
        return [picture(path) for path in paths]
    with _child("picture", "", *map(str, paths)) as answer:
        return [read_back(told) for told in answer.said(-1)]


def _same(values: pd.Series[Any]) -> pd.Series[Any]:
    """What of a column is hashed: numbers as float64, everything else as text."""
    import pandas as pd

    if values.dtype == object or values.dtype.kind == "M":
        return pd.Series(_plain(values)).astype(str)
    number_N = values.to_numpy(np.float64, na_value=np.nan) + 0.0
    return pd.Series(np.where(np.isnan(number_N), np.nan, number_N))        # there are many nan, and one is hashed


def _plain(values: pd.Series[Any]) -> npt.NDArray[Any]:
    import pandas as pd

    if isinstance(values.dtype, pd.ArrowDtype):     # whole numbers and fractions
        whole, fraction = (values.struct.field(part) for part in ("whole", "fraction"))
        if not (whole.abs() > LARGEST_WHOLE).any():
            return plain_frame(values.to_frame())[values.name].to_numpy()
        return np.array([two if one is None else one for one, two in zip(
            *(part.array.__arrow_array__().to_pylist() for part in (whole, fraction)), strict=True)], dtype=object)
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":      # pandas' own types may have gaps
        return values.to_numpy()
    if values.dtype.kind == "M":
        return np.array([None if one == "NaT" else one.removesuffix("T00:00:00.000000").removesuffix(".000000").replace(
            "T", " ") for one in np.datetime_as_string(values.to_numpy(), unit="us").tolist()], dtype=object)
    missing_N = values.isna().to_numpy()
    return np.array([None if gone else value if isinstance(value, str | bool | int | float) else str(value)
                     for value, gone in zip(values.tolist(), missing_N, strict=True)], dtype=object)


def _joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if all(part.dtype.kind in "biuf" for part in parts) else np.concatenate(
        [part.astype(object) for part in parts])


@contextmanager
def _child(*arguments: str, timeout_s: float = PATIENCE_S, allowed: Sandbox | None = None,
           said: bytes = b"") -> Iterator[ChildSaid]:
    """The answer of a child process that does this work, without its first line, which reports success.

    allowed: what it may have, for work with others' code, on a system that can keep the rest from it. said: what it is told
    besides.
    """
    environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1",
                   **as_parent()}
    command = [sys.executable, "-P", "-m", __name__, *arguments]
    child = subprocess.Popen(
        command if allowed is None or sandbox.lacking() is not None else sandbox.command(allowed, command),
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    over = threading.Event()

    def stop() -> None:
        over.set()
        end_now(child)

    alarm = threading.Timer(timeout_s, stop)
    alarm.start()
    try:
        with suppress(BrokenPipeError), child.stdin as told:  # type: ignore[union-attr]
            told.write(said)
        answer = ChildSaid(child.stdout)  # type: ignore[arg-type]
        raise_if_it_failed(answer.said())
        yield answer
    except ValueError:
        if over.is_set():
            raise SetupError(f"reading the rows at {arguments[-1]} took longer than the {timeout_s:g} s that one plan "
                             "may take here, and was stopped: does the recipe end?") from None
        by_hand = shlex.join(["python", "-m", "validation.encoding", *arguments])
        raise SetupError(f"the process that reads the rows at {arguments[-1]} ended without an answer; is there enough "
                         f"memory? '{by_hand}' runs it by hand") from None
    finally:
        alarm.cancel()
        end_now(child)
        child.stdout.close()  # type: ignore[union-attr]
        child.wait()


def _main(what: str, *arguments: str) -> None:
    """The child process. It writes only the answer on any stream; even output of C code is suppressed."""
    end_with_parent()
    if what == "encode":
        sandbox.stay_alone()
    gate.limited_by([Path(path) for path in arguments[{"encode": 2, "declared": 0}.get(what, 1):]])
    with os.fdopen(os.dup(1), "wb") as answer:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        try:
            found = _found(what, *arguments)
        except (SetupError, ContractError, MemoryError) as error:
            answer.write(json.dumps({"error": type(error).__name__, "message": str(error)}).encode() + b"\n")
            return
        answer.write(b"{}\n")
        if what == "picture":
            answer.write(json.dumps([dataclasses.asdict(one) for one in found]).encode() + b"\n")
            return
        if isinstance(found, dict):     # what is no number travels as JSON
            told = {name: values.tolist() if values.dtype == object else None for name, values in found.items()}
            answer.write(json.dumps(told).encode() + b"\n")
            arrays = [values for values in found.values() if values.dtype != object]
        elif what == "prints":
            arrays = found
        else:
            answer.write(json.dumps([[list(one.inputs), list(one.targets)] for one in found]).encode() + b"\n")
            arrays = [array for one in found for array in (*one.inputs.values(), *one.targets.values(), one.counts_N)]
        for array in arrays:
            np.lib.format.write_array(_Pipe(answer), array, allow_pickle=False)


def _found(what: str, *arguments: str) -> Any:
    if what == "encode":
        return _encoded(*arguments)
    if what == "declared":
        recipe = recipe_of(parse(Described, sys.stdin.buffer.read(), "what is said of the rows"), "", None)
        return [encode(Path(path), recipe, Path()) for path in arguments]
    first, *paths = arguments
    if what == "picture":
        return [picture(Path(path)) for path in paths]
    if what == "prints":
        return [prints(Path(path), first) for path in paths]
    return columns([Path(path) for path in paths], json.loads(first))


def _encoded(recipe: str, digest: str, *paths: str) -> list[Examples]:
    agreed = load_recipe(Path(recipe), digest)
    return [encode(Path(path), agreed, Path(recipe)) for path in paths]


class _Pipe:
    """Keeps numpy from asking for the position in the file, which a pipe does not have."""

    def __init__(self, stream: IO[bytes]):
        self.write = stream.write


if __name__ == "__main__":
    _main(*sys.argv[1:])
