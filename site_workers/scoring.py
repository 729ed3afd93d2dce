"""Scores of rows by a model from a bundle: read in parts, encoded in a process of its own, written whole or not at all.

The recipe in a bundle is code. Whoever brings the coordinator's key trusts the coordinator for it. It runs in a process
without credentials, network and other files (where the system can keep them from it), with no more memory and time than
allowed here, and that hands over features and nothing else. At a site the operator must have approved it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from fedround import sandbox
from fedround.bundle import FORMS, RECIPE, Bundle, Column, Form, Input
from fedround.errors import ContractError, SetupError
from fedround.files import writing_whole
from fedround.learning.examples import Arrays, Shape, flat, in_words, shapes
from fedround.learning.exported import Float32, Served
from fedround.learning.tasks import Task
from fedround.parent import as_parent, end_now, end_with_parent
from site_workers import rows_in_parts
from site_workers.policy import Limits
from validation.answers import ChildSaid, raise_if_it_failed
from validation.encoding import beside

BATCH = 50_000
_HEADS, _MOST_ARRAYS = 1 << 20, 1000


@dataclass(frozen=True)
class Scored:
    """What was done."""

    rows: int
    out: Path


def score(bundle: Bundle, rows: Path, out: Path, *, form: Form = "float32", limits: Limits) -> Scored:
    """Write what the model gives for every row (`Kind.answers`), in the order of the rows. Needs no label column, and reads
    none that is not needed.

    out: ends with .csv or .parquet; mode 0600. limits: of the process that encodes.
    Raises SetupError or ContractError that quotes no value; MemoryError; then nothing is written.
    """
    write = _WRITERS.get(out.suffix.lower())
    if write is None:
        raise ContractError(f"scores at {out}: expected a name that ends with .csv or .parquet")
    served, task = Served(bundle.files[FORMS[form]]), bundle.manifest.task
    with writing_whole(out, durable=True, mode=0o600) as file, _encoded(bundle, rows, limits) as parts:
        written = write(file, map(served.answers, parts), task)
    return Scored(written, out)


@contextmanager
def _encoded(bundle: Bundle, rows: Path, limits: Limits) -> Iterator[Iterator[Arrays]]:
    """The features of all rows, part by part, as the child makes them."""
    environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1",
                   **as_parent()}
    with tempfile.TemporaryDirectory(prefix="fedround-recipe-") as folder:
        recipe = Path(folder) / "recipe.py"
        recipe.write_bytes(bundle.files[RECIPE])
        asked = json.dumps({
            "recipe": str(recipe), "digest": bundle.manifest.recipe_digest, "rows": str(rows.absolute()), "batch": BATCH,
            "columns": [column.model_dump() for column in bundle.manifest.columns], "limits": limits.model_dump()})
        command = [sys.executable, "-P", "-m", __name__, asked]
        if sandbox.lacking() is None:
            command = sandbox.command(beside(recipe, [rows.absolute()]), command)
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            yield _parts(child.stdout, rows, bundle.manifest.inputs)  # type: ignore[arg-type]
        finally:
            end_now(child)          # it has ended, or nobody wants the rest
            child.communicate()


def _parts(stream: IO[bytes], rows: Path, inputs: Sequence[Input]) -> Iterator[Arrays]:
    answer, wanted = ChildSaid(stream), tuple(Shape(one.name, one.dtype, one.shape) for one in inputs)
    each = sum(np.dtype(one.dtype).itemsize * math.prod(one.shape) for one in wanted)
    while True:
        try:
            said = answer.said()
            raise_if_it_failed(said)
            match said:
                case {"end": _}:
                    return
                case {"rows": int(number), "names": list(names)} if number <= BATCH and len(names) <= _MOST_ARRAYS:
                    answer.allow(number * each + _HEADS)
                    part = {str(name): answer.array() for name in names}
                case _:
                    raise ValueError
        except ValueError:
            raise SetupError(f"the process that encodes the rows at {rows} ended without an answer: allow it more memory or "
                             "time (--memory-mb, --seconds)") from None
        if shapes(part) != wanted or any(array.shape[:1] != (number,) for array in part.values()):
            raise ContractError(f"the recipe makes {in_words(shapes(part))} of a row at {rows}, the model takes "
                                f"{in_words(wanted)}")
        yield part


class _Pipe:
    """Hides the stream's position, because a pipe has none: numpy does not ask for it then."""

    def __init__(self, stream: IO[bytes]):
        self.read, self.write = stream.read, stream.write


# -- what is written ---------------------------------------------------------------------------------------------------


def _to_csv(file: BinaryIO, parts: Iterator[Float32], task: Task) -> int:
    number = count()
    for place, part in enumerate(parts):
        flat_NC = flat(part)
        if place == 0:
            file.write((",".join(["row", *task.columns(flat_NC.shape[1])]) + "\n").encode())
        file.write("".join(f"{next(number)},{','.join(f'{one:.9g}' for one in row)}\n" for row in flat_NC.tolist()).encode())
    return next(number)


def _to_parquet(file: BinaryIO, parts: Iterator[Float32], task: Task) -> int:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    writer, written = None, 0
    for part in parts:
        flat_NC = flat(part)
        schema = pa.schema([("row", pa.int64()), *((name, pa.float32()) for name in task.columns(flat_NC.shape[1]))])
        writer = ParquetWriter(file, schema) if writer is None else writer
        columns = [pa.array(np.arange(written, written + len(part)))]
        columns += [pa.array(np.ascontiguousarray(column)) for column in flat_NC.T]
        writer.write_table(pa.table(columns, schema=schema))
        written += len(part)
    if writer is not None:
        writer.close()
    return written


_WRITERS: dict[str, Callable[[BinaryIO, Iterator[Float32], Task], int]] = {".csv": _to_csv, ".parquet": _to_parquet}


# -- the child ---------------------------------------------------------------------------------------------------------


def _main(asked: str) -> None:
    """Write nothing but the answer to any stream, not even from C code."""
    end_with_parent()
    sandbox.stay_alone()
    with os.fdopen(os.dup(1), "wb") as answer:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        try:
            _encode(json.loads(asked), answer)
        except (SetupError, ContractError, MemoryError) as error:
            answer.write(json.dumps({"error": type(error).__name__, "message": str(error)}).encode() + b"\n")


def _encode(asked: dict[str, object], answer: IO[bytes]) -> None:
    from fedround.learning.recipe import load_recipe
    from site_workers.limits import confined

    limits = Limits.model_validate(asked["limits"])
    with confined(limits):
        recipe = load_recipe(Path(str(asked["recipe"])), str(asked["digest"]))
        columns = [Column.model_validate(column) for column in asked["columns"]]  # type: ignore[attr-defined]
        total = 0
        for frame in rows_in_parts.read(Path(str(asked["rows"])), columns, int(str(asked["batch"]))):
            inputs = rows_in_parts.encoded(recipe, frame, total)
            answer.write(json.dumps({"rows": len(frame), "names": list(inputs)}).encode() + b"\n")
            for array in inputs.values():
                np.lib.format.write_array(_Pipe(answer), np.ascontiguousarray(array), allow_pickle=False)
            total += len(frame)
    answer.write(json.dumps({"end": total}).encode() + b"\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
