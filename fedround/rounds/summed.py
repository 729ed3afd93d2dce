"""What members add up in a round of secure sums: one vector, and how its numbers lie on a lattice.

::

    layout     the vector's parts, and how fine each is: from what is public, the same for all
    in_ring    a member's numbers as whole numbers modulo 2**32, which masks then hide
    out_of     the sum of all members' numbers, part by part
    read       what the sum says: the change of the model, and the totals of the statistics

The update comes first, then the statistics in the plan's order. Every part is in units in which one record, or one person's
rows, moves it by a length (L2) of 1 at most. S numbers in all, D of the update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from fedround.aggregation.coordinate import Kernel, Middle
from fedround.errors import ContractError
from fedround.federation import MORE_ROWS
from fedround.learning.foreign.spec import Foreign
from fedround.learning.spec import LocalTraining
from fedround.learning.trees.server import mean_of_sum
from fedround.learning.trees.spec import Trees
from fedround.learning.union.spec import UnionStep
from fedround.privacy.spec import DpSgd, GaussianCounts, Mechanism, NoPrivacy, RowSum, cap, capped
from fedround.records import Question, Train
from fedround.secure_sums.lattice import bits_for, from_ring, to_ring, whole_cells
from fedround.statistics import Importance, Release, Statistic
from fedround.terms import Terms

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt32 = npt.NDArray[np.uint32]

Numbers = TypeVar("Numbers", Float64, UInt32)

_MORE = 1 + 2.0 ** -29          # of a member's noise: a record's length in cells may be 1 + 2**-30 units in floating point

_BLOCK = 1 << 15                # coordinates at once

HELD_OUT_TOO = 2
"""Statistics may be of all rows of a site, or persons: of so many for each that it trains on, at most."""


@dataclass(frozen=True)
class Part:
    """One part of the vector."""

    length: int
    bits: int
    """2**-bits of a unit is a lattice cell."""
    cells: int
    """So many cells of a member's noise are a unit: its standard deviation is GRID / cells units."""


def layout(asks: Question, terms: Terms, size: int, mechanisms: Sequence[Mechanism]) -> tuple[Part, ...]:
    """The vector's parts, in its order.

    size: D. mechanisms: what the ledger is charged for it (`Offer.mechanisms`), all members the same.
    The ring has room for what all members together may have: `MORE_ROWS` times the agreed rows, with certainty, and 12
    standard deviations of the noise. Raises ToleranceError, with the numbers, if it has not, or a noise is too small for its
    lattice; ContractError for what no secure sum carries.
    """
    if any(isinstance(one, Importance) for one in asks.statistics):
        raise ContractError("the importance of columns is told by each site for itself: its tables do not lie on the lattice "
                            "of a secure sum")
    found = lengths(asks, size)
    if len(found) != len(mechanisms):
        raise ContractError(f"{len(mechanisms)} mechanisms for {len(found)} parts of a secure sum: all that a plan asks "
                            "for is added up, or nothing")
    return tuple(_part(terms, length, mechanism) for length, mechanism in zip(found, mechanisms, strict=True))


def lengths(asks: Question, size: int) -> list[int]:
    """How long each part of the vector is. size: D."""
    return [*([size] if isinstance(asks, Train) else []), *(math.prod(one.shape) for one in asks.statistics)]


def _part(terms: Terms, length: int, mechanism: Mechanism) -> Part:
    union = terms.union
    rows = MORE_ROWS * union.rows
    match mechanism:
        case DpSgd(shared_by=int() as by, noise_multiplier=noise) | RowSum(shared_by=int() as by, noise_multiplier=noise):
            largest = rows
        case GaussianCounts(shared_by=int() as by, noise_std=noise):
            largest = rows * HELD_OUT_TOO * (mechanism.rows_per_person or 1)
        case _:
            raise ContractError(f"a part of a secure sum has noise that its members share, this one is '{mechanism.kind}' "
                                "without: ask for noise of more than 0")
    if by != terms.shared_by:
        raise ContractError(f"noise shared by {by} members, and these terms say by {terms.shared_by}")
    std = noise / math.sqrt(by) * _MORE
    bits = bits_for(largest, std, union.members)
    return Part(length, bits, whole_cells(std, bits))


