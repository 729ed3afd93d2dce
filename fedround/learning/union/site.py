"""A site's half of a step on the rows of all sites: the sum over its own rows, noised.

N rows of the site, D coordinates (in the order of `codec.flatten`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedround.learning.lesson import Lesson
from fedround.learning.persons import NOBODY
from fedround.learning.recipe import Recipe
from fedround.learning.sums import gradient_sums
from fedround.learning.train import NoisedGradients, bound_of, check_exact, check_persons
from fedround.learning.union.spec import UnionStep
from fedround.privacy.noise import GRID, NoiseSource
from fedround.privacy.spec import DpSgd

Float64 = npt.NDArray[np.float64]


def clipped_gradients(recipe: Recipe, lesson: Lesson, training: UnionStep, mechanism: DpSgd, cells: int,
                      noise: NoiseSource) -> Float64:
    """The sum over the drawn rows of their clipped gradients at `lesson.base`, with Gaussian noise, in clip norms, (D,).

    Each row is drawn with chance `mechanism.sampling_rate`, whatever else is here, and moves the sum by a length of 1 at
    most; with `lesson.persons`, each person. cells: so many of the noise's cells are one clip norm, and its standard
    deviation on each number is GRID / cells: what the site adds to the noise that `mechanism` says
    (`fedround.secure_sums.lattice.whole_cells`).

    Promises and does not promise what `train.train` does of one step: the draws must be secret and fresh, sums are exact,
    what is not finite adds nothing. Nothing depends on how many rows there are but the sum itself.
    Raises ContractError if the model cannot be trained so, or there are too many rows to be summed exactly.
    """
    check_persons(mechanism, lesson)
    check_exact(GRID / cells, lesson.units)
    own = mechanism.model_copy(update={"noise_multiplier": GRID / cells, "shared_by": None})
    bound = bound_of(own, lesson.units * mechanism.sampling_rate)
    with gradient_sums(recipe, lesson.sought(training, bound)) as sums:
        noised = NoisedGradients(sums, own, noise)
        sums.begin(int(noise.random(1)[0] * 2**53))       # for dropout and the like inside the model
        drawn = lesson.rows_of(np.flatnonzero(noise.random(lesson.units) < mechanism.sampling_rate))
        return noised.cells(drawn, lesson.examples.counts_N[drawn] & (drawn != NOBODY)) / cells
