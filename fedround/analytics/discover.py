"""The commonest texts of a column when nobody knows which there are: a walk along their beginnings, in sketches of growing
length (after Zhu et al. 2020, "Federated heavy hitters discovery with differential privacy", and Apple 2017).

Every sketch is one noised sum over all records, and all are asked together: the walk itself reads what was released, and
costs nothing. C candidates, K rows of W buckets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from fedround.analytics.estimates import WIDTH, Table, listed
from fedround.analytics.readings import noise_of
from fedround.errors import ContractError
from fedround.statistics import Prefixes, Release
from fedround.statistics.sketch import END

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,-_/"
MOST_NEXT = 10_000
"""Ways to go on from one beginning to the next."""

_FALSE = 0.05                   # texts that nobody holds, expected at most in the whole answer
_KEPT = 64                      # beginnings that are followed
_MAD = 1.4826
_HALF = 0.5                     # of a record, where nothing is noised


def discovered(releases: Sequence[Release], letters: str, most: int) -> Table:
    """The commonest texts of these letters, commonest first, and how common a text must be to be seen.

    Not promised: texts with other letters; texts that many others share buckets with. Longer texts than the last sketch tells
    apart are one with all that begin alike, and end with "…".
    """
    found, spread, seen, before = {"": math.inf}, 0.0, 0.0, 0
    for release in releases:
        sketch = _sketch(release)
        found, spread, least = _level(release, sketch, found, letters, sketch.length - before, len(releases))
        seen, before = max(seen, least), sketch.length
    best = list(found)[:most]
    words: list[tuple[str, ...]] = [(one.removesuffix(END) if one.endswith(END) else f"{one}…",) for one in best]
    column = _sketch(releases[-1]).of
    note = (f"Of texts that fewer than about {math.ceil(seen)} records hold nothing is said. Intervals are for noise and for "
            "other texts in the same buckets.")
    return Table(f"the commonest texts of {column}", (column, "records"), listed(
        words, np.array([found[one] for one in best]), np.full(len(best), WIDTH * spread)), "bars", (note,))


def _sketch(release: Release) -> Prefixes:
    if not isinstance(release.statistic, Prefixes):
        raise ContractError("beginnings are looked up in sketches of beginnings")
    return release.statistic


def _longer(one: str, letters: str, more: int) -> Iterator[str]:
    """What may stand behind a beginning: so many letters, or fewer and the end."""
    if one.endswith(END):
        yield one
        return
    for length in range(more + 1):
        end = "" if length == more else END
        yield from (one + "".join(rest) + end for rest in itertools.product(letters, repeat=length) if one or rest or end)


def _level(release: Release, sketch: Prefixes, before: dict[str, float], letters: str, more: int,
           levels: int) -> tuple[dict[str, float], float, float]:
    """The longer beginnings that stand out of what noise and other texts do to a bucket, with their counts, commonest first;
    the standard deviation of a count, and how large one must be.

    A common text fills the buckets of all rows; who shares a bucket with it, that of one row. And all that begin alike are no
    more than their beginning.
    """
    from scipy.special import ndtri

    parent = {longer: one for one in before for longer in _longer(one, letters, more)}
    candidates = list(parent)
    bucket_KW = release.table.reshape(sketch.depth, sketch.width)
    middle_K = np.median(bucket_KW, axis=1)     # of a bucket without a common text
    off = _MAD * float(np.median(np.abs(bucket_KW - middle_K[:, None])))
    spread = max(off, noise_of(release), _HALF) / math.sqrt(sketch.depth)
    least = float(-ndtri(_FALSE / levels / max(len(candidates), 1))) * spread
    count_CK = sketch.buckets(release.table, candidates) - middle_K
    mean_C = count_CK.mean(axis=1)
    holds_C = (mean_C > least) & (count_CK.min(axis=1) > mean_C / 2)
    left = dict(before)
    kept: dict[str, float] = {}
    for place in np.argsort(-mean_C, kind="stable")[:int((mean_C > least).sum())].tolist():
        longer, count = candidates[place], float(mean_C[place])
        if holds_C[place] and left[parent[longer]] > least and len(kept) < _KEPT:
            kept[longer] = count
            left[parent[longer]] -= count
    return kept, spread, least
