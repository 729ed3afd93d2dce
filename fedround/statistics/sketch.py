"""How often each of very many values occurs, in few numbers: a count-mean sketch (after Apple 2017, "Learning with privacy at
scale"; the hashes here are public, and the noise is on the sums).

N records, W buckets, K rows of buckets.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedround.statistics.base import Evidence, Float64, Int64
from fedround.statistics.grouped import GroupedSum
from fedround.statistics.levels import Level, text_of
from fedround.statistics.sums import RowsPart, in_blocks
from fedround.values import ColumnName


class Sketch(GroupedSum):
    """A record with a value adds one to one bucket of each row, which a public hash of the value names. A number and its text
    are one value: 7, 7.0 and "7". An empty text is a value; None and NaN are none.
    """

    word: ClassVar[str] = "sketches"
    in_words: ClassVar[str] = "sketches of columns"
    kind: Literal["sketch"] = "sketch"
    of: ColumnName
    width: Annotated[int, Field(ge=16, le=4096)] = 500
    depth: Annotated[int, Field(ge=1, le=8)] = 2

    @property
    def labels(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return tuple(f"row {row + 1}, bucket {bucket + 1}" for row in range(self.depth) for bucket in range(self.width))

    @property
    def of_columns(self) -> tuple[str, ...]:
        """As `GroupedSum`."""
        return (self.of,)

    @property
    def scale(self) -> float:
        """As `NoisedSum`: one bucket of each row."""
        return math.sqrt(self.depth)

    def possible(self, table: Float64, leeway: float) -> bool:
        """As `NoisedSum`: no bucket has fewer than no records."""
        return bool(table.min() >= -leeway)

    def added(self, evidence: Evidence) -> Iterator[tuple[slice, RowsPart]]:
        """As `GroupedSum`."""
        told = [text_of(value) for value in evidence.column(self.of).tolist()]
        known = {text: self.places(text) for text in set(told) if text is not None}
        nowhere = np.arange(self.depth) * self.width
        place_NK = np.array([nowhere if text is None else known[text] for text in told]).reshape(-1, self.depth)
        there_N1 = np.array([[text is not None] for text in told], dtype=np.float64).reshape(-1, 1)
        for block in in_blocks(len(told), self.depth):
            yield block, RowsPart(np.repeat(there_N1[block], self.depth, axis=1), place_NK[block])

    def key(self, text: str) -> str:
        """What of a value is hashed."""
        return text

    def places(self, text: str) -> Int64:
        """The buckets of a value, (K,)."""
        hashed = hashlib.blake2b(self.key(text).encode("utf-8", "surrogatepass"), digest_size=8 * self.depth).digest()
        bucket_K = (np.frombuffer(hashed, dtype="<u8") % np.uint64(self.width)).astype(np.int64)
        return bucket_K + np.arange(self.depth) * self.width

    def frequencies(self, sums: Float64, candidates: Sequence[Level]) -> Float64:
        """How many records hold each candidate, (…, candidates): the mean over the rows, less what other values put into the
        same buckets on average.

        sums: (…, K W). Not promised: anything about a value that shares buckets with a common one in most rows.
        """
        records = sums.reshape(*sums.shape[:-1], self.depth, self.width).sum(axis=-1).mean(axis=-1)
        mean_C = self.buckets(sums, [text_of(one) or "" for one in candidates]).mean(axis=-1)
        counted: Float64 = (mean_C - records[..., None] / self.width) * self.width / (self.width - 1)
        return counted

    def buckets(self, sums: Float64, texts: Sequence[str]) -> Float64:
        """What is in the buckets of texts, (…, texts, K)."""
        place_CK = np.array([self.places(text) for text in texts], dtype=np.int64).reshape(-1, self.depth)
        found: Float64 = sums[..., place_CK]
        return found


END = "\0"
"""Behind a text that is shorter than the beginning that is told apart."""


class Prefixes(Sketch):
    """A sketch of texts' first characters: those of length `length`, or a whole shorter text with `END` behind it.

    What is common in such sketches of growing length leads to the commonest texts, though nobody knows beforehand which texts
    there are (`fedround.analytics.discover`). So it has a word of its own: whoever lets known values be counted need not let
    unknown ones be found.
    """

    word: ClassVar[str] = "prefixes"
    in_words: ClassVar[str] = "sketches of the beginnings of texts"
    kind: Literal["prefixes"] = "prefixes"  # type: ignore[assignment]
    length: Annotated[int, Field(ge=1, le=64)]

    def key(self, text: str) -> str:
        """As `Sketch`: also of a text that has its end mark already."""
        whole = text.removesuffix(END)
        return f"{self.length}:{whole[:self.length] if len(whole) >= self.length else whole + END}"
