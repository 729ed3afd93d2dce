"""The law of the noise in an update, from how it was trained.

Legend: T steps of training, b the expected batch, q the sampling rate, m_t how much step t counts in the upload.
"""

from __future__ import annotations

import math

from fedround.aggregation.noise_law import NoiseLaw
from fedround.errors import ContractError
from fedround.learning.descent import counts as counts_of
from fedround.learning.descent import scale
from fedround.learning.spec import LocalTraining, Training
from fedround.learning.trees.spec import Trees
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianUpdate, Mechanism, RowSum

BATCH_DOUBT = 20.0
"""A Poisson batch may be larger than expected. So the signal bound fails with probability exp(-20), about 2e-9, in each
round."""

def law_of(mechanism: Mechanism, training: Training, rows: int | None = None,
           steps: int | None = None) -> NoiseLaw | None:
    """The law of an upload that was trained as `fedround.learning.train` does; None if the mechanism declares none, or noises
    gradients that the upload is not linear in (`LocalTraining.is_linear`).

    There upload = -lr sum_t m_t g_t / b, where g_t is a sum of gradients of norm C at most plus N(0, (z C)^2) on every
    coordinate, and m_t is what step t counts (`fedround.learning.descent.counts`): 1 + mu + … + mu^(T-t) with momentum mu,
    (1 - lr mu)^(T-t) with a proximal term, times FedNova's ratio where fewer steps are normalised. Hence, for m_t >= 0 (their
    absolute values stand in the bound, where both together make some negative),

    * variance = (lr z C / b)^2 sum_t m_t^2, exactly (float32 rounding of the weights aside);
    * |signal| <= lr C (sum_t m_t + sqrt(2 x (1-q) sum_t m_t^2 / b) + (1-q) x max m_t / (3 b)) but with probability
      exp(-x), x = 20: Bernstein's inequality for sum_t m_t B_t with binomial batches B_t (Boucheron, Lugosi and Massart
      2013, theorem 2.10); at q = 1 the batch is fixed, and the bound is certain.

    With a tree's noise (`DpFtrl`) batches are fixed, too; a node that step t brings in counts m_t, less m_s if step s
    takes it away again. A whole update (`GaussianUpdate`) is clipped to C and noised with z C, whatever was done before.
    What rows add to B trees is sqrt(B) long at most, on average, and its noise is that of the sum, z sqrt(B), by the number
    of rows (`RowSum`).

    Clip norm and steps are taken as declared: admission has compared them with the plan.
    rows: how many rows a site trained on, if they are no more than the plan's batch. Then q = 1, and b is their number; at
    q = 1 without it the law is not known: None.
    steps: how many steps a site did whose time was up before the last; None: all that the plan asks for and the mechanism
    covers. Raises ContractError if the numbers are no law (noise that overflows, say): a reason to reject the update.
    """
    if isinstance(mechanism, GaussianUpdate):
        return NoiseLaw(signal_bound=mechanism.clip_norm, variance=(mechanism.noise_multiplier * mechanism.clip_norm) ** 2)
    if isinstance(training, Trees):
        if not isinstance(mechanism, RowSum) or rows is None:
            return None
        return NoiseLaw(signal_bound=math.sqrt(training.per_round),
                        variance=(mechanism.noise_multiplier / rows) ** 2 * training.per_round)
    if not isinstance(mechanism, DpSgd | DpFtrl) or not isinstance(training, LocalTraining) or not training.is_linear:
        return None
    done = min(mechanism.steps, training.local_steps) if steps is None else steps
    counts = [scale(training, done) * count for count in counts_of(training, done)]
    lengths = [abs(count) for count in counts]
    if isinstance(mechanism, DpFtrl):
        batch, excess = mechanism.batch_size, 0.0
        squares = math.fsum(net * net for net in _of_nodes(counts))
    else:
        expected = training.batch_size if mechanism.sampling_rate < 1 else rows
        if expected is None:
            return None
        if not 1 <= expected <= training.batch_size:
            raise ContractError(f"at sampling rate 1 a site has from 1 to {training.batch_size} rows, this one declares "
                                f"{expected}")
        batch, thinning = expected, 1 - mechanism.sampling_rate
        squares = math.fsum(count * count for count in counts)
        excess = (math.sqrt(2 * BATCH_DOUBT * thinning * squares / batch)
                  + thinning * BATCH_DOUBT * max(lengths) / (3 * batch))
    std = training.learning_rate * mechanism.noise_multiplier * mechanism.clip_norm / batch
    return NoiseLaw(signal_bound=training.learning_rate * mechanism.clip_norm * (math.fsum(lengths) + excess),
                    variance=std * std * squares)


def _of_nodes(counts: list[float]) -> list[float]:
    """How much the noise of each node of the tree counts: step t brings one in, and step t + (its length) takes it away."""
    ends = [(step, step + (step & -step)) for step in range(1, len(counts) + 1)]
    return [counts[begin - 1] - (counts[end - 1] if end <= len(counts) else 0.0) for begin, end in ends]
