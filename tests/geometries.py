"""Geometries of explicit vectors, for tests of what is computed on inner products alone."""

from __future__ import annotations

import numpy as np

from fedround.aggregation.geometry import Geometry
from fedround.aggregation.linear import solve


def points_of(x_ND, centre=None, root=None):
    """The rows, the origin, the extra points that are given; and the names of those."""
    extra = {name: point_D for name, point_D in (("centre", centre), ("root", root)) if point_D is not None}
    points_PD = np.vstack([x_ND, np.zeros(np.shape(x_ND)[1]), *extra.values()])
    return points_PD, {name: len(x_ND) + 1 + at for at, name in enumerate(extra)}


def geometry_of(x_ND, weight_N=None, reference=0, centre=None, root=None) -> Geometry:
    """What the engine's first pass makes of these rows."""
    points_PD, extra = points_of(x_ND, centre, root)
    centred_PD = points_PD - points_PD[reference]
    weight_N = np.ones(len(x_ND)) if weight_N is None else np.array(weight_N, dtype=float)
    return Geometry.of(centred_PD @ centred_PD.T, weight_N, extra)


def result_of(rule, x_ND, weight_N=None, reference=0, centre=None, root=None):
    """The vector that a linear rule makes of these rows."""
    points_PD, _ = points_of(x_ND, centre, root)
    coefficients_P = solve(rule, geometry_of(x_ND, weight_N, reference, centre, root))
    return coefficients_P @ points_PD
