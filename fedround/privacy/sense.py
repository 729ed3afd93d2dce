"""When a promise means little, whatever its epsilon: if delta is too large, the noise too small, or the batch too small.

With probability delta a mechanism may tell everything. Publishing each record with probability delta is (0, delta)-private:
of n records it publishes delta · n. So delta · n must be well below 1. And with rare sampling and little noise, epsilon may
be small at such a delta, although a single draw shows the record (`tests/attacks/test_promise.py` reads them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import ROUND_FLOOR, Context

from fedround.privacy.spec import DpFtrl, DpSgd, Mechanism
from fedround.privacy.units import noise_of_one
from fedround.spoken import how_many

MOST_DELTA_ROWS = 0.1
"""delta_dp times the number of rows may be this at most."""

MIN_NOISE_MULTIPLIER = 0.3
"""The default of a site's policy: in every single release, the noise is at least this many times the effect of one record."""

MIN_BATCH = 16
"""The default of a site's policy: at least this many expected rows in a step."""

_DOWN = Context(prec=2, rounding=ROUND_FLOOR)       # who follows an advice must not be refused again


def largest_delta_dp(rows: int) -> float:
    """The largest delta_dp that means something for so many rows."""
    return MOST_DELTA_ROWS / max(rows, 1)


def doubts(delta_dp: float, rows: int | None, mechanism: Mechanism | None, batch_size: int | None,
           min_noise_multiplier: float = MIN_NOISE_MULTIPLIER, min_batch: int = MIN_BATCH) -> Iterator[str]:
    """Reasons why a promise means less than its epsilon, in words for readers who may know the number of rows. None: it is
    not known.
    """
    if rows is not None and delta_dp > largest_delta_dp(rows):
        yield (f"delta_dp {delta_dp:g} times {how_many(rows, 'row')} is {delta_dp * rows:.3g}: so many records may be "
               f"published outright under this promise. Sites refuse more than {MOST_DELTA_ROWS:g}: ask for at most "
               f"{_DOWN.create_decimal(largest_delta_dp(rows)):g}")
    elif rows is None and delta_dp > largest_delta_dp(100):
        yield (f"delta_dp {delta_dp:g} means nothing for more than {math.floor(MOST_DELTA_ROWS / delta_dp)} rows, and sites "
               "with more refuse")
    if mechanism is not None and (noise := noise_of_one(mechanism)) < min_noise_multiplier:
        yield (f"the noise multiplier of one release is {noise:.3f}: a single draw can be a picture of a record. Sites "
               f"refuse less than {min_noise_multiplier:g} unless their policy says otherwise: ask for a smaller epsilon, "
               "more rounds or steps, or larger batches")
    batch = mechanism.batch_size if isinstance(mechanism, DpFtrl) else batch_size
    if batch is not None and batch < min_batch and not (mechanism is not None and not isinstance(mechanism, DpSgd | DpFtrl)):
        yield (f"batches of {how_many(batch, 'row')}: a step is about so few records. Sites refuse fewer than {min_batch} "
               "unless their policy says otherwise: raise training.batch_size")
