"""From a site's files to the arrays that its recipe makes of them: in this process, or in one that gives its memory back.

The child writes one line of JSON (how it ended), then every array of every file as numpy's own format has it; nothing of it
is written to a disk. It has no credentials, and nothing that it prints is passed on.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from fedround.errors import ContractError, FedroundError, SetupError
from fedround.learning.recipe import Examples, Recipe, load_recipe
from validation import rows as gate

_ERRORS: dict[str, type[FedroundError]] = {"SetupError": SetupError, "ContractError": ContractError}


def encode(path: Path, recipe: Recipe) -> Examples:
    """What the recipe makes of one file. Raises SetupError or ContractError that quotes no value."""
    frame = gate.read_rows(path)
    try:
        return recipe.encode(frame)
    except (ContractError, MemoryError):
        raise
    except Exception as error:      # of the recipe's code; its words may quote the rows
        kind = type(error).__name__
    raise ContractError(f"recipe '{recipe.name}' cannot encode the rows at {path} ({kind}): does a column that it needs "
                        "miss, or hold another type?")


def encode_in_subprocess(paths: Sequence[Path], recipe: Path, digest: str) -> list[Examples]:
    """`encode` of every file, in a process of its own; recipe: the approved file, digest: of what was approved.

    Raises what `encode` and `load_recipe` raise; MemoryError or SetupError if the process ends without an answer.
    """
    environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(recipe), digest, *(str(path) for path in paths)], env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with child, child.stdout as answer:  # type: ignore[union-attr]
        try:
            _raise_if_it_failed(json.loads(answer.readline()))
            arrays = _Pipe(answer)
            return [Examples(*(np.lib.format.read_array(arrays, allow_pickle=False) for _ in dataclasses.fields(Examples)))
                    for _ in paths]
        except ValueError:
            by_hand = f"python -m site_workers.encoding {recipe} {digest} {paths[0]}"
            raise SetupError(f"the process that reads the rows at {paths[0]} ended without an answer; is there enough "
                             f"memory? '{by_hand}' runs it by hand") from None


class _Pipe:
    """Keeps numpy from asking where in a file it is: a pipe cannot say."""

    def __init__(self, stream: IO[bytes]):
        self.read, self.write = stream.read, stream.write


def _raise_if_it_failed(said: dict[str, str]) -> None:
    match said:
        case {"error": "MemoryError"}:
            raise MemoryError
        case {"error": str(kind), "message": str(message)} if kind in _ERRORS:
            raise _ERRORS[kind](message)
        case {"error": _}:
            raise ValueError


def _main(recipe: str, digest: str, *paths: str) -> None:
    """The child: nothing on any stream but the answer, not even from C code."""
    with os.fdopen(os.dup(1), "wb") as answer:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        try:
            agreed = load_recipe(Path(recipe), digest)
            found = [encode(Path(path), agreed) for path in paths]
        except (SetupError, ContractError, MemoryError) as error:
            answer.write(json.dumps({"error": type(error).__name__, "message": str(error)}).encode() + b"\n")
            return
        answer.write(b"{}\n")
        for examples in found:
            for field in dataclasses.fields(examples):
                np.lib.format.write_array(_Pipe(answer), np.asarray(getattr(examples, field.name)), allow_pickle=False)


if __name__ == "__main__":
    _main(*sys.argv[1:])
