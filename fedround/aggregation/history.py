"""A moving average of one site's uploads, one upload at a time (Karimireddy et al. 2021, arXiv:2012.10333).

After uploads u_1 … u_t, with beta < 1::

    W_t = beta W_{t-1} + 1        A_t = A_{t-1} + (u_t - A_{t-1}) / W_t

Bias-corrected: the weights of the uploads add up to one, so A_1 = u_1. B coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedround.aggregation.noise_law import NoiseLaw, averaged
from fedround.aggregation.rows import Coordinates


@dataclass(frozen=True)
class History:
    """What is known of an average besides its coordinates."""

    weight: float
    """W: the sum of beta^age over its uploads."""
    law: NoiseLaw | None
    """Of the noise in it; None if any upload's is unknown."""

    @property
    def share(self) -> float:
        """How much of the average is the last upload."""
        return 1 / self.weight


def with_upload(past: History | None, law: NoiseLaw | None, beta: float) -> History:
    """The history with one upload more; `law` is that of the upload. Without a past it begins."""
    if past is None or beta == 0:
        return History(1.0, law)
    weight = beta * past.weight + 1
    return History(weight, None if past.law is None or law is None else averaged(past.law, law, 1 / weight))


def blend(past_B: Coordinates | None, upload_B: Coordinates, history: History) -> Coordinates:
    """The average with the upload in it, every coordinate by itself, float64 inside.

    An upload that is not finite makes the average not finite; a later step must check it.
    """
    if past_B is None or history.share == 1:
        return upload_B
    with np.errstate(invalid="ignore"):         # a signalling NaN would warn
        wide_B = past_B.astype(np.float64)
        return (wide_B + history.share * (upload_B - wide_B)).astype(np.float32)
