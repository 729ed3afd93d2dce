"""Can a recipe's model be scored and trained at all? One forward pass and one clipped gradient on made-up rows, before
anything is charged: a model that fails in its first step costs a budget, and gives nothing.

Made-up rows hold the same number everywhere. A model needs to work for only one such number: an embedding has an index 0 but
perhaps no index 1, and a model that divides by the length of a row cannot use zeros.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np

from fedround.codec import Tensors, flatten
from fedround.errors import ContractError
from fedround.learning.batch import batch_of
from fedround.learning.device import DeviceName, OnDevice, chosen, working_on
from fedround.learning.evaluate import scores
from fedround.learning.examples import Array, Examples, Form, Shape
from fedround.learning.foreign.spec import Foreign
from fedround.learning.furnished import furnished
from fedround.learning.gradients import Clip, RowGradients, clipped_sum, gradient_sum
from fedround.learning.parts import WHOLE, Rest, mixes_rows
from fedround.learning.recipe import Recipe, initial, initial_tensors
from fedround.learning.spec import LocalTraining, Parts, Training
from fedround.learning.trees.outputs import features_of
from fedround.learning.trees.server import grow
from fedround.learning.trees.site import sums
from fedround.learning.trees.spec import Trees
from fedround.learning.union.spec import UnionStep
from fedround.privacy.noise import FINE, stream
from fedround.privacy.spec import NoMechanism

_ROWS = 4
_NUMBERS = (0.0, 1.0, 0.5, -1.0)
SLOW = ("torch cannot compute the gradients of many rows of its model in one pass (packed sequences are of that kind): they "
        "are computed row by row, which is slow")
SOME_SLOW = "torch computes its model's '{}' row after row, which is slow: another layer may do the same faster"


def try_out(recipe: Recipe, form: Form, parts: Parts | None = WHOLE, *, per_record: bool = True,
            training: Training | None = None, device: DeviceName = "cpu") -> tuple[str, ...]:
    """Warnings about training a recipe's model on rows of this form; empty if there are none.

    parts: None: not known; layers that keep batch statistics are then assumed to be private where that is allowed.
    per_record: whether the privacy is that of single records. training: how rows are weighed and changed; None: not known.
    device: where. What was tried once is remembered. Raises ContractError, which quotes no record because it has seen none,
    if the model cannot be built, does not travel, cannot be scored or trained; SetupError if this machine lacks the device.
    """
    how = None if isinstance(training, Trees | Foreign) else training
    return tried(recipe, form, parts, how, device, per_record=per_record)[0]


def tried(recipe: Recipe, form: Form, parts: Parts | None, training: LocalTraining | UnionStep | None, device: DeviceName, *,
          per_record: bool) -> tuple[tuple[str, ...], float]:
    """As `try_out`: its warnings, and the made-up number that the model works for."""
    found = _tried(_Question(recipe.digest, form, parts, per_record, recipe, training, device))
    return found.notes, found.number


def made_up(recipe: Recipe, rows: int, form: Form, parts: Parts | None = WHOLE, *, per_record: bool = True) -> Examples:
    """So many rows that nobody has, on which the recipe's model can be trained; all kinds of labels in turn. They follow from
    the arguments alone. Raises as `try_out`.
    """
    return _rows_of(recipe, rows, form, tried(recipe, form, parts, None, "cpu", per_record=per_record)[1])


def _rows_of(recipe: Recipe, rows: int, form: Form, number: float) -> Examples:
    return Examples({shape.name: _full(rows, shape, number) for shape in form.inputs},
                    recipe.task.made_up(rows, form.targets))


def _full(rows: int, shape: Shape, number: float) -> Array:
    """What is no number of this dtype becomes the nearest."""
    dtype = np.dtype(shape.dtype)
    near = number if dtype.kind == "f" else number != 0 if dtype.kind == "b" else max(int(number), np.iinfo(dtype).min)
    return np.full((rows, *shape.shape), near, dtype)


@dataclass(frozen=True)
class _Works:
    """The made-up number that a model works for, and warnings."""

    notes: tuple[str, ...]
    number: float


@dataclass(frozen=True)
class _Question:
    digest: str
    form: Form
    parts: Parts | None
    per_record: bool
    recipe: Recipe = field(compare=False)
    training: LocalTraining | UnionStep | None = None
    device: DeviceName = "cpu"


@functools.lru_cache(maxsize=32)
def _tried(asked: _Question) -> _Works:
    recipe, problems = asked.recipe, []
    if recipe.trees is not None:
        return _grown(recipe, recipe.trees, asked.form)
    if recipe.apart is not None:
        return _Works(*recipe.apart.tried(asked.form, asked.parts, asked.training, asked.device,
                                          per_record=asked.per_record))
    chosen(asked.device)
    try:
        base, rest = initial(recipe, 0, asked.parts or _supposed(recipe), per_record=asked.per_record)
    except ContractError:
        raise
    except (Exception, SystemExit) as error:    # of the recipe's code
        raise ContractError(f"recipe '{recipe.name}': its model cannot be built ({_in_words(error)})") from None
    for number in _NUMBERS:
        try:
            return _Works(_try(asked, base, rest, number), number)
        except (Exception, SystemExit) as error:    # as above
            problems.append(_in_words(error))
    raise ContractError(f"recipe '{recipe.name}': its model cannot be trained on rows of {asked.form}: "
                        f"{problems[0]}. Tried on made-up rows; nothing was charged")


def _grown(recipe: Recipe, trees: Trees, form: Form) -> _Works:
    """One round of trees, from made-up rows."""
    examples, base = _rows_of(recipe, _ROWS, form, 0.0), initial_tensors(recipe, 0)
    if (features := features_of(examples).shape[1]) != len(trees.axes):
        raise ContractError(f"recipe '{recipe.name}': its TREES have {len(trees.axes)} axes, and its rows {features} "
                            "features: say one axis for each feature")
    update = sums(trees, recipe.task, base, examples, NoMechanism(), stream(bytes(32), b"trial"))
    model = grow(trees, recipe.task, base, flatten(update), None, noised=False)
    if not np.isfinite(scores(recipe, model, examples)["score"]).all():
        raise ContractError("its output is not a finite number")
    return _Works((), 0.0)


def _try(asked: _Question, base: Tensors, rest: Rest, number: float) -> tuple[str, ...]:
    import torch

    recipe = asked.recipe
    examples = _rows_of(recipe, _ROWS, asked.form, number)
    place = chosen(asked.device)
    model = furnished(recipe, base, rest, per_record=asked.per_record).to(place)
    objective = recipe.objective(model, asked.training)
    private = {name: rest.private[name] for name, _ in model.named_parameters() if name in rest.private}
    parameters = OnDevice({name: array.copy() for name, array in {**base, **private}.items()}, place).parameters
    batch = batch_of(examples).to(place)
    with working_on(place):
        torch.manual_seed(0)
        if not asked.per_record:
            if not np.isfinite(gradient_sum(objective, parameters, batch)).all():
                raise ContractError("its gradient is not a finite number")
            together, not_mapped = True, tuple[str, ...]()
        else:
            of_rows = RowGradients.tried(objective, parameters, batch)
            together, not_mapped = of_rows.together, of_rows.not_mapped
            loosest = Clip(1e30, 1e30 / FINE)
            _, finite = clipped_sum(of_rows, parameters, batch, loosest, chunk=_ROWS)
            if finite < _ROWS:
                objective.loss(parameters, batch.at(slice(0, 1)))      # says what is wrong, if it can
                raise ContractError("its gradient is not a finite number")
    told = scores(recipe, {**base, **rest.whole}, examples)
    if len(told) < _ROWS or not all(map(math.isfinite, told["score"])):
        raise ContractError("its output is not a finite number")
    return (*(() if together else (SLOW,)), *(SOME_SLOW.format(name) for name in not_mapped))


def _supposed(recipe: Recipe) -> Parts:
    return Parts(private=tuple(f"{part}.*" for part in mixes_rows(recipe.build_model()) if part))


def _in_words(error: BaseException) -> str:
    if isinstance(error, ContractError):
        return str(error)
    words = str(error).splitlines()
    return f"{type(error).__name__}: {words[0][:200]}" if words else type(error).__name__
