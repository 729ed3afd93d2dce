"""A cohort described by inner products instead of coordinates.

Legend: P points (the N admitted rows in site order, the origin, then any extra points), K rows that a rule sees.

All that a rule of distances needs fits into one P x P matrix, however many coordinates a model has. Every row that a rule
sees is an affine combination of the points (coefficients that add up to one), so that nothing depends on where the
coordinate system has its zero: the Gram matrix may be taken about any reference, and clipping is a step towards the
point called origin. The closer the reference is to the honest rows, the less is lost to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from fedround.aggregation.rows import Floats
from fedround.errors import ContractError


@dataclass(frozen=True, eq=False)
class Geometry:
    """The rows of a cohort as combinations of points of which only the inner products are known.

    gram_PP: inner products of the points, seen from any common reference; float64, finite.
    sites: N. Points 0 … N-1 are the admitted rows, point N is the origin (the update that changes nothing).
    combos_KP: the K rows that a rule sees, one affine combination of points each. `of` starts with the admitted rows.
    weight_K: the agreed weights of these rows, above zero; only their ratios matter.
    extra: where the other points are, by name: "centre" (of centered clipping), "root" (of FLTrust).

    Raises ContractError if the shapes do not fit, or a number is not finite or a weight not above zero.
    """

    gram_PP: Floats
    sites: int
    combos_KP: Floats
    weight_K: Floats
    extra: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        points, rows = len(self.gram_PP), len(self.weight_K)
        if self.gram_PP.shape != (points, points) or self.combos_KP.shape != (rows, points) or rows < 1:
            raise ContractError(f"a geometry of {points} points and {rows} rows got a Gram matrix {self.gram_PP.shape} and "
                                f"combinations {self.combos_KP.shape}")
        if not 1 <= self.sites < points or any(not self.sites < at < points for at in self.extra.values()):
            raise ContractError(f"{points} points must be {self.sites} rows, then the origin, then extra points")
        if not (np.isfinite(self.gram_PP).all() and np.isfinite(self.weight_K).all() and (self.weight_K > 0).all()):
            raise ContractError("inner products must be finite, weights finite and above 0: screen the rows first")

    @classmethod
    def of(cls, gram_PP: Floats, weight_N: Floats, extra: Mapping[str, int] | None = None) -> Geometry:
        """The geometry in which a rule sees the N admitted rows as they are."""
        sites = len(weight_N)
        return cls(gram_PP, sites, np.eye(sites, len(gram_PP)), weight_N, MappingProxyType(dict(extra or {})))

    def __len__(self) -> int:
        """K, the rows that a rule sees."""
        return len(self.combos_KP)

    @property
    def share_K(self) -> Floats:
        """The weights, made to add up to one."""
        relative_K = self.weight_K / self.weight_K.max()        # the sum of very large weights would be infinite
        share_K: Floats = relative_K / relative_K.sum()
        return share_K

    def point(self, name: str) -> Floats | None:
        """Coefficients of the extra point `name`, (P,); None if there is no such point."""
        return self._point(self.extra[name]) if name in self.extra else None

    @property
    def origin_P(self) -> Floats:
        """Coefficients of the update that changes nothing."""
        return self._point(self.sites)

    def inner_products(self, about_P: Floats) -> Floats:
        """Inner products of the rows as seen from a point, (K, K)."""
        arms_KP = self.combos_KP - about_P
        gram_KK: Floats = arms_KP @ self.gram_PP @ arms_KP.T
        return (gram_KK + gram_KK.T) / 2                        # BLAS need not return a symmetric product

    def gram_KK(self) -> Floats:
        """Inner products of the rows about the reference: for what depends only on differences between rows."""
        return self.inner_products(np.zeros(len(self.gram_PP)))

    def squared_distances_KK(self) -> Floats:
        """Between every two rows; never below zero, zero on the diagonal."""
        gram_KK = self.gram_KK()
        square_K = gram_KK.diagonal()
        distances_KK = np.maximum(square_K[:, None] + square_K - 2 * gram_KK, 0)    # rounding can make it negative
        np.fill_diagonal(distances_KK, 0)
        return distances_KK

    def distances_to(self, point_P: Floats) -> Floats:
        """From every row to a point, (K,)."""
        arms_KP = self.combos_KP - point_P
        distances_K: Floats = np.sqrt(np.maximum(((arms_KP @ self.gram_PP) * arms_KP).sum(axis=1), 0))
        return distances_K

    def norms_K(self) -> Floats:
        """Length of every row: its distance to the origin."""
        return self.distances_to(self.origin_P)

    def coefficients(self, weight_K: Floats) -> Floats:
        """Coefficients over points of a combination of rows whose weights add up to one, (P,)."""
        coefficients_P: Floats = weight_K @ self.combos_KP
        return coefficients_P

    def scaled(self, factor_K: Floats) -> Geometry:
        """The geometry with every row multiplied by its factor: a step towards the origin, or away from it."""
        combos_KP = factor_K[:, None] * self.combos_KP
        combos_KP[:, self.sites] += 1 - factor_K
        return replace(self, combos_KP=combos_KP)

    def mixed(self, mixing_MK: Floats, weight_M: Floats) -> Geometry:
        """The geometry in which a rule sees M affine combinations of the rows."""
        return replace(self, combos_KP=mixing_MK @ self.combos_KP, weight_K=weight_M)

    def only(self, rows: Sequence[int]) -> Geometry:
        """The geometry in which a rule sees some of the rows only."""
        at = list(rows)
        return replace(self, combos_KP=self.combos_KP[at], weight_K=self.weight_K[at])

    def _point(self, at: int) -> Floats:
        point_P = np.zeros(len(self.gram_PP))
        point_P[at] = 1
        return point_P
