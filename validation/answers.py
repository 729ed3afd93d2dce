"""What a child process that reads rows says, which may be anything: a recipe's code may have run in it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError, FedroundError, SetupError
from fedround.learning.examples import Examples
from fedround.spoken import one_line
from validation import rows as gate

LONGEST_LINE = 1 << 20
"""Of others' words, in bytes."""
_LONGEST_ERROR = 60_000
"""Of an error's sentence, in characters."""

_ERRORS: dict[str, type[FedroundError]] = {"SetupError": SetupError, "ContractError": ContractError}


class ChildSaid:
    """What a child says, which may be anything. All of it raises ValueError for what is not of the expected form."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._left: float = math.inf

    def read(self, size: int = -1) -> bytes:
        """As a stream's. (A pipe has no position, and numpy asks nothing for it that has no other method.)"""
        found = self._stream.read(size)
        self._left -= len(found)
        if self._left < 0:
            raise ValueError("an answer is longer than what its process may hold")
        return found

    def allow(self, size_bytes: float) -> None:
        """No more comes before this is called again."""
        self._left = size_bytes

    def said(self, longest: int = LONGEST_LINE) -> Any:
        """A line of JSON."""
        try:
            return json.loads(self._stream.readline(longest))
        except RecursionError:
            raise ValueError("a line is too deep") from None

    def array(self) -> npt.NDArray[Any]:
        """In numpy's own format."""
        try:
            found = np.lib.format.read_array(self, allow_pickle=False)
        except MemoryError:
            raise
        except Exception:           # numpy raises many kinds for a head that is none
            raise ValueError("no array") from None
        if found.dtype == np.bool_ and found.size and found.view(np.uint8).max() > 1:
            raise ValueError("a truth is neither 0 nor 1")
        return found

    def examples(self, paths: Sequence[Path]) -> list[Examples]:
        """Of each of the files, which the child has read."""
        self.allow(gate.memory_for(paths))
        said = self.said()
        match said:
            case list() if len(said) == len(paths):
                return [self._example(names) for names in said]
        raise ValueError("an answer is about other files")

    def _example(self, names: Any) -> Examples:
        match names:
            case [list(), list()]:
                inputs, targets = ({str(name): self.array() for name in part} for part in names)
                return Examples(inputs, targets, self.array())
        raise ValueError("an answer does not say which arrays follow")


def raise_if_it_failed(said: Any) -> None:
    """Raise what a child says that it has raised, on one line; ValueError if it says nothing that is known."""
    match said:
        case {"error": "MemoryError"}:
            raise MemoryError
        case {"error": str(kind), "message": str(message)} if kind in _ERRORS:
            raise _ERRORS[kind](one_line(message)[:_LONGEST_ERROR])
        case dict() if "error" not in said:
            return
    raise ValueError
