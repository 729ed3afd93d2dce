"""Pass 1: the norm of every point, and all inner products.

Legend: P points or numbers, N updates (the first of them), C coordinates of a chunk.

The Gram matrix is float64 and of points that are centred at one of the updates. If the reference were an attacker's, or the
origin, and the updates lay close together far from it, rounding would hide their distances (in float32: wholly; in float64:
to 1e-8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedround.aggregation.rows import Coordinates, Floats
from fedround.aggregation.sweep import Kernel, total
from fedround.aggregation.verdict import Verdict

SHORTEST, LONGEST = 1e-30, 1e18
"""No update may have a norm outside this range: below are denormal numbers, and above float32 squares overflow. Zero is
allowed."""

LINK = 1000.0
"""Norms that differ by at most this factor belong together."""


@dataclass(frozen=True)
class Survey:
    """Work: the inner products of the points about the update `reference`, and each point's own sum of squares.

    numbers: how many are read: the updates, then the coordinator's own. The origin is not: about the reference r the
    reference itself is zero, and the origin is -r. So r stands in the reference's place while the products are made.
    """

    numbers: int
    sites: int
    reference: int
    writes = False

    @property
    def shape(self) -> tuple[int, int]:
        """Of what is added up: products beside squares."""
        return self.numbers, self.numbers + 1

    def scratch_bytes(self, chunk: int) -> int:
        """As `Work`."""
        return 8 * (self.numbers + 1) * chunk

    def kernel(self, chunk: int) -> Kernel:
        """As `Work`."""
        scratch_PC, scratch_C, sums = np.empty((self.numbers, chunk)), np.empty(chunk), np.empty(self.shape)

        def measure(x_PC: Coordinates, _: Coordinates) -> Floats:
            width = x_PC.shape[1]
            x, reference = scratch_PC[:, :width], scratch_C[:width]
            x[:] = x_PC
            np.vecdot(x, x, out=sums[:, -1])
            reference[:] = x[self.reference]
            x -= reference
            x[self.reference] = reference
            np.matmul(x, x.T, out=sums[:, :-1])
            return sums

        return measure

    def found(self, slabs: Floats) -> Surveyed:
        """From the sums that a sweep of it returned."""
        sums = total(slabs)
        place = np.arange(self.numbers) + (np.arange(self.numbers) >= self.sites)
        place[self.reference] = self.sites
        sign = np.where(place == self.sites, -1.0, 1.0)
        gram_PP = np.zeros((self.numbers + 1, self.numbers + 1))
        gram_PP[np.ix_(place, place)] = sums[:, :-1] * np.outer(sign, sign)
        return Surveyed(gram_PP, sums[:, -1].copy(), self.reference)


@dataclass(frozen=True, eq=False)
class Surveyed:
    """What pass 1 found."""

    gram_PP: Floats
    """Updates, origin, the coordinator's own; about the reference."""
    square_P: Floats
    """The squared norm of everything that was read; NaN or infinite where it is not finite, exactly zero for zero."""
    reference: int


def screen(norm_N: Floats) -> list[Verdict]:
    """Which rows are left out before any arithmetic, by the norm alone.

    Left out are rows that are not finite, and rows that cannot be honest: shorter than 1e-30 but not zero, or longer than
    1e18. Of the rest, norms that differ by at most a factor of 1000 are linked. If one chain of links holds more than half
    of the rows that are not zero, the others are left out; if none does, it is not known which rows are wrong.

    Promised: removing a row that was left out changes no other verdict, and a linked majority of honest rows is never left
    out. Not promised: that a row within the factor is honest.
    """
    norms: list[float] = norm_N.tolist()
    verdicts = [Verdict.NOT_FINITE if not math.isfinite(norm) else
                Verdict.USED if norm == 0 or SHORTEST <= norm <= LONGEST else Verdict.NORM for norm in norms]
    judged = sorted((n for n, verdict in enumerate(verdicts) if verdict is Verdict.USED and norms[n] > 0),
                    key=norms.__getitem__)
    chains: list[list[int]] = []
    for n in judged:
        if chains and norms[n] <= LINK * norms[chains[-1][-1]]:
            chains[-1].append(n)
        else:
            chains.append([n])
    if any(2 * len(chain) > len(judged) for chain in chains):
        for chain in chains:
            if 2 * len(chain) <= len(judged):
                for n in chain:
                    verdicts[n] = Verdict.NORM
    return verdicts


def why(verdict: Verdict) -> str:
    """A reason for people."""
    return {Verdict.NOT_FINITE: "holds NaN or infinite numbers",
            Verdict.NORM: f"too long or too short: norms up to {LINK:g} times apart are linked, and most others are"}[verdict]


def guess_reference(norm_N: Floats) -> int:
    """The row of median norm (the lower one of two; of equal ones the first) among those that are finite; row 0 if none is.

    norm_N: norms over a sample of the coordinates, from which the reference is guessed before the rows are read.
    """
    finite = np.flatnonzero(np.isfinite(norm_N))
    return int(finite[_middle(norm_N[finite])]) if len(finite) else 0


def reference(norm_N: Floats, sampled_norm_N: Floats) -> int:
    """Where rows that are all admitted are centred: at the guess, if its norm is within a factor of two of the median
    norm, else at the row of median norm.
    """
    middle, guess = _middle(norm_N), guess_reference(sampled_norm_N)
    return guess if norm_N[middle] / 2 <= norm_N[guess] <= 2 * norm_N[middle] else middle


def _middle(norm_N: Floats) -> int:
    return int(np.argsort(norm_N, kind="stable")[(len(norm_N) - 1) // 2])
