"""Models that take several rounds: each asks for gradient and Hessian at the coefficients so far, and takes Newton's step.

`ask` is a live measurement or a simulated one. Every step is a release of its own, and is charged; a step that was asked
before is read again, and costs nothing. F factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fedround.analytics.estimates import TERM, WIDTH, Estimate, Table
from fedround.analytics.linear import to_own
from fedround.analytics.readings import noise_of
from fedround.statistics import CoxSums, GlmSums, HazardSums, Release, Statistic
from fedround.statistics.base import Float64
from fedround.statistics.products import symmetric

Ask = Callable[[Statistic], Release]
"""From a question to all sites' total."""
Stepwise = GlmSums | HazardSums | CoxSums
"""The first step of a model that takes several."""
Model = TypeVar("Model", GlmSums, HazardSums, CoxSums)

_FARTHEST = 4.0                 # a step's length: noise may make a Hessian nearly flat
_LARGEST = 30.0                 # of a standardised coefficient
_FIRST = 2                      # steps before it are far from the end
_DIGITS = 6                     # of coefficients that sites are asked at: other processors ask the same
_DISTANCE = 2.0                 # from the start to the end, in standard form: a hazard ratio of 7 to a bound
_MOST_LEFT = 0.5
_SHOWS = 3.0                    # all information together, in standard deviations of what noise makes of none
BOTH = "Intervals are for noise and for sampling together."


def fit(start: Stepwise, steps: int, ask: Ask) -> tuple[Table, ...]:
    """What the model says after so many steps from `start.at`: coefficients in columns' own units with 95 % intervals for
    noise and sampling; of hazards, those without any column, too.

    The noise's part is that of the last step (Newton's step forgets the error of the one before). Without noise this is the
    maximum likelihood once it has converged (Poisson: if no expected outcome lies beyond the outcome's bound).
    """
    match start:
        case GlmSums():
            return (fit_glm(start, steps, ask),)
        case HazardSums():
            return fit_hazards(start, steps, ask)
        case CoxSums():
            return (fit_cox(start, steps, ask),)


def fit_glm(start: GlmSums, steps: int, ask: Ask) -> Table:
    """Coefficients of a logistic or a Poisson regression. As `fit`."""
    def read(table: Float64, _: GlmSums) -> tuple[Float64, Float64]:
        factors = len(start.at)
        return table[:factors], symmetric(table[factors:], factors)

    return _table(f"{start.family} regression: {start.outcome.name}", ["intercept", *(one.name for one in start.of)],
                  _newton(start, steps, ask, read), to_own(start.of))


def fit_hazards(start: HazardSums, steps: int, ask: Ask) -> tuple[Table, Table]:
    """Logarithms of hazard ratios (of odds ratios, with the logit as link), and the hazards of a record in the middle of all
    bounds that holds none of the values. As `fit`.
    """
    fitted = _newton(start, steps, ask, lambda table, one: one.information(table))
    told = "log hazard ratio" if start.link == "cloglog" else "log odds ratio"
    own_CF = np.diag([1.0] * start.spans + [1 / one.half for one in start.of])[start.spans:]
    ratios = _table(f"hazards over {start.time.column}: {told}s", [one.name for one in start.of], fitted, own_CF, told)
    level_K, half_K = fitted.at_F[:start.spans], fitted.halves(np.eye(len(fitted.at_F))[:start.spans])
    level_K = np.where(np.isnan(half_K), np.nan, level_K)
    hazards = tuple(Estimate((label,), *(_hazard(end, start.link) for end in (level, level - half, level + half)))
                    for label, level, half in zip(start.ranges, level_K.tolist(), half_K.tolist(), strict=True))
    return ratios, Table(f"hazard over {start.time.column}, numbers in the middle of their bounds and none of the values",
                         (start.time.column, "hazard"), hazards, "bars", (BOTH,))


def fit_cox(start: CoxSums, steps: int, ask: Ask) -> Table:
    """Log hazard ratios after so many steps, in columns' own units (Breslow's handling of ties), with 95 % intervals for
    sampling.
    """
    fitted = _newton(start, steps, ask, lambda table, one: _of_cox(table.reshape(-1, one.width), one))
    return _table(f"Cox regression: {start.time.column}", [one.name for one in start.of], fitted,
                  np.diag([1 / one.half for one in start.of]))


@dataclass(frozen=True)
class _Fitted:
    """Coefficients in standard form, and how well they are known."""

    at_F: Float64
    covariance_FF: Float64
    """Of noise and sampling."""
    left_FF: Float64
    """What the steps have left of a distance from the start: nothing where information is louder than noise."""

    def halves(self, own_FF: Float64) -> Float64:
        """Of the intervals of `own_FF` times the coefficients; NaN where most of the way from the start is left."""
        known = WIDTH * np.sqrt(np.clip(np.diag(own_FF @ self.covariance_FF @ own_FF.T), 0, None))
        left = np.linalg.norm(own_FF @ self.left_FF, axis=1)
        return np.where(left > _MOST_LEFT * np.linalg.norm(own_FF, axis=1), np.nan, np.hypot(known, _DISTANCE * left))


