"""What is known of an upload before it is seen: how long its signal can be, and how loud its noise is.

Legend: T steps of training, b the expected batch, q the sampling rate, m_t how much step t counts in the upload.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from fedround.errors import ContractError

_FLOAT32_MAX = 3.4e38


@dataclass(frozen=True)
class NoiseLaw:
    """An upload is signal + noise: |signal| <= `signal_bound` (Euclidean), the noise of every coordinate is N(0, `variance`).

    Raises ContractError if a bound is negative, the variance not above zero, or either more than float32 can hold: then what
    the site declared is not a law.
    """

    signal_bound: float
    variance: float

    def __post_init__(self) -> None:
        if not (0 <= self.signal_bound <= _FLOAT32_MAX and sys.float_info.min <= self.variance <= _FLOAT32_MAX ** 2):
            raise ContractError(f"signals up to {self.signal_bound:.3g} with noise of variance {self.variance:.3g} are no "
                                "law of an update: check the declared mechanism")

    @property
    def std(self) -> float:
        """Standard deviation of the noise of one coordinate."""
        return math.sqrt(self.variance)


def averaged(old: NoiseLaw, new: NoiseLaw, share: float) -> NoiseLaw:
    """The law of (1 - share) x old + share x new, for uploads with independent noise: one step of a moving average.

    Uploads of one site over rounds have independent noise, because every round draws its own.
    """
    return NoiseLaw(signal_bound=(1 - share) * old.signal_bound + share * new.signal_bound,
                    variance=(1 - share) ** 2 * old.variance + share ** 2 * new.variance)


def with_rounding(law: NoiseLaw, variance: float, longest: float) -> NoiseLaw | None:
    """The law of numbers that were rounded at random on their way, which added so much `variance`, on average over the
    coordinates (`fedround.compression.quantised.rounding`); None if the longest step is too long for the noise to blur.

    Up to 1.5 standard deviations that variance is what is said to one part in ten thousand, whatever the signal is.
    """
    if longest > 1.5 * law.std:
        return None
    return NoiseLaw(signal_bound=law.signal_bound, variance=law.variance + variance)
