"""How far noise and sampling will move a gap, before anybody is asked, and which noise for which attribute moves them least.

G groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from validation.group_cells import Float64


@dataclass(frozen=True, eq=False)
class Expected:
    """An attribute's held-out people, as anybody may guess them from public rows."""

    attribute: str
    people_G: Float64
    """Of all sites together, those of whom a rate is a share: all for selection, those with label 1 for recall."""
    rate: float
    """About how large the rate is."""
    cells: int
    """How many noised counts stand for the numerator, and as many for the rest: 2 for selection, 1 for recall."""
    sites: int

    def half_width(self, noise_std: float) -> float:
        """About half the 95 % interval of the largest gap, if every site adds this noise to each count.

        Of the two groups that are worst off, to first order in noise and sampling; for all pairs of groups together
        (Bonferroni). Infinite if a group has nobody.
        """
        if not self.people_G.min() > 0:
            return math.inf
        sampling, noise = self._variances()
        return self._quantile * math.sqrt(sampling + noise * noise_std ** 2)

    @property
    def _quantile(self) -> float:
        pairs = max(1, len(self.people_G) * (len(self.people_G) - 1) // 2)
        return NormalDist().inv_cdf(1 - 0.025 / pairs)

    def _variances(self) -> tuple[float, float]:
        """Of a gap: from sampling, and from noise of standard deviation 1 at each site."""
        worst = np.sort(1 / self.people_G)[-2:]
        missed = 1 - self.rate
        noise = self.cells * self.sites * (missed ** 2 + self.rate ** 2) * float((worst ** 2).sum())
        return self.rate * missed * float(worst.sum()), noise


def quietest(expected: Sequence[Expected], noise_stds: Sequence[float]) -> tuple[float, ...]:
    """For the same epsilon, the noise of each attribute with which the largest half-width is smallest.

    The same epsilon is the same sum of 1 / noise_std². All half-widths are then equal, unless sampling alone makes one larger
    than the others: found by bisection. Returns `noise_stds` if a group has nobody.
    """
    spent = math.fsum(1 / std ** 2 for std in noise_stds)
    of_sampling = max(one.half_width(0.0) for one in expected)
    if math.isinf(of_sampling):
        return tuple(noise_stds)

    def stds_at(width: float) -> list[float]:
        found = []
        for one in expected:
            sampling, noise = one._variances()
            room = (width / one._quantile) ** 2 - sampling
            found.append(math.sqrt(max(room, 1e-18) / noise))
        return found

    low, high = of_sampling, max(one.half_width(std) for one, std in zip(expected, noise_stds, strict=True))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if math.fsum(1 / std ** 2 for std in stds_at(middle)) <= spent else (middle, high)
    return tuple(stds_at(high))
