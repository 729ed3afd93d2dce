"""What a release says, statistic by statistic: what everybody would read in it first; `queries` reads more.

Leading axes of every table are its groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fedround.analytics.estimates import WIDTH, Bound, Table, estimated, listed, rooted
from fedround.analytics.quantiles import consistent, quantiles
from fedround.errors import ContractError
from fedround.statistics import (
    CoxSums,
    DyadicCounts,
    GlmSums,
    HazardSums,
    Moments,
    Present,
    Release,
    Sketch,
)
from fedround.statistics.base import Axis, Float64
from fedround.statistics.levels import Level

QUARTILES = (0.25, 0.5, 0.75)


def read(release: Release) -> tuple[Table, ...]:
    """The tables of a release."""
    match release.statistic:
        case Moments(degree="products") as statistic if len(statistic.of) > 1:
            return means(release, statistic), correlations(release, statistic)
        case Moments() as statistic:
            return (means(release, statistic),)
        case Present() as statistic:
            return (missing(release, statistic),)
        case DyadicCounts() as statistic:
            return (quantiles_of(release, statistic),)
        case Sketch() as statistic:
            return (sketched(release, statistic),)
        case _:
            return (counts(release),)


def counts(release: Release) -> Table:
    """Every cell, and how far noise may have moved it. Noise may have made it negative."""
    axes = release.statistic.axes
    half = np.full(release.table.shape, WIDTH * noise_of(release))
    names = ", ".join(axis.name for axis in axes) or "records"
    step = isinstance(release.statistic, GlmSums | HazardSums | CoxSums)
    return Table(f"{release.statistic.in_words}: {names}", (*(axis.name for axis in axes), "sum" if step else "records"),
                 listed(words_of(axes), release.table, half), "bars" if axes and not step else "none")


def sketched(release: Release, statistic: Sketch) -> Table:
    """How many records a sketch has: its buckets say nothing to people."""
    value, half = estimated(release.table, noise_of(release), lambda sums: sums.sum(
        axis=-1, keepdims=True) / statistic.depth)
    return Table(f"{statistic.in_words}: {statistic.of}", ("buckets", "records"),
                 listed([(f"{statistic.depth} × {statistic.width}",)], value, half), "none",
                 ("What is in it is read by the question that asked for it.",))


def means(release: Release, statistic: Moments) -> Table:
    """Of each column: how many records have a number, their mean and, where squares were summed, the standard deviation."""
    kinds = ["records", "mean"] if statistic.degree == 1 else ["records", "mean", "sd"]
    low, high = (np.array([one for pair in bounds for one in pair[:len(kinds)]]) for bounds in (
        [(-np.inf, one.low, -np.inf) for one in statistic.of], [(np.inf, one.high, one.half ** 2) for one in statistic.of]))
    table = _table(release, statistic.axes[:-1], "means of columns",
                   [(one.name, kind) for one in statistic.of for kind in kinds], lambda sums: _means(sums, statistic),
                   low=low, high=high)
    return replace(table, estimates=tuple(rooted(one) if one.words[-1] == "sd" else one for one in table.estimates))


def _means(sums: Float64, statistic: Moments) -> Float64:
    """Of each column: records, mean and variance."""
    told = []
    for place, one in enumerate(statistic.of):
        count, first, second = _powers(sums, statistic, place)
        mean = np.clip(first / _some(count), -1, 1)
        told += [count, one.middle + one.half * mean]
        if second is not None:
            told.append(one.half ** 2 * (second / _some(count) - mean ** 2))
    return np.stack(told, axis=-1)


def _some(count: Float64) -> Float64:
    """What is divided by: NaN where there are no records."""
    return np.where(count > 0, count, np.nan)


def _powers(sums: Float64, statistic: Moments, place: int) -> tuple[Float64, Float64, Float64 | None]:
    if statistic.degree == "products":
        at = statistic.pairs.index
        return sums[..., 0], sums[..., at((0, place + 1))], sums[..., at((place + 1, place + 1))]
    width = statistic.degree + 1
    return (sums[..., width * place], sums[..., width * place + 1],
            sums[..., width * place + 2] if statistic.degree == 2 else None)


def correlations(release: Release, statistic: Moments) -> Table:
    """Of each two columns (Pearson), over records with a number in every column; clipping to the bounds included."""
    pairs = list(itertools.combinations(range(len(statistic.of)), 2))
    return _table(release, statistic.axes[:-1], "correlations",
                  [(statistic.of[one].name, statistic.of[other].name) for one, other in pairs],
                  lambda sums: _correlations(sums, statistic, pairs), head=("column", "and"), low=-1, high=1)


def _correlations(sums: Float64, statistic: Moments, pairs: list[tuple[int, int]]) -> Float64:
    return np.stack([covariance(sums, statistic, *pair) / np.sqrt(
        covariance(sums, statistic, pair[0], pair[0]) * covariance(sums, statistic, pair[1], pair[1]))
        for pair in pairs], axis=-1)


def covariance(sums: Float64, statistic: Moments, one: int, other: int) -> Float64:
    """Of two columns in standard form, from sums of all products, (…,)."""
    at = statistic.pairs.index
    count = _some(sums[..., 0])
    both: Float64 = (sums[..., at((min(one, other) + 1, max(one, other) + 1))] / count
                     - sums[..., at((0, one + 1))] * sums[..., at((0, other + 1))] / count ** 2)
    return both


def shares(release: Release) -> Table:
    """Of the last axis of a table of counts: which share of its group each value has."""
    *groups, last = release.statistic.axes
    return _table(release, groups, f"shares of {last.name}", [(label,) for label in last.labels],
                  lambda sums: sums / _some(sums.sum(axis=-1, keepdims=True)), head=(last.name,), number="share",
                  low=0, high=1)


def missing(release: Release, statistic: Present) -> Table:
    """The share of records that hold nothing in a column."""
    return _table(release, statistic.axes[:-1], "share of records that hold nothing",
                  [(name,) for name in statistic.of], lambda sums: 1 - sums[..., 1:] / _some(sums[..., :1]), head=("column",),
                  number="missing", low=0, high=1, plot=True)


def quantiles_of(release: Release, statistic: DyadicCounts, at: tuple[float, ...] = QUARTILES) -> Table:
    """Values below which these shares of records lie."""
    of = statistic.of
    return _table(release, statistic.axes[:-1], f"quantiles of {of.column}", [(f"{share:.0%}",) for share in at],
                  lambda sums: quantiles(consistent(sums, statistic.depth), at, of.low, of.high), head=("quantile",),
                  number=of.column, low=of.low, high=of.high)


def common(release: Release, candidates: Sequence[Level], most: int) -> Table:
    """The commonest candidates of a sketch, commonest first, with intervals for noise alone."""
    sketch = release.statistic
    if not isinstance(sketch, Sketch):
        raise ContractError("candidates are looked up in a sketch")
    count_C = sketch.frequencies(release.table, candidates)
    best = np.argsort(-count_C, kind="stable")[:most]
    found = [candidates[place] for place in best.tolist()]
    value, half = estimated(release.table, noise_of(release), lambda sums: sketch.frequencies(sums, found))
    return Table(f"the commonest values of {sketch.of}", (sketch.of, "records"),
                 listed([(str(one),) for one in found], value, half), "bars",
                 ("Other values in the same buckets add an error of their own, less with more width.",))


def noise_of(release: Release) -> float:
    """Standard deviation of the noise on each number of the table."""
    return release.noise_std * release.statistic.scale


def _table(release: Release, groups: Sequence[Axis], title: str, rows: list[tuple[str, ...]],
           of: Callable[[Float64], Float64], head: tuple[str, ...] = ("column", "what"), number: str = "value",
           low: Bound = -np.inf, high: Bound = np.inf, *, plot: bool = False) -> Table:
    """A row for every group and each of `rows`."""
    value, half = estimated(release.table, noise_of(release), of)
    words = [(*group, *row) for group in words_of(groups) for row in rows]
    by = f" by {', '.join(axis.name for axis in groups)}" if groups else ""
    return Table(title + by, (*(axis.name for axis in groups), *head, number),
                 listed(words, value, half, low, high), "bars" if plot else "none")


def words_of(axes: Sequence[Axis]) -> list[tuple[str, ...]]:
    """A word of each axis, for every cell of a table with these axes."""
    return list(itertools.product(*(axis.labels for axis in axes)))

