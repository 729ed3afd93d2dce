"""Noised numbers as whole numbers modulo 2**32, so that masks hide them wholly and sums are exact.

A lattice cell is 2**-bits of the caller's unit. Each member adds Gaussian noise to its own sum and rounds to the lattice.
Let s be the standard deviation of one member's noise in cells, N how many members add up. Then the sum of the rounded numbers
has, up to a factor within 1 ± `law_error` for every outcome, the law of

    round(all exact numbers + one Gaussian of s * sqrt(N) + N - 1 independent uniforms on [-1/2, 1/2)),

which is computed from a release of the Gaussian mechanism. So the sum costs what that mechanism costs. The proof is three
lines of Poisson summation (docs/secure-sums.md). It takes noise whose own cells are whole parts of half a lattice cell:
`whole_cells` says how many make a unit. Then rounding to them first, and to the lattice later, is rounding once.

D coordinates.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError, ToleranceError
from fedround.privacy.noise import GRID

Float64 = npt.NDArray[np.float64]
UInt32 = npt.NDArray[np.uint32]

RING_BITS = 32
TAIL = 12.0
"""Standard deviations of a sum's noise for which the ring has room: beyond lies less than 2**-106 of it."""
LEAST_CELLS = 4.0
"""In one member's standard deviation: then `law_error` is below N * 2**-226."""
ENOUGH_CELLS = 256.0
"""More of them gain nothing: rounding adds less than a millionth to the variance."""
_MOST_BITS = 28
_BEYOND = 2.0 ** 62
_BLOCK = 1 << 15                # numbers at once
_SEEN = 2.0 ** 49               # halves of the noise's cells up to which float64 tells whole numbers from others


def bits_for(largest: float, std: float, members: int) -> int:
    """How fine the lattice is: a cell is 2**-bits of the unit (bits may be negative).

    largest: of the sum of all members' exact numbers, the largest size of a coordinate that there can be.
    std: of one member's noise, as `whole_cells` draws it. 0: no noise; then as fine as the ring allows.
    Raises ToleranceError, with the numbers, if a sum could leave the ring, or the noise is below `LEAST_CELLS` cells.
    """
    if not (0 < largest < math.inf and 0 <= std < math.inf and members >= 1):
        raise ContractError(f"a lattice is for a largest sum above 0 and noise of 0 or more, got {largest} and {std}")
    wanted = _MOST_BITS if std == 0 else min(_MOST_BITS, math.ceil(math.log2(ENOUGH_CELLS / std)))
    reach = largest + TAIL * std * math.sqrt(members)
    room = 2.0 ** (RING_BITS - 1) - members
    bits = min(wanted, math.floor(math.log2(room / reach)))
    if reach * 2.0 ** bits >= room:             # the logarithm was rounded up
        bits -= 1
    if std * 2.0 ** bits < LEAST_CELLS and std > 0:
        raise ToleranceError(f"the sum of {members} members may reach {largest:g}, and 12 standard deviations of noise more, "
                             f"{reach:g} in all: in a ring of 2^{RING_BITS} that leaves a member's noise of {std:g} only "
                             f"{std * 2.0 ** bits:.2g} cells, and it must have {LEAST_CELLS:g}; ask for more noise, or for "
                             "smaller sums (fewer rows in a step)")
    return bits


def whole_cells(std: float, bits: int) -> int:
    """How many cells of noise (`fedround.privacy.noise`) make a unit, so that half a lattice cell is a whole number of them.

    The noise that is drawn so, GRID / whole_cells, is `std` or more: with `bits_for`'s bits by less than one part in 2**17,
    or in 2**27 / std if that is fewer.
    Raises ContractError if the lattice is too fine for that.
    """
    step = 1 << max(bits + 1, 0)
    cells = math.floor(GRID / std / step) * step
    if cells < 1:
        raise ContractError(f"noise of {std:g} units has no whole number of cells on a lattice of 2^{bits} cells to a unit")
    return cells


def to_ring(numbers_D: Float64, bits: int, cells: int) -> UInt32:
    """The nearest lattice points, modulo 2**32. Numbers beyond the ring wrap: what must fit in it is the sum.

    cells: of the noise, in a unit (`whole_cells`): noised numbers are a whole number of halves of them.
    Raises ContractError for numbers that are not, or not finite, or so large that no plan has them: the law at the head would
    not be theirs.
    """
    found_D = np.empty(len(numbers_D), np.uint32)
    for start in range(0, len(numbers_D), _BLOCK):
        part = numbers_D[start:start + _BLOCK]
        points = np.rint(part * 2.0 ** bits)
        if not (np.abs(points) < _BEYOND).all():
            raise ContractError("numbers for a secure sum must be finite and far below 2^62 cells; a site's work has a fault")
        halves = part * (2.0 * cells)
        if ((np.abs(halves - np.rint(halves)) > 0.25) & (np.abs(halves) < _SEEN)).any():
            raise ContractError("numbers for a secure sum must be noised on cells that divide its lattice's (`whole_cells`), "
                                "and these are not: a site's work has a fault")
        found_D[start:start + _BLOCK] = points.astype(np.int64).astype(np.uint32)
    return found_D


def from_ring(total_D: UInt32, bits: int) -> Float64:
    """The sum that a total modulo 2**32 stands for, exactly, where it lies in [-2**31, 2**31) cells."""
    return np.ldexp(total_D.astype(np.uint32).view(np.int32).astype(np.float64), -bits)


def law_error(cells: float, members: int) -> float:
    """By which factor less 1 the probability of any value of one coordinate's sum can differ from the law at the head.

    cells: one member's standard deviation. Over D coordinates the logarithms add up: D times that, in epsilon.
    """
    parts = (2 * sum(math.exp(-2 * (math.pi * m * cells) ** 2 * k / (k + 1)) for m in range(1, 5)) for k in range(1, members))
    return math.expm1(sum(map(math.log1p, parts)))
