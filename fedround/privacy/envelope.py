"""Gaussians above and below a privacy loss distribution, and why sums of their squared means are a privacy filter.

A coordinator sees what a site released and then chooses what to ask next. Composed privacy loss distributions (PLD) bound
choices that are fixed beforehand; a rule "go on while the composed epsilon is within the budget" bounds nothing, since the
composition of one mixture says nothing about choosing the mixture by what was seen (Rogers et al. 2016, arXiv:1605.08294).

**Theorem.** Let (P_b, Q_b) be pairs for b in [0, ∞)², with (P_b, Q_b) x (P_c, Q_c) = (P_{b+c}, Q_{b+c}). If each mechanism
M_k, given all that was released before, is dominated by the pair of b_k, where b_k may depend on all that was released
before, and b_1 + … + b_K <= B surely, then all of them together are dominated by the pair of B. For Gaussians alone this is
the fully adaptive composition of Gaussian differential privacy (Smith and Thakurta 2022, arXiv:2210.17520; Koskela, Tobaben
and Honkela 2023, arXiv:2209.15596).

*Proof.* Backwards. After b_1 … b_k what remains is B - b_1 - … - b_k =: R. Claim: given what was released so far, all that
still comes is dominated by the pair of R. At the end nothing still comes, and every pair dominates that. If the claim holds
after M_k, whatever M_k released, then M_k and the rest together are dominated by the pair of b_k times the pair of R_k
(composition of dominating pairs: Zhu, Dong and Wang 2022, arXiv:2106.08567, theorem 10), which is the pair of b_k + R_k =
R_{k-1}. ∎

The pairs here: b = (mu², -ln(1 - t)): a Gaussian of mean mu, and with probability t everything is lost. So

* `dominating` finds mu for a PLD and a t: delta(e) <= (1 - t) delta_mu(e) + t for all e, which is what domination means;
* mechanisms that are fixed before anything else leaves may come first with their exact PLD: it is then multiplied by the
  pair of B;
* **giving back**: after some of a fixed sequence, its rest L can be exchanged for a Gaussian budget mu² that L dominates
  (`dominated`): whatever comes instead stays within what L would have cost, by the same step of the proof. The exchange must
  be for good, and may depend on all that was seen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Pld = Any
Float64 = npt.NDArray[np.float64]

_LARGEST_MU = 60.0              # costs more than any epsilon that is reported
_TRIES = 48
_MOST_CELLS = 1 << 17


def dominating(pld: Pld, tail: float) -> float:
    """The smallest mean of a Gaussian that dominates all of `pld` but a tail of probability `tail`; rounded up; infinite if
    none below _LARGEST_MU does.
    """
    ends_E, remove_E, add_E = _profiles(pld)
    delta_E = np.maximum(remove_E, add_E)

    def enough(mu: float) -> bool:
        there_E, slope_E = _gaussian(ends_E, mu)
        there_E, slope_E = (1 - tail) * there_E + tail, (1 - tail) * slope_E
        # Between two ends delta is a straight line in e^epsilon; a Gaussian's is convex, hence above its tangent.
        tangent_E = there_E[:-1] + slope_E[:-1] * np.diff(np.exp(ends_E))
        return bool((delta_E <= there_E).all() and (delta_E[1:] <= tangent_E).all())

    if delta_E[-1] > tail:      # beyond the last end it falls no more
        return math.inf

    if not enough(_LARGEST_MU):
        return math.inf
    return _bisect(lambda mu: not enough(mu))[1]


def dominated(pld: Pld) -> float:
    """The largest mean of a Gaussian that `pld` dominates in both directions; rounded down."""
    ends_E, remove_E, add_E = _profiles(pld)
    delta_E = np.minimum(remove_E, add_E)

    def fits(mu: float) -> bool:
        # Both fall. So if a Gaussian at an interval's begin is below `pld` at its end, it is below `pld` up to there.
        there_E = _gaussian(ends_E, mu)[0]
        return bool((there_E[:-1] <= delta_E[1:]).all())

    return _bisect(fits)[0]


def _bisect(below: Any) -> tuple[float, float]:
    low, high = 0.0, _LARGEST_MU
    for _ in range(_TRIES):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
        if high - low < 1e-7 * high:
            break
    return low, high


def _profiles(pld: Pld) -> tuple[Float64, Float64, Float64]:
    """The breakpoints of delta(epsilon) from 0 on, and its values there, for removing and for adding a record."""
    remove, add = (one.to_dense_pmf() for one in (pld._pmf_remove, pld._pmf_add))
    grid = remove._discretization
    last = max(one._lower_loss + one.size for one in (remove, add))
    ends_E = np.arange(0, max(2, last + 1)) * grid
    # Between two ends delta is convex in e^epsilon, hence below its chord: fewer ends compare with more than there is.
    stride = -(-len(ends_E) // _MOST_CELLS)
    ends_E = ends_E[::stride]
    profiles = [np.asarray(one.get_delta_for_epsilon(ends_E), dtype=np.float64) for one in (remove, add)]
    return ends_E, profiles[0], profiles[1]


def _gaussian(ends_E: Float64, mu: float) -> tuple[Float64, Float64]:
    """What delta a Gaussian of mean mu has (Balle and Wang 2018), and its slope in e^epsilon."""
    from scipy.special import log_ndtr, ndtr

    behind_E = log_ndtr(-ends_E / mu - mu / 2)
    return ndtr(-ends_E / mu + mu / 2) - np.exp(ends_E + behind_E), -np.exp(behind_E)
