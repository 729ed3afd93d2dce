"""Noised counts of groups made possible again: no count below zero, and every attribute's groups add up to the same people.

G groups, B draws; the last two axes are (truth, decision).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.simplex import onto_simplex

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CountedGroup:
    """One attribute's noised counts."""

    attribute: str
    groups: tuple[str, ...]
    cells_G22: Float64
    """May be negative."""
    noise_std: float
    """Of the normal noise on each; 0: they are exact."""


def possible(cells: Sequence[Float64], noise_stds: Sequence[float]) -> list[Float64]:
    """The nearest possible counts: at least 0, and with the same sum over groups for every attribute.

    cells: (…, G, 2, 2) for each attribute. The sums are the mean over attributes, weighted by how sure each is, or 0 if that
    is negative. Then each attribute's groups are the nearest counts of at least 0 with these sums (Euclidean projection on a
    simplex; "norm-sub" in Wang et al. 2020, arXiv:1905.08320). It reads nothing but noised counts, so it costs no privacy.
    It is biased for groups that are small beside the noise, upwards; the intervals are simulated with it.
    """
    variances = np.array([one.shape[-3] * max(std, 1e-9) ** 2 for one, std in zip(cells, noise_stds, strict=True)])
    weights = (1 / variances) / (1 / variances).sum()
    sums = sum(weight * one.sum(axis=-3) for weight, one in zip(weights, cells, strict=True))
    total = np.maximum(sums, 0.0)[..., None, :, :]
    return [onto_simplex(one, total, axis=-3) for one in cells]
