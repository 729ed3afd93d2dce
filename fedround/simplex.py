"""The nearest point of a simplex: noised counts made possible again, with their total as it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def onto_simplex(values: Float64, total: Float64, axis: int) -> Float64:
    """The nearest numbers of at least 0 whose sum along `axis` is `total` (Duchi et al. 2008, ICML).

    total: at least 0, of the same shape but for a 1 in place of the axis. It reads nothing but its arguments: of what was
    noised before, it costs no privacy.
    """
    falling = np.flip(np.sort(values, axis=axis), axis=axis)
    places = np.expand_dims(np.arange(1, values.shape[axis] + 1), tuple(range(1, values.ndim - axis % values.ndim)))
    over = (np.cumsum(falling, axis=axis) - total) / places
    last = np.maximum((falling > over).sum(axis=axis, keepdims=True) - 1, 0)
    return np.asarray(np.maximum(values - np.take_along_axis(over, last, axis=axis), 0.0))
