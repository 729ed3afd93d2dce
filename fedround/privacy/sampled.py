"""What one step of a Gaussian mechanism on sampled rows costs: dp_accounting's distribution to the last bit, and sooner.

dp_accounting inverts its function of losses for one loss after another, in Python. Here the same operations are done for all
losses at once; a test compares every bit. C cells of loss.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

Float64 = npt.NDArray[np.float64]


def distribution(noise: float, rate: float, grid: float) -> PrivacyLossDistribution:
    """The privacy loss of a record that is added or removed, never less than it is, in cells of width `grid`.

    noise: relative to how far a record may move the sum. rate: the probability with which a record is in a step.
    """
    if rate == 1:
        return PrivacyLossDistribution(_cells(noise, rate, grid, AdjacencyType.REMOVE))
    return PrivacyLossDistribution(*(_cells(noise, rate, grid, one) for one in (AdjacencyType.REMOVE, AdjacencyType.ADD)))


def _cells(noise: float, rate: float, grid: float, adjacency: AdjacencyType) -> pld_pmf.PLDPmf:
    loss = GaussianPrivacyLoss(noise, sampling_prob=rate, adjacency_type=adjacency)
    bounds = loss.connect_dots_bounds()
    low, high = math.floor(bounds.epsilon_lower / grid), math.ceil(bounds.epsilon_upper / grid)
    delta_C = _deltas(loss, noise, np.arange(low, high + 1) * grid)
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(grid, low, high, delta_C)


def _deltas(loss: GaussianPrivacyLoss, noise: float, epsilon_C: Float64) -> Float64:
    """`loss.get_delta_for_epsilon`."""
    removed, edge = loss.adjacency_type == AdjacencyType.REMOVE, _edge(loss.sampling_prob)
    inner_C = epsilon_C > edge if removed else epsilon_C < -edge            # beyond, no outcome has such a loss, or every one
    delta_C = -np.expm1(epsilon_C) if removed else np.zeros_like(epsilon_C)
    epsilon_I = epsilon_C[inner_C]
    if removed:
        outcome_I = -0.5 - _unsampled(epsilon_I, loss.sampling_prob) * noise ** 2
    else:
        outcome_I = 1 + (-0.5 + _unsampled(-epsilon_I, loss.sampling_prob) * noise ** 2)
    delta_C[inner_C] = loss.mu_upper_cdf(outcome_I) - np.exp(epsilon_I + loss.mu_lower_log_cdf(outcome_I))
    clipped_C: Float64 = np.clip(delta_C, 0, 1)
    return clipped_C


def _edge(rate: float) -> float:
    """The loss that is told by the absence of a record that was removed."""
    return math.log1p(-rate) if rate < 1 else -math.inf


def _unsampled(loss_I: Float64, rate: float) -> Float64:
    """The loss that an outcome would have without sampling: log(1 + (exp(loss) - 1) / rate)."""
    if rate == 1:
        return loss_I
    over, less = loss_I + np.log(1 / rate), np.log(-(1 - 1 / rate))
    with np.errstate(divide="ignore", invalid="ignore"):                    # at the edge
        found_I: Float64 = over + np.log1p(-np.exp(less - over))
    found_I[loss_I == 0] = np.log(1 / rate + (1 - 1 / rate))
    edge = math.log(1 - rate)
    found_I[np.abs(loss_I - edge) <= 1e-9 * np.maximum(np.abs(loss_I), abs(edge))] = -math.inf
    return found_I
