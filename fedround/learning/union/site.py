"""A site's half of a step on the rows of all sites: the sum over its own rows, noised.

N rows of the site, D coordinates (in the order of `codec.flatten`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors, coordinates, flatten, schema_of, unflatten
from fedround.errors import ContractError
from fedround.learning.batch import batch_of
from fedround.learning.device import DeviceName, Placed, chosen, working_on
from fedround.learning.examples import Examples
from fedround.learning.gradients import RowGradients
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.persons import NOBODY, Persons
from fedround.learning.recipe import Recipe
from fedround.learning.train import NoisedGradients, check_exact, furnished
from fedround.learning.union.spec import UnionStep
from fedround.privacy.noise import GRID, NoiseSource
from fedround.privacy.spec import DpSgd

Float64 = npt.NDArray[np.float64]


def clipped_gradients(recipe: Recipe, base: Tensors, examples: Examples, training: UnionStep, mechanism: DpSgd, cells: int,
                      noise: NoiseSource, *, rest: Rest = NO_REST, persons: Persons | None = None,
                      device: DeviceName = "cpu") -> Float64:
    """The sum over the drawn rows of their clipped gradients at `base`, with Gaussian noise, in clip norms, (D,).

    Each row is drawn with chance `mechanism.sampling_rate`, whatever else is here, and moves the sum by a length of 1 at
    most; with `persons`, each person. cells: so many of the noise's cells are one clip norm, and its standard deviation on
    each number is GRID / cells: what the site adds to the noise that `mechanism` says
    (`fedround.secure_sums.lattice.whole_cells`).

    Promises and does not promise what `train.train` does of one step: the draws must be secret and fresh, sums are exact,
    what is not finite adds nothing. Nothing depends on how many rows there are but the sum itself.
    Raises ContractError if the model cannot be trained so, or there are too many rows to be summed exactly.
    """
    import torch

    units = len(examples) if persons is None else len(persons)
    if (None if persons is None else persons.most) != mechanism.rows_per_person:
        raise ContractError("the mechanism is of persons and nobody says whose rows are whose, or the other way round")
    check_exact(GRID / cells, units)
    place = chosen(device)
    model = furnished(recipe, base, rest, per_record=True).to(place)
    recipe.check(examples)
    schema = schema_of(base)
    parameters = Placed(unflatten(flatten(base), schema), place).parameters
    everything, objective = batch_of(examples).to(place), recipe.objective(model, training)
    own = mechanism.model_copy(update={"noise_multiplier": GRID / cells, "shared_by": None})
    with working_on(place):
        of_rows = RowGradients.tried(objective, parameters, everything)
        noised = NoisedGradients(of_rows, own, noise, coordinates(schema), units * mechanism.sampling_rate)
        torch.manual_seed(int(noise.random(1)[0] * 2**53))       # for dropout and the like inside the model
        chosen_U = np.flatnonzero(noise.random(units) < mechanism.sampling_rate)
        drawn = torch.from_numpy(chosen_U if persons is None else persons.row_PK[chosen_U].ravel())
        there_B = torch.from_numpy(examples.counts_N)[drawn] & (drawn != NOBODY)
        return noised.cells(parameters, everything.at(drawn.to(place)), there_B.to(place)) / cells
