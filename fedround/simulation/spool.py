"""The updates of a round: in memory as long as they fit, else in a file. Sites are written in any order and read in the
order of their places.

Legend: N sites, D coordinates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from fedround.aggregation.rows import ArrayNumbers, FileNumbers, Numbers

Float32 = npt.NDArray[np.float32]

MEMORY_BYTES = 512 << 20
"""Updates that take more go to a file."""


class Updates:
    """Room for the updates of N sites; to be used as a context, since there may be a file to remove."""

    def __init__(self, sites: int, coordinates: int, memory_bytes: int = MEMORY_BYTES):
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._path: Path | None = None
        shape = (sites, coordinates)
        if 4 * sites * coordinates <= memory_bytes:
            self._array_ND: Float32 = np.empty(shape, np.float32)
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="fedround-simulation-")
            self._path = Path(self._folder.name) / "updates.bin"
            self._path.touch()
            with self._path.open("r+b") as file:
                file.truncate(4 * sites * coordinates)
        self._coordinates = coordinates

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def put(self, places: Sequence[int], delta_SD: Float32) -> None:
        """These sites' updates."""
        if self._path is None:
            self._array_ND[list(places)] = delta_SD
            return
        with self._path.open("r+b") as file:
            for place, delta_D in zip(places, delta_SD, strict=True):
                file.seek(4 * place * self._coordinates)
                file.write(np.ascontiguousarray(delta_D, "<f4").tobytes())

    def numbers(self, place: int) -> Numbers:
        """One site's update, as the aggregation reads it."""
        if self._path is None:
            return ArrayNumbers(self._array_ND[place])
        return FileNumbers(self._path, 4 * place * self._coordinates)

    def read(self, first: int, last: int) -> Float32:
        """The updates of neighbouring sites, (last - first, D)."""
        if self._path is None:
            return self._array_ND[first:last]
        with self._path.open("rb") as file:
            file.seek(4 * first * self._coordinates)
            flat = np.frombuffer(file.read(4 * (last - first) * self._coordinates), "<f4")
        return flat.astype(np.float32, copy=False).reshape(last - first, self._coordinates)
