"""Models that take several rounds: each asks for gradient and Hessian at the coefficients so far, and takes Newton's step.

`ask` is a live measurement or a simulated one. Every step is a release of its own, and is charged; a step that was asked
before is read again, and costs nothing. F factors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedround.analytics.estimates import WIDTH, Estimate, Table
from fedround.analytics.linear import to_own
from fedround.analytics.readings import noise_of
from fedround.statistics import CoxSums, GlmSums, Release, Statistic
from fedround.statistics.base import Float64
from fedround.statistics.products import symmetric

Ask = Callable[[Statistic], Release]
"""From a question to all sites' total."""

_FARTHEST = 4.0                 # a step's length: noise may make a Hessian nearly flat
_LARGEST = 30.0                 # of a standardised coefficient


def fit_glm(start: GlmSums, steps: int, ask: Ask) -> Table:
    """Coefficients after so many steps from `start.at`, in columns' own units, with 95 % intervals for noise and sampling.

    The noise's part is that of the last step (Newton's step forgets the error of the one before). Without noise this is the
    maximum likelihood once it has converged. Poisson: if no expected outcome lies beyond the outcome's bound.
    """
    at_F = np.array(start.at)
    for _ in range(steps):
        statistic = start.model_copy(update={"at": tuple(at_F.tolist())})
        release = ask(statistic)
        gradient_F, hessian_FF = release.table[:len(at_F)], symmetric(release.table[len(at_F):], len(at_F))
        inverse_FF = _inverse(hessian_FF, noise_of(release))
        at_F = np.clip(at_F + _shortened(inverse_FF @ gradient_F), -_LARGEST, _LARGEST)
    noise_FF = inverse_FF @ inverse_FF * noise_of(release) ** 2
    own_FF = to_own(start.of)
    return _table(f"{start.family} regression: {start.outcome.name}", ["intercept", *(one.name for one in start.of)],
                  own_FF @ at_F, own_FF @ inverse_FF @ own_FF.T, own_FF @ noise_FF @ own_FF.T)


def fit_cox(start: CoxSums, steps: int, ask: Ask) -> Table:
    """Log hazard ratios after so many steps, in columns' own units (Breslow's handling of ties), with 95 % intervals for
    sampling.
    """
    at_F = np.array(start.at)
    for _ in range(steps):
        statistic = start.model_copy(update={"at": tuple(at_F.tolist())})
        gradient_F, hessian_FF = _of_cox(ask(statistic).table.reshape(-1, statistic.width), statistic)
        inverse_FF = _inverse(hessian_FF, 0.0)
        at_F = at_F + _shortened(inverse_FF @ gradient_F)
    own_FF = np.diag([1 / one.half for one in start.of])
    return _table(f"Cox regression: {start.time.column}", [one.name for one in start.of], own_FF @ at_F,
                  own_FF @ inverse_FF @ own_FF, np.zeros_like(own_FF))


def _of_cox(told_KW: Float64, statistic: CoxSums) -> tuple[Float64, Float64]:
    columns = len(statistic.of)
    events_K, x_KF, risk_K = told_KW[:, 0], told_KW[:, 1:columns + 1], told_KW[:, columns + 1]
    some_K = (events_K > 0.5) & (risk_K > 0)
    events_K, x_KF, risk_K = events_K[some_K], x_KF[some_K], risk_K[some_K]
    mean_KF = told_KW[some_K, columns + 2:2 * columns + 2] / risk_K[:, None]
    second_KFF = symmetric(told_KW[some_K, 2 * columns + 2:], columns) / risk_K[:, None, None]
    spread_KFF = second_KFF - mean_KF[:, :, None] * mean_KF[:, None, :]
    return (x_KF - events_K[:, None] * mean_KF).sum(axis=0), np.einsum("k,kfg->fg", events_K, spread_KFF)


def _inverse(hessian_FF: Float64, noise_std: float) -> Float64:
    """Eigenvalues that noise could have made are lifted to its size, so a step is never a leap along what is not known."""
    value_F, vector_FF = np.linalg.eigh(hessian_FF)
    floor = max(noise_std * np.sqrt(len(value_F)), 1e-9 * max(float(value_F[-1]), 1.0))
    return np.asarray(vector_FF @ np.diag(1 / np.maximum(value_F, floor)) @ vector_FF.T, dtype=np.float64)


def _shortened(step_F: Float64) -> Float64:
    return step_F * min(1.0, _FARTHEST / max(float(np.linalg.norm(step_F)), 1e-300))


def _table(title: str, names: list[str], value_F: Float64, sampling_FF: Float64, noise_FF: Float64) -> Table:
    half_F = WIDTH * np.sqrt(np.clip(np.diag(sampling_FF + noise_FF), 0, None))
    return Table(title, ("term", "coefficient"), tuple(
        Estimate((name,), value, value - half, value + half)
        for name, value, half in zip(names, value_F.tolist(), half_F.tolist(), strict=True)), "bars",
        ("Intervals are for noise and for sampling together.",))


def meta_analysis(estimates: dict[str, tuple[float, float]], *, random: bool = False) -> Estimate:
    """Sites' estimates of one number as one, weighted by precision: with fixed effects, or with random ones, whose variance
    between sites is DerSimonian and Laird's (1986, doi 10.1016/0197-2456(86)90046-2).

    estimates: each site's number and its standard error. The interval holds the number in 95 of 100 cases.
    """
    value_N, variance_N = (np.array(one) for one in zip(*((number, error ** 2) for number, error in estimates.values()),
                                                         strict=True))
    weight_N = 1 / variance_N
    if random and len(value_N) > 1:
        fixed = weight_N @ value_N / weight_N.sum()
        excess = weight_N @ (value_N - fixed) ** 2 - (len(value_N) - 1)
        between = max(0.0, excess / (weight_N.sum() - (weight_N ** 2).sum() / weight_N.sum()))
        weight_N = 1 / (variance_N + between)
    value, half = float(weight_N @ value_N / weight_N.sum()), WIDTH / float(np.sqrt(weight_N.sum()))
    return Estimate(("random effects" if random else "fixed effects",), value, value - half, value + half)

