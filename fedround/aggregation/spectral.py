"""Spectral filters: what SMEA, CAF and DnC choose, from eigenvectors of the K x K Gram matrix.

Legend: K rows; gram_KK their inner products about any reference. The covariance of rows has the same eigenvalues above zero
as their weighted, centred Gram matrix, and its eigenvectors follow from it: exact in any dimension. The sign of an
eigenvector never matters. If several directions have the first eigenvalue, all of them are used.
"""

from __future__ import annotations

import itertools

import numpy as np

from fedround.aggregation.nearness import mean_of
from fedround.aggregation.rows import Floats

SAME_EIGENVALUE = 1e-9
"""Eigenvalues nearer to the first than this, relative to it, count as the first."""

SAME_DISTANCE = 1e-9
"""Rows whose distance differs from the farthest by less than this (relative) count as equally far. Otherwise rounding could
remove only one of two equal rows."""

SUBSET_BYTES = 64 << 20
"""About how much memory the Gram matrices of the subsets that are looked at together may take."""


def spectral_filter(gram_KK: Floats, f: int) -> Floats:
    """CAF's weights, (K,), adding up to one.

    Every row begins with mass one. Again and again each loses mass in proportion to its squared distance from the mean along
    the covariance's first eigenvector (the farthest all of it), until no more than K-2f is left. The answer is the
    weighted mean on that way whose covariance has the smallest first eigenvalue.
    """
    mass_K: Floats = np.ones(len(gram_KK))
    best_K: Floats = mass_K / mass_K.sum()
    lowest = np.inf
    while mass_K.sum() > len(gram_KK) - 2 * f:
        share_K = mass_K / mass_K.sum()
        centred_KK = _centred(gram_KK, share_K)
        root_K = np.sqrt(share_K)
        value, vectors_KE = _first_eigenspace(root_K[:, None] * centred_KK * root_K)
        if value < lowest:
            best_K, lowest = share_K, value
        # <x_k - mean, u>^2, up to a factor that is the same for all rows.
        along_K: Floats = np.square(centred_KK @ (root_K[:, None] * vectors_KE)).sum(axis=1)
        along_K[mass_K == 0] = 0
        if along_K.max() == 0:
            break
        mass_K = np.where(along_K >= (1 - SAME_DISTANCE) * along_K.max(), 0, mass_K * (1 - along_K / along_K.max()))
    return best_K


def divide_and_conquer(gram_KK: Floats, f: int) -> Floats:
    """DnC's weights, (K,): the mean without the f rows farthest from it along the first singular vector."""
    rows = len(gram_KK)
    _, vectors_KE = _first_eigenspace(_centred(gram_KK, np.full(rows, 1 / rows)))
    order = np.argsort(np.square(vectors_KE).sum(axis=1), kind="stable")
    return mean_of(order[:rows - f].tolist(), rows)


def minimum_spectrum(gram_KK: Floats, f: int) -> Floats:
    """SMEA's weights, (K,): the mean of the K-f rows whose covariance has the smallest first eigenvalue; all are tried."""
    rows = len(gram_KK)
    at_once = max(1, SUBSET_BYTES // (32 * rows * rows))
    subsets = itertools.combinations(range(rows), rows - f)
    best, lowest = list(range(rows - f)), np.inf
    while some := list(itertools.islice(subsets, at_once)):
        at = np.array(some)
        gram_SHH = gram_KK[at[:, :, None], at[:, None, :]]
        mean_SH = gram_SHH.mean(axis=2)
        centred_SHH = gram_SHH - mean_SH[:, :, None] - mean_SH[:, None, :] + mean_SH.mean(axis=1)[:, None, None]
        first_S = np.linalg.eigvalsh(centred_SHH)[:, -1]
        if first_S.min() < lowest:
            best, lowest = list(some[int(first_S.argmin())]), float(first_S.min())
    return mean_of(best, rows)


def _centred(gram_KK: Floats, share_K: Floats) -> Floats:
    """Inner products about the weighted mean of the rows."""
    arms_KK = np.eye(len(gram_KK)) - share_K
    centred_KK: Floats = arms_KK @ gram_KK @ arms_KK.T
    return (centred_KK + centred_KK.T) / 2


def _first_eigenspace(symmetric_KK: Floats) -> tuple[float, Floats]:
    """The largest eigenvalue, and an orthonormal basis of its eigenspace as columns."""
    values, vectors_KK = np.linalg.eigh(symmetric_KK)
    first = float(values[-1])
    return first, vectors_KK[:, values >= first - SAME_EIGENVALUE * abs(first)]
