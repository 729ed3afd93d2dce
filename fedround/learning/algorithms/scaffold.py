"""SCAFFOLD (Karimireddy et al. 2020, arXiv:1910.06378, option II), for plain SGD.

Legend: D coordinates, K local steps, eta the local learning rate, c_i a site's control variate, c the server's.

A site's control after a round is the mean of its (noised) gradients in it: c_i - c + (base - local model) / (K eta). It is a
function of what the site released, so keeping it costs nothing. The server's is the sites' mean, c + share · mean of
(c_i' - c_i); and since c_i changes by -c - delta_i / (K eta), that is a function of the aggregate of the deltas: nothing else
travels, and c is as far from the honest ones as the rule lets the aggregate be.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fedround.aggregation.spec import Aggregation
from fedround.compression.spec import Compression, is_unbiased
from fedround.errors import ContractError
from fedround.learning.algorithms.base import Float32, LocalAlgorithm, Steps, Vectors

_CONTROL = "control"


class Scaffold(LocalAlgorithm):
    """Every step is corrected by c - c_i: the mean of all sites' gradients minus this site's own.

    c_i stays at its site. The rule that protects the model also protects c. Nothing more leaves a site, and it costs no
    privacy. The upload then carries old noise, too: its law is not known, and no gate can judge it (under the unit `site` it
    is known, and a gate can).
    """

    keeps: ClassVar[tuple[str, ...]] = (_CONTROL,)
    serves: ClassVar[tuple[str, ...]] = (_CONTROL,)
    law_is_known: ClassVar[bool] = False
    name: Literal["scaffold"] = "scaffold"

    def objection(self, training: Steps) -> str | None:
        """As `LocalAlgorithm`."""
        if training.optimizer != "sgd" or training.momentum > 0:
            return ("scaffold tells a site's gradients from its change, which plain steps alone allow: take the "
                    "optimizer 'sgd' without momentum")
        if training.partial == "keep":
            return ("scaffold tells a site's gradients from its change, whose scale must be the same everywhere: take "
                    "partial = 'normalise' or 'refuse'")
        return None

    def objection_to(self, compression: Compression | None, aggregation: Aggregation) -> str | None:
        """As `LocalAlgorithm`."""
        if not is_unbiased(compression):
            return ("scaffold tells a site's gradients from what it sends, which top_k and count_sketch keep back in "
                    "part: agree on quantised, or on no compression")
        if aggregation.history > 0:
            return ("scaffold tells the sites' gradients from this round's aggregate, which a history mixes with older ones: "
                    "agree on an aggregation with history = 0")
        return None

    def shift(self, served: Vectors, kept: Vectors) -> Float32 | None:
        """C - c_i. None (when neither exists yet) stands for zeros."""
        server_D, site_D = served.get(_CONTROL), kept.get(_CONTROL)
        if server_D is None and site_D is None:
            return None
        return np.asarray((0.0 if server_D is None else server_D) - (0.0 if site_D is None else site_D), dtype=np.float32)

    def at_site(self, shift_D: Float32 | None, sent_D: Float32, training: Steps) -> Vectors:
        """c_i after the round: -shift - delta / (K eta), float32; of a normalised delta of fewer steps, too.

        Raises ContractError if it is not finite.
        """
        return {_CONTROL: _finite(-_mean_step(sent_D, training) - (0.0 if shift_D is None else shift_D.astype(np.float64)))}

    def at_server(self, served: Vectors, aggregate_D: Float32, training: Steps, share: float) -> Vectors:
        """C after the round: (1 - share) c - share · aggregate / (K eta), float32. With a mean, and as long as everybody
        takes part, it is the mean of all c_i.

        Raises ContractError for a share outside of (0, 1], or if c is not finite.
        """
        if not 0 < share <= 1:
            raise ContractError(f"an aggregate stands for a share above 0 and at most 1 of the federation, got {share}")
        past_D = served[_CONTROL].astype(np.float64) if _CONTROL in served else 0.0
        return {_CONTROL: _finite((1 - share) * past_D - share * _mean_step(aggregate_D, training))}


def _mean_step(delta_D: Float32, training: Steps) -> npt.NDArray[np.float64]:
    return delta_D.astype(np.float64) / (training.local_steps * training.learning_rate)


def _finite(control_D: npt.NDArray[np.float64]) -> Float32:
    with np.errstate(over="ignore"):
        rounded_D = control_D.astype(np.float32)
    if not np.isfinite(rounded_D).all():
        raise ContractError("a control variate leaves the range of float32: raise training.learning_rate, or choose a rule "
                            "that bounds what one site can do")
    return rounded_D
