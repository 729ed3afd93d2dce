"""Survival curves and the log-rank test from counts of events and censored records in ranges of time.

The counts are one table (group, event or not, range of time): a record is in one cell, so a curve costs as much as a count.
Whoever is censored in a range is at risk in it. So with a range for each distinct time this is Kaplan and Meier's estimator.

G groups, K ranges of time; leading axes are repetitions.
"""

from __future__ import annotations

import math

import numpy as np

from fedround.analytics.estimates import WIDTH, Estimate, Table, estimated, listed
from fedround.analytics.readings import noise_of, words_of
from fedround.statistics import Release
from fedround.statistics.base import Float64


def curves(release: Release) -> Table:
    """The share that is without the event at each edge, by group, with 95 % intervals for noise and sampling (Greenwood)."""
    *groups, _, time = release.statistic.axes
    edges = time.labels[1:-2]                   # a range, by its upper edge

    def of(sums: Float64) -> Float64:
        events, at_risk = _events(sums)
        told = np.cumprod(1 - _share(events, at_risk), axis=-1)
        return np.asarray(np.where(at_risk[..., :1] > 0, told, np.nan), dtype=np.float64)

    value, noise = estimated(release.table, noise_of(release), of)
    events, at_risk = _events(release.table)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(np.nan_to_num(_share(events, at_risk) / np.maximum(at_risk - events, 0.5)), axis=-1)
    half = np.hypot(noise, WIDTH * value * np.sqrt(variance))
    words = [(*group, until) for group in words_of(groups) for until in (_until(label) for label in edges)]
    by = f" by {', '.join(axis.name for axis in groups)}" if groups else ""
    return Table(f"survival over {time.name}{by}", (*(axis.name for axis in groups), f"{time.name} until", "without event"),
                 listed(words, value, half, 0, 1), "bars",
                 ("Intervals are for noise and for sampling (Greenwood) together.",))


def hazards(release: Release) -> Table:
    """The share of those at risk who have the event in each range of time (the discrete-time hazard), by group."""
    *groups, _, time = release.statistic.axes
    def of(sums: Float64) -> Float64:
        events, at_risk = _events(sums)
        return np.where(at_risk > 0, _share(events, at_risk), np.nan)

    value, half = estimated(release.table, noise_of(release), of)
    words = [(*group, label) for group in words_of(groups) for label in time.labels[1:-2]]
    return Table(f"hazard over {time.name}", (*(axis.name for axis in groups), time.name, "hazard"),
                 listed(words, value, half, 0, 1), "bars")


def log_rank(release: Release) -> Table:
    """Whether groups differ: observed less expected events of each, and the chi-square of all together. The variance of the
    differences counts the noise, too. The group of all other records is left out.
    """
    group = release.statistic.axes[0]

    def differences(sums: Float64) -> Float64:
        return _log_rank(sums)[0]

    value_G, half_G = estimated(release.table[:-1], noise_of(release), differences)
    variance_GG = _log_rank(release.table[:-1])[1] + np.diag((half_G / WIDTH) ** 2)
    rest = value_G[1:]
    statistic_ = float(rest @ np.linalg.pinv(variance_GG[1:, 1:]) @ rest)
    from scipy.special import gammaincc

    chance = float(gammaincc(len(rest) / 2, statistic_ / 2)) if len(rest) else math.nan
    rows = [Estimate((label,), value, value - half, value + half)
            for label, value, half in zip(group.labels[:-1], value_G.tolist(), half_G.tolist(), strict=True)]
    freedom = f"{len(rest)} degree{'' if len(rest) == 1 else 's'} of freedom"
    return Table("events more than expected (log-rank)", (group.name, "observed - expected"), tuple(rows), "bars", (
        f"chi-square {statistic_:.4g} with {freedom}, p = {chance:.3g}; noise is in its variance.",))


def _events(sums: Float64) -> tuple[Float64, Float64]:
    """Events in each range before the last edge, and who was at risk when it began: (…, K); never negative, never growing.

    sums: (…, event or not, range). Records without a time are left out; who is still there at the last edge is at risk.
    """
    events, others = sums[..., 0, :-1], sums[..., 1, :-1]
    leaving = np.clip(events + others, 0, None)
    at_risk = np.flip(np.cumsum(np.flip(leaving, -1), axis=-1), -1)[..., 1:-1]
    return np.clip(events[..., 1:-1], 0, at_risk), at_risk


def _share(events: Float64, at_risk: Float64) -> Float64:
    return np.where(at_risk > 0, events / np.where(at_risk > 0, at_risk, 1.0), 0.0)


def _log_rank(sums: Float64) -> tuple[Float64, Float64]:
    """Observed less expected, (…, G), and the variance without noise, (…, G, G)."""
    events, at_risk = _events(sums)
    all_events, all_risk = events.sum(-2, keepdims=True), at_risk.sum(-2, keepdims=True)
    share = _share(at_risk, all_risk)
    factor = _share(all_events * np.clip(all_risk - all_events, 0, None), np.clip(all_risk - 1, 0.5, None))
    covariance = (np.einsum("...gk,gh->...gh", factor * share, np.eye(share.shape[-2]))
                  - np.einsum("...gk,...hk->...gh", factor * share, share))
    return (events - all_events * share).sum(-1), covariance


def _until(label: str) -> str:
    return label.partition(" to ")[2]