def in_ring(parts: Sequence[Part], summand_S: Float64) -> UInt32:
    """A member's numbers on the lattice, modulo 2**32."""
    return np.concatenate([to_ring(one_P, part.bits, part.cells)
                           for part, one_P in zip(parts, _cut(parts, summand_S), strict=True)])


def out_of(parts: Sequence[Part], total_S: UInt32) -> list[Float64]:
    """What members' numbers add up to, in each part's units: exactly, what was on the lattice."""
    return [from_ring(one_P, part.bits) for part, one_P in zip(parts, _cut(parts, total_S), strict=True)]


def _cut(parts: Sequence[Part], numbers_S: Numbers) -> list[Numbers]:
    if numbers_S.shape != (size := sum(part.length for part in parts),):
        raise ContractError(f"a vector of {size} numbers is added up, got one of shape {numbers_S.shape}")
    return np.split(numbers_S, np.cumsum([part.length for part in parts])[:-1])


@dataclass(frozen=True, eq=False)
class Read:
    """What a sum says."""

    delta_D: Float32 | None
    """What `server.step` makes the next model of; None: no update was asked for."""
    totals: tuple[Release, ...]
    """The statistics, of all members that were added up."""


@dataclass(frozen=True, eq=False)
class Added:
    """One sum."""

    totals: Sequence[Float64]
    """As `out_of`."""
    members: int
    """How many are in it."""
    rows: float
    """As agreed, of these together."""


def read(asks: Question, terms: Terms, sums: Sequence[Added], mechanisms: Sequence[Mechanism]) -> Read:
    """What the sum says; or the sums of groups.

    A total of a statistic is of all groups, and a liar is in it. It says the noise that so many honest members add: no less
    than the ledger was charged for. The change of the model is between those of the groups, wherever the liars are.
    """
    trains, members = isinstance(asks, Train), sum(one.members for one in sums)
    deltas = [_delta(terms, one.totals[0], mechanisms[0], one.rows) for one in sums] if trains else []
    totals = [np.sum(parts, axis=0) for parts in zip(*(one.totals for one in sums), strict=True)]
    return Read(_between(terms, deltas), tuple(
        _total(terms, statistic, total_P, mechanism, members) for statistic, total_P, mechanism in
        zip(asks.statistics, totals[trains:], mechanisms[trains:], strict=True)))


def _between(terms: Terms, deltas: Sequence[Float32]) -> Float32 | None:
    """At every coordinate, the mean of what the groups say without the lowest and the highest where liars may be."""
    groups = None if terms.combine is None else terms.combine.groups
    if not deltas or groups is None:
        return deltas[0] if deltas else None
    if len(deltas) != groups.count:
        raise ContractError(f"{len(deltas)} sums of groups, and the terms say {groups.count}")
    kernel = Kernel(Middle(groups.liars), len(deltas), _BLOCK)
    found_D = np.empty_like(deltas[0])
    for start in range(0, len(found_D), _BLOCK):
        found_D[start:start + _BLOCK] = kernel(np.stack([one_D[start:start + _BLOCK] for one_D in deltas]))
    return found_D


def _delta(terms: Terms, total_D: Float64, mechanism: Mechanism, rows: float) -> Float32:
    match terms.training:
        case Trees():
            return mean_of_sum(terms.training, total_D, rows)
        case UnionStep(learning_rate=rate):
            if not isinstance(mechanism, DpSgd):
                raise ContractError(f"a step on all rows is noised by dp_sgd, this one by {mechanism.kind}")
            return (total_D * (-rate * mechanism.clip_norm / (mechanism.sampling_rate * rows))).astype(np.float32)
        case LocalTraining() | Foreign():
            raise ContractError("steps at the sites are not added up by a secure sum")
        case _:
            assert_never(terms.training)


def _total(terms: Terms, statistic: Statistic, total_P: Float64, mechanism: Mechanism, members: int) -> Release:
    if not isinstance(mechanism, GaussianCounts) or mechanism.shared_by is None or isinstance(terms.privacy, NoPrivacy):
        raise ContractError(f"a total of a secure sum has noise that its members share, this is '{mechanism.kind}' without")
    std = mechanism.noise_std * math.sqrt(members / mechanism.shared_by)
    return Release(statistic=statistic, numbers=tuple(total_P.tolist()),
                   mechanism=capped(GaussianCounts(noise_std=std), cap(terms.privacy)))
