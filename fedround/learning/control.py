"""SCAFFOLD's control variates (Karimireddy et al. 2020, arXiv:1910.06378, option II), for plain SGD.

Legend: D coordinates, K local steps, eta the local learning rate, c_i a site's control, c the server's.

A site's control after a round is the mean of its (noised) gradients in it: c_i - c + (base - local model) / (K eta). It is a
function of what the site released, so keeping it costs nothing. The server's is the sites' mean, c + share · mean of
(c_i' - c_i); and since c_i changes by -c - delta_i / (K eta), that is a function of the aggregate of the deltas: nothing else
travels, and c is as far from the honest ones as the rule lets the aggregate be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.learning.spec import LocalTraining

Float32 = npt.NDArray[np.float32]


def shift(server_D: Float32 | None, site_D: Float32 | None) -> Float32 | None:
    """How every gradient is corrected: c - c_i. None, where neither is there yet, stands for zeros."""
    if server_D is None and site_D is None:
        return None
    return np.asarray((0.0 if server_D is None else server_D) - (0.0 if site_D is None else site_D), dtype=np.float32)


def next_of_site(shift_D: Float32 | None, delta_D: Float32, training: LocalTraining) -> Float32:
    """A site's control after a round with this shift and this released delta: -shift - delta / (K eta), float32.

    Of a normalised delta of fewer steps, too. Raises ContractError if it is not finite.
    """
    control_D = -_mean_step(delta_D, training) - (0.0 if shift_D is None else shift_D.astype(np.float64))
    return _finite(control_D)


def next_of_server(server_D: Float32 | None, aggregate_D: Float32, training: LocalTraining, share: float) -> Float32:
    """The server's control after a round: (1 - share) c - share · aggregate / (K eta), float32.

    share: how much of the federation's weight the aggregate stands for, in (0, 1]. With a mean, and as long as everybody
    takes part, c is the mean of all c_i. Raises ContractError for another share, or if c is not finite.
    """
    if not 0 < share <= 1:
        raise ContractError(f"an aggregate stands for a share above 0 and at most 1 of the federation, got {share}")
    past_D = 0.0 if server_D is None else server_D.astype(np.float64)
    return _finite((1 - share) * past_D - share * _mean_step(aggregate_D, training))


def share_of(used: Iterable[str], weights: Mapping[str, float], *, weighted: bool) -> float:
    """How much of the federation an aggregate of the sites `used` stands for; not weighted: by heads."""
    counted = weights if weighted else dict.fromkeys(weights, 1.0)
    return min(1.0, sum(counted[site] for site in sorted(used)) / sum(counted[site] for site in sorted(weights)))


def _mean_step(delta_D: Float32, training: LocalTraining) -> npt.NDArray[np.float64]:
    return delta_D.astype(np.float64) / (training.local_steps * training.learning_rate)


def _finite(control_D: npt.NDArray[np.float64]) -> Float32:
    with np.errstate(over="ignore"):
        rounded_D = control_D.astype(np.float32)
    if not np.isfinite(rounded_D).all():
        raise ContractError("a control variate leaves the range of float32: raise training.learning_rate, or choose a rule "
                            "that bounds what one site can do")
    return rounded_D
