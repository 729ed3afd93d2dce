"""Pass 1: how long every point is, and how all of them lie to each other.

Legend: P points or numbers, N updates (the first of them), C coordinates of a chunk.

The Gram matrix is float64 and of points that are centred at one of the updates. Centred at an attacker, or not at all, the
distances of updates that lie close together far from there would drown in rounding (float32: wholly; float64: to 1e-8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedround.aggregation.rows import Coordinates, Floats
from fedround.aggregation.sweep import Kernel, total
from fedround.aggregation.verdict import Verdict

SHORTEST, LONGEST = 1e-30, 1e18
"""Norms outside are no update's: below lie denormal numbers, above float32 squares overflow. Zero is an honest answer."""

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
    """Who is left out before any arithmetic on rows, by the norm alone.

    Left out are rows that are not finite, and rows that are nobody's honest update: shorter than 1e-30 without being zero,
    or longer than 1e18. Of the rest, norms that differ by at most a factor of 1000 are linked. If one chain of links holds
    more than half of the rows that are not zero, the others are left out; if none does, nobody can tell who is wrong.

    What is promised: leaving out a row that was left out changes no other verdict, and a majority of honest rows that are
    linked is never left out. What is not: a row within the factor passes, however it was made.
    """
    verdicts = [Verdict.NOT_FINITE if not np.isfinite(norm) else
                Verdict.USED if norm == 0 or SHORTEST <= norm <= LONGEST else Verdict.NORM for norm in norm_N]
    judged = sorted((n for n, verdict in enumerate(verdicts) if verdict is Verdict.USED and norm_N[n] > 0),
                    key=lambda n: norm_N[n])
    chains: list[list[int]] = []
    for n in judged:
        if chains and norm_N[n] <= LINK * norm_N[chains[-1][-1]]:
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
