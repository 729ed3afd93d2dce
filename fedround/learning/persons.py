"""Whose rows are whose: which rows of each person are used, where persons are protected and not single rows.

The persons are in the order of their ids, and a person keeps the place also if none of the rows counts: so no draw for one
person depends on another's rows. Which rows are used follows from a key, the person's id and the order of that person's own
rows, and from nothing that any other person has.

N rows, P persons, K rows of each at most.
"""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NOBODY = -1


def ids_of(value_N: npt.NDArray[Any]) -> list[str]:
    """Each row's person, as text; empty: nobody's.

    A whole number is one id however it is written (7, 7.0, "007"): which of these a file gives can depend on other rows. So a
    whole number too long to be kept as a fraction is nobody's if it is one.
    """
    return [_id_of(value) for value in value_N.tolist()]


def count(value_N: npt.NDArray[Any]) -> int:
    """How many persons have rows here."""
    return len({one for one in ids_of(value_N) if one})


@dataclass(frozen=True, eq=False)
class Persons:
    """The rows of each person that are used."""

    row_PK: Int64
    """Their places among all rows; NOBODY where a person has fewer that count."""

    def __len__(self) -> int:
        return len(self.row_PK)

    @property
    def most(self) -> int:
        """How many rows of one person are used at most."""
        return int(self.row_PK.shape[1])

    def used(self, rows: int) -> Bools:
        """Which of so many rows are used, (N,)."""
        used_N = np.zeros(rows, bool)
        used_N[self.row_PK[self.row_PK != NOBODY]] = True
        return used_N

    def shares(self, rows: int) -> Floats:
        """Of so many rows, (N,): one, by the number of the person's rows that are used; 0 for a row that is not."""
        is_row_PK = self.row_PK != NOBODY
        share_N, used_P = np.zeros(rows), is_row_PK.sum(axis=1)
        share_N[self.row_PK[is_row_PK]] = np.repeat(1 / used_P[used_P > 0], used_P[used_P > 0])
        return share_N


def persons_of(value_N: npt.NDArray[Any], counts_N: Bools, most: int, key: bytes) -> Persons:
    """Group rows by the person that a column names, and choose `most` of each person's rows that count.

    key: a secret, the same as long as the rows are. Rows of nobody are used for nothing.
    """
    rows: dict[str, list[int]] = {}
    for row, one in enumerate(ids_of(value_N)):
        if one:
            rows.setdefault(one, []).append(row)
    row_PK = np.full((len(rows), most), NOBODY, np.int64)
    for place, (one, own) in enumerate(sorted(rows.items())):
        counted = [row for row in _shuffled(own, one, key) if counts_N[row]] if len(own) > most else [
            row for row in own if counts_N[row]]
        row_PK[place, :len(counted[:most])] = sorted(counted[:most])
    return Persons(row_PK)


def _shuffled(own: list[int], one: str, key: bytes) -> list[int]:
    """A person's rows in an order that nobody without the key can tell."""
    drawn = [hmac.digest(key, f"{number} {one}".encode("utf-8", "surrogatepass"), "sha256") for number in range(len(own))]
    return [own[number] for number in sorted(range(len(own)), key=drawn.__getitem__)]


def _id_of(value: object) -> str:
    if value is None or (isinstance(value, float) and (not math.isfinite(value) or abs(value) >= 2 ** 53)):
        return ""
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return (text.lstrip("0") or "0") if text.isascii() and text.isdecimal() else text
