"""Canaries for the one-run audit: rows that nothing could reveal better, put into real training by coin flips.

A canary is the only row with its input, and its gradient is as long as the clip norm allows, so that one coordinate of each
update holds "it is there" and noise, and nothing else. A canary that is left out becomes a row of zeros, whose gradient is
zero because the model has no bias: the number of rows stays the same, as the promise of privacy has it.
N rows, M canaries.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.audited_site import DELTA_DP, Audited, recipe_of, total, watch
from benchmarks.one_run_audit import Audit, Sampled, audit
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.spec import LocalTraining
from fedround.privacy.spec import DpSgd

PIXELS = 64
LOUDNESS = 100.0                # long before clipping, clip_norm afterwards
CONFIDENCE = 0.95


def canary_recipe(canaries: int) -> Recipe:
    """Logistic regression without a bias on pixels and canaries' inputs."""
    from torch import nn

    return recipe_of("canaries", lambda: nn.Sequential(nn.Linear(PIXELS + canaries, 1, bias=False)))


def rows_with(present_M: npt.NDArray[np.bool_]) -> Examples:
    """1,797 digits (label: five or more) and the canaries that are present; the others are rows of zeros."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    canaries = len(present_M)
    features_NF = np.zeros((len(images) + canaries, PIXELS + canaries), np.float32)
    features_NF[:len(images), :PIXELS] = images / 16
    features_NF[len(images):, PIXELS:] = np.diag(LOUDNESS * present_M)
    return Examples(features_NF, np.concatenate([digits >= 5, np.ones(canaries)]).astype(np.int64))


def audit_run(epsilon: float | None, *, canaries: int, share: float, seed: int, too_little: float = 1.0) -> Audit:
    """Train once with canaries, then guess from the updates which of them were there.

    share: of the rows, expected in each step's batch. too_little: the site adds so many times less noise than it claims (a
    broken site, to see that the audit notices).
    """
    present_M = np.random.default_rng(seed).random(canaries) < 0.5
    rows = rows_with(present_M)
    training = LocalTraining(local_steps=4, batch_size=round(share * len(rows)), learning_rate=0.1)
    site = Audited(canary_recipe(canaries), training, rounds=5, epsilon=epsilon)
    mechanism = site.mechanism(len(rows))
    if isinstance(mechanism, DpSgd):
        mechanism = mechanism.model_copy(update={"noise_multiplier": mechanism.noise_multiplier / too_little})
    seen = watch(site, rows, mechanism, seed)
    sampled = (Sampled(mechanism.sampling_rate, site.rounds * mechanism.steps)
               if isinstance(mechanism, DpSgd) and mechanism.sampling_rate < 1 else None)
    return audit(total(seen.updates)[PIXELS:], present_M, DELTA_DP, CONFIDENCE, sampled=sampled)
