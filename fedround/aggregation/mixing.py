"""Mixing: what is done to the rows before the rule, from inner products alone.

Legend: K rows that a rule sees, B buckets. Exact ties go to the first in site order.
"""

from __future__ import annotations

import hashlib
import math
from typing import assert_never

import numpy as np

from fedround.aggregation.geometry import Geometry
from fedround.aggregation.linear import shrinking
from fedround.aggregation.rows import Floats
from fedround.aggregation.spec import ArcClipping, Bucketing, Mixing, NearestNeighbourMixing, StaticClipping

_DOMAIN = b"fedround/1/bucketing"


def mix(mixing: Mixing, geometry: Geometry, seed: bytes, std_K: Floats | None = None) -> Geometry:
    """The geometry in which the next part sees mixed rows.

    seed: what the order of buckets is drawn from (the plan's digest); used by bucketing only. std_K: the noise of every row,
    which inner products are measured in; None: all alike.
    Raises ToleranceError, naming the theorem, if the cohort is too small.
    """
    mixing.check(len(geometry))
    match mixing:
        case NearestNeighbourMixing(f=f, near=near):
            if near == "distance":
                return nearest_neighbour_mixing(geometry, geometry.squared_distances_KK(), f)
            along_KK = geometry.inner_products(geometry.origin_P) / (1.0 if std_K is None else std_K)
            return nearest_neighbour_mixing(geometry, -along_KK, f)
        case Bucketing(size=size):
            return bucketing(geometry, size, seed)
        case StaticClipping(norm=norm):
            return geometry.scaled(shrinking(geometry.norms_K(), norm))
        case ArcClipping(f=f):
            return adaptive_clipping(geometry, f)
        case _:
            assert_never(mixing)


def nearest_neighbour_mixing(geometry: Geometry, farness_KK: Floats, f: int) -> Geometry:
    """Every row becomes the weighted mean of itself and its K-f-1 nearest others. Weights stay with their rows."""
    others_KK = np.where(np.eye(len(geometry), dtype=bool), -np.inf, farness_KK)      # itself first, whatever its twins
    nearest = np.argsort(others_KK, axis=1, kind="stable")[:, :len(geometry) - f]
    mixing_KK = np.zeros_like(farness_KK)
    np.put_along_axis(mixing_KK, nearest, geometry.share_K[nearest], axis=1)
    return geometry.mixed(mixing_KK / mixing_KK.sum(axis=1, keepdims=True), geometry.weight_K)


def bucketing(geometry: Geometry, size: int, seed: bytes) -> Geometry:
    """Buckets of `size` rows (the last one may be smaller) become their means; a bucket weighs what its rows weigh.

    Who shares a bucket follows from the seed and the rows' places in site order. Whoever knows the seed knows the buckets.
    """
    order = shuffled(len(geometry), seed)
    mixing_BK = np.zeros((math.ceil(len(order) / size), len(order)))
    for place, row in enumerate(order):
        mixing_BK[place // size, row] = 1
    weight_B = mixing_BK @ (geometry.weight_K / geometry.weight_K.max())
    return geometry.mixed(mixing_BK / mixing_BK.sum(axis=1, keepdims=True), weight_B)


def shuffled(count: int, seed: bytes) -> list[int]:
    """A pseudorandom order of 0 … count-1, from SHA-256 of the seed. To get a chosen order, one would have to find a seed
    that gives it.
    """
    key = hashlib.sha256(_DOMAIN + seed).digest()
    return sorted(range(count), key=lambda place: hashlib.sha256(key + place.to_bytes(4, "big")).digest())


def adaptive_clipping(geometry: Geometry, f: int) -> Geometry:
    """The k = floor(2 f (K-f) / K) longest rows are scaled down to the norm of the next longest."""
    norm_K = geometry.norms_K()
    clipped = 2 * f * (len(norm_K) - f) // len(norm_K)
    return geometry.scaled(shrinking(norm_K, float(np.sort(norm_K)[len(norm_K) - 1 - clipped])))