def _newton(start: Model, steps: int, ask: Ask, read: Callable[[Float64, Model], tuple[Float64, Float64]]) -> _Fitted:
    """What so many steps give. read: gradient and information in a table of sums.

    Without noise the last step says all. With it, every step from the third on is one more noised measurement near the same
    place, and they are solved together: n of them have the noise of one, divided by the root of n.
    """
    at_F, told = np.array(start.at), []
    left_FF, noise_FF = np.eye(len(at_F)), np.zeros((len(at_F), len(at_F)))
    for _ in range(steps):
        at_F = at_F.round(_DIGITS) + 0.0
        release: Release = ask(start.model_copy(update={"at": tuple(at_F.tolist())}))
        told.append((at_F, *read(release.table, start)))
        near = told[min(_FIRST, len(told) - 1):] if release.noise_std else told[-1:]
        # In what a step says of a place, the noise of the information counts by the distance.
        far_T = np.array([1 + np.square(one_F - at_F).sum() for one_F, *_ in near])
        share_T = 1 / far_T / (1 / far_T).sum()
        noise_std = noise_of(release) * math.sqrt(float(share_T ** 2 @ far_T))
        hessian_FF = np.einsum("t,tfg->fg", share_T, [one_FF for *_, one_FF in near])
        gradient_F = np.einsum("t,tf->f", share_T, [pull_F + one_FF @ (one_F - at_F) for one_F, pull_F, one_FF in near])
        value_F, vector_FF = np.linalg.eigh(hessian_FF)
        # Noise could have made eigenvalues of this size; a step takes them for that large, so it is never a leap.
        floor = max(noise_std * math.sqrt(len(value_F)), 1e-9 * max(float(value_F[-1]), 1.0))
        taken_F = np.maximum(value_F, floor)
        at_F = np.clip(at_F + _shortened(vector_FF @ ((vector_FF.T @ gradient_F) / taken_F)), -_LARGEST, _LARGEST)
        stays_FF = vector_FF @ np.diag(1 - np.clip(value_F, 0, None) / taken_F) @ vector_FF.T
        noise_FF = stays_FF @ noise_FF @ stays_FF + vector_FF @ np.diag((noise_std / taken_F) ** 2) @ vector_FF.T
        if value_F.sum() > _SHOWS * floor:      # of the way to the end, as little as noise may have made of it
            left_FF = vector_FF @ np.diag(1 - np.clip(value_F - noise_std, 0, None) / taken_F) @ vector_FF.T @ left_FF
    sampling_FF = vector_FF @ np.diag(1 / np.maximum(value_F, floor / 2)) @ vector_FF.T
    return _Fitted(at_F, sampling_FF + noise_FF, left_FF)


def _hazard(linear: float, link: str) -> float:
    return -math.expm1(-math.exp(min(linear, _LARGEST))) if link == "cloglog" else 1 / (1 + math.exp(-max(linear, -_LARGEST)))


def _of_cox(told_KW: Float64, statistic: CoxSums) -> tuple[Float64, Float64]:
    columns = len(statistic.of)
    events_K, x_KF, risk_K = told_KW[:, 0], told_KW[:, 1:columns + 1], told_KW[:, columns + 1]
    some_K = (events_K > 0.5) & (risk_K > 0)
    events_K, x_KF, risk_K = events_K[some_K], x_KF[some_K], risk_K[some_K]
    mean_KF = told_KW[some_K, columns + 2:2 * columns + 2] / risk_K[:, None]
    second_KFF = symmetric(told_KW[some_K, 2 * columns + 2:], columns) / risk_K[:, None, None]
    spread_KFF = second_KFF - mean_KF[:, :, None] * mean_KF[:, None, :]
    return (x_KF - events_K[:, None] * mean_KF).sum(axis=0), np.einsum("k,kfg->fg", events_K, spread_KFF)


def _shortened(step_F: Float64) -> Float64:
    return step_F * min(1.0, _FARTHEST / max(float(np.linalg.norm(step_F)), 1e-300))


def _table(title: str, names: list[str], fitted: _Fitted, own_FF: Float64, number: str = "coefficient") -> Table:
    """own_FF: from coefficients in standard form to those of `names`."""
    half_F = fitted.halves(own_FF)
    value_F = np.where(np.isnan(half_F), np.nan, own_FF @ fitted.at_F)
    return Table(title, (TERM, number), tuple(
        Estimate((name,), value, value - half, value + half)
        for name, value, half in zip(names, value_F.tolist(), half_F.tolist(), strict=True)), "bars", (BOTH,))
