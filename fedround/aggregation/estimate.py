"""How far updates lie apart where no rule asks for it: exact lengths, angles from a sample.

Legend: N updates, R the result, S sampled coordinates.

All inner products cost more than a trimmed mean does. Seen from the result, the distance of two updates is two lengths and
an angle,

    |u_i - u_j|^2 = a_i^2 + a_j^2 - 2 a_i a_j cos_ij        with a_i = |u_i - R|,

and the lengths are measured on every coordinate anyway. So an update that is far from the result also appears far from the
others, wherever in the model the difference lies. No estimate is below |a_i - a_j| or above a_i + a_j. The cosines come from
the sample: where updates differ by noise they are right to about 1/sqrt(S).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from fedround.aggregation.geometry import Geometry
from fedround.aggregation.rows import ArrayNumbers, Coordinates, Excerpt, Floats, Numbers
from fedround.aggregation.survey import Survey
from fedround.aggregation.sweep import Sweeper

SAMPLE = 1 << 18
"""S; models with no more coordinates are looked at as a whole."""

_WINDOW = 1 << 12
_DOMAIN = b"fedround/1/windows"


def distances(points: Sequence[Numbers], delta_D: Coordinates, distance_N: Floats, reference: int, seed: bytes,
              sweeper: Sweeper) -> Floats:
    """Euclidean distances between the points, (N, N); exact if D <= S.

    distance_N: of each point to the result `delta_D`. reference: which point the sample is centred at.
    """
    def survey(of: Sequence[Numbers], coordinates: int) -> Floats:
        work = Survey(len(of), len(points), reference)
        return work.found(sweeper(of, work, coordinates).slabs).gram_PP

    if len(delta_D) <= SAMPLE:
        return np.sqrt(Geometry.of(survey(points, len(delta_D)), np.ones(len(points))).squared_distances_KK())
    starts = windows(len(delta_D), seed)
    result_S = np.empty(SAMPLE, np.float32)             # read here: the whole result need not travel to other processes
    Excerpt(ArrayNumbers(delta_D), starts, _WINDOW).read(0, result_S)
    gram_PP = survey([*(Excerpt(point, starts, _WINDOW) for point in points), ArrayNumbers(result_S)], SAMPLE)
    arms_NP = np.eye(len(points), len(gram_PP))         # the updates, as seen from the result, which is the last point
    arms_NP[:, -1] = -1
    return _from_angles(distance_N, arms_NP @ gram_PP @ arms_NP.T)


def windows(coordinates: int, seed: bytes) -> tuple[int, ...]:
    """Where the windows of the sample begin: one in each of equal parts of the model, anywhere in it (SHA-256)."""
    key, count = hashlib.sha256(_DOMAIN + seed).digest(), SAMPLE // _WINDOW
    starts = []
    for part in range(count):
        low, high = part * coordinates // count, (part + 1) * coordinates // count - _WINDOW
        drawn = int.from_bytes(hashlib.sha256(key + part.to_bytes(4, "big")).digest()[:16], "big")
        starts.append(low + drawn % (high - low + 1))
    return tuple(starts)


def _from_angles(length_N: Floats, product_NN: Floats) -> Floats:
    """Distances between the ends of arrows from one point: their lengths, and sampled inner products for the cosines."""
    sampled_N = np.sqrt(np.maximum(product_NN.diagonal(), 0))
    both_NN = np.outer(sampled_N, sampled_N)
    cosine_NN = np.clip(np.divide(product_NN, both_NN, out=np.zeros_like(both_NN), where=both_NN > 0), -1, 1)
    square_NN = np.add.outer(length_N ** 2, length_N ** 2) - 2 * np.outer(length_N, length_N) * cosine_NN
    square_NN = np.maximum(square_NN + square_NN.T, 0) / 2              # BLAS need not return a symmetric product
    np.fill_diagonal(square_NN, 0)
    distance_NN: Floats = np.sqrt(square_NN)
    return distance_NN
