"""When a promise means nothing, whatever its epsilon: too large a delta, too little noise, too small a batch.

With probability delta a mechanism may tell everything. Publishing each record with probability delta is (0, delta)-private:
of n records it publishes delta · n. So delta · n must be well below 1. And where rare draws hide little noise, epsilon may be
small at such a delta while a single draw is a picture of the record (`tests/attacks/test_promise.py` reads them).
"""

from __future__ import annotations

from collections.abc import Iterator

from fedround.privacy.accounting import noise_of_one
from fedround.privacy.spec import DpFtrl, DpSgd, Mechanism

MOST_DELTA_ROWS = 0.1
"""delta_dp times the number of rows may be this at most."""

MIN_NOISE_MULTIPLIER = 0.3
"""What a site asks for if its policy says nothing: noise of this many times what a record can do, in every single release."""

MIN_BATCH = 16
"""And so many rows in a step, expected."""


def largest_delta_dp(rows: int) -> float:
    """The largest delta_dp that means something for so many rows."""
    return MOST_DELTA_ROWS / max(rows, 1)


def doubts(delta_dp: float, rows: int | None, mechanism: Mechanism | None, batch_size: int | None,
           min_noise_multiplier: float = MIN_NOISE_MULTIPLIER, min_batch: int = MIN_BATCH) -> Iterator[str]:
    """What makes a promise mean less than its epsilon, in words for who may know the number of rows. None: not known."""
    if rows is not None and delta_dp * rows > MOST_DELTA_ROWS:
        yield (f"delta_dp {delta_dp:g} times {rows} rows is {delta_dp * rows:.3g}: so many records may be published outright "
               f"under this promise. Sites refuse more than {MOST_DELTA_ROWS:g}: ask for at most "
               f"{largest_delta_dp(rows):.2g}")
    elif rows is None and delta_dp > largest_delta_dp(100):
        yield (f"delta_dp {delta_dp:g} means nothing for more than {MOST_DELTA_ROWS / delta_dp:.0f} rows, and sites with "
               "more refuse")
    if mechanism is not None and (noise := noise_of_one(mechanism)) < min_noise_multiplier:
        yield (f"the noise multiplier of one release is {noise:.3f}: a single draw can be a picture of a record. Sites "
               f"refuse less than {min_noise_multiplier:g} unless their policy says otherwise: ask for a smaller epsilon, "
               "more rounds or steps, or larger batches")
    batch = mechanism.batch_size if isinstance(mechanism, DpFtrl) else batch_size
    if batch is not None and batch < min_batch and not (mechanism is not None and not isinstance(mechanism, DpSgd | DpFtrl)):
        yield (f"batches of {batch} rows: a step is about so few records. Sites refuse fewer than {min_batch} unless their "
               "policy says otherwise: raise training.batch_size")
