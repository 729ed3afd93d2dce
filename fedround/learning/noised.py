"""A model's whole change as it may leave: clipped and noised once, whatever it was computed from. D coordinates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedround.learning.gradients import Clip, clipped_vector
from fedround.privacy.noise import GRID, NoiseSource
from fedround.privacy.spec import GaussianUpdate, TrainingMechanism

Float32 = npt.NDArray[np.float32]


def noised_change(delta_D: Float32, mechanism: TrainingMechanism, noise: NoiseSource) -> Float32:
    """With `GaussianUpdate`: cut to the clip norm, with N(0, (noise_multiplier · clip_norm)²) on every coordinate. With any
    other mechanism: as it is.
    """
    if not isinstance(mechanism, GaussianUpdate):
        return delta_D
    clip = Clip(mechanism.clip_norm, mechanism.noise_multiplier * mechanism.clip_norm / GRID)
    return ((clipped_vector(delta_D, clip) + noise.normal(GRID, len(delta_D))) * clip.cell).astype(np.float32)
