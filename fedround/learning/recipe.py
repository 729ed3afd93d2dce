"""A recipe is one Python file that says what is learnt: the features and the model. It is named by its SHA-256.

The file defines four things, or up to six, and may import what the site has installed::

    NAME = "banks-mlp"
    TASK = Classify(classes=2)                         # what is learnt (docs/tasks.md); this, if it is not said
    COLUMNS = (Numeric("age", low=18, high=95), …)     # what the features are made of (`fedround.learning.columns`)
    TARGET = "default"                                 # the column of what is learnt, or several: {"time": …, "event": …}
    def build_model(features: int) -> nn.Module: ...   # what the task asks for: one logit for each row, for two classes

Instead of `build_model` it may say `TREES = Trees(depth=4)` (`fedround.learning.trees`). Beside it, it may say
`FOREIGN = Foreign(…)`: then a client that was written for another product trains the model (`fedround.learning.foreign`).

For rows that need more than that it defines functions instead::

    def features(rows: pd.DataFrame): ...              # instead of COLUMNS: an array, or several by name, each row by itself
    def labels(rows: pd.DataFrame): ...                # instead of TARGET, likewise; rows that are only scored have none
    def build_model() -> nn.Module: ...                # called with the one array, or with the arrays by their names
    def loss(outputs, batch): ...                      # each row's loss, (B,), if the task's own is not wanted

A site approves a recipe by its digest, and only those bytes ever run; where the system can confine them, in a process that
sees the encoded records and nothing else (`site_workers.apart`).
"""

from __future__ import annotations

import functools
import hashlib
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.files import check_utf8, read_named
from fedround.learning.apart import Apart
from fedround.learning.declared import InFile, built_for, check_targets, declared
from fedround.learning.examples import INPUT, TARGET, Array, Arrays, Examples, check_arrays, named
from fedround.learning.foreign.declared import foreign_of
from fedround.learning.foreign.spec import Foreign
from fedround.learning.objective import Objective, OwnLoss
from fedround.learning.parts import WHOLE, Rest, Schemas, divide, mixes_rows
from fedround.learning.spec import LocalTraining, Parts, Training
from fedround.learning.start import begun_from
from fedround.learning.tasks import CLASSIFY, KINDS, Kind, Task
from fedround.learning.trees.declared import builder_of, trees_of
from fedround.learning.trees.spec import Trees
from fedround.learning.union.spec import UnionStep
from fedround.values import Name, in_words

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


def _come_encoded(_: pd.DataFrame) -> Arrays:
    raise ContractError("this recipe is no file: its rows come encoded")


@dataclass(frozen=True)
class Recipe:
    """What is learnt, and the SHA-256 of the file that says so."""

    name: str
    digest: str
    build_model: Callable[[], nn.Module]
    encode: Callable[[pd.DataFrame], Examples]
    """Features and labels of rows."""
    task: Task = CLASSIFY
    """What is learnt."""
    features: Callable[[pd.DataFrame], Arrays] = _come_encoded
    """The half of `encode` that needs no label, by name: for rows that are scored."""
    declared: InFile = field(default_factory=InFile)
    """What the recipe says instead of defining functions."""
    loss: OwnLoss | None = None
    """Of its own; None: the task's."""
    trees: Trees | None = None
    """The trees that are the model; None: `build_model` is the recipe's own."""
    foreign: Foreign | None = None
    """The client that trains the model; None: it is trained here."""
    apart: Apart | None = field(default=None, compare=False)
    """Where its code runs; None: in this process. Elsewhere, its functions are not here (`described.py`)."""

    def __post_init__(self) -> None:
        if not isinstance(self.task, Kind):
            raise ContractError(f"recipe '{self.name}': expected a task, for example Classify(classes=10), got "
                                f"{type(self.task).__name__}")

    @property
    def learner(self) -> Trees | Foreign | None:
        """What the recipe says of its learner; None: the federation file does."""
        return self.trees or self.foreign

    def check(self, examples: Examples) -> None:
        """Raise ContractError unless the examples are of the recipe's task."""
        self.task.check(examples.targets, self.name)

    def growing(self, training: Training) -> Recipe:
        """The same with other settings of its trees, for simulations that compare some; a site keeps to the file's."""
        if self.trees is None or not isinstance(training, Trees):
            return self
        return replace(self, trees=training, build_model=builder_of(training, self.task))

    def objective(self, model: nn.Module, training: LocalTraining | UnionStep | None = None) -> Objective:
        """What a model of the recipe is to learn. training: with the weights and changed copies that are agreed on."""
        if training is None:
            return Objective(model, self.task, self.loss)
        return Objective(model, self.task, self.loss, training.class_weights, training.augmentation)


def unfilled(recipe: Recipe) -> nn.Module:
    """The recipe's model without torch's random initial parameters, for callers that set all of them.

    Drawing ten million takes a tenth of a second, in every training and every evaluation.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    drawn = {torch.Tensor.uniform_, torch.Tensor.normal_}

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            filled = args[0] if args else (kwargs or {}).get("tensor")
            fills = func in drawn or getattr(func, "__module__", None) == torch.nn.init.__name__
            if fills and isinstance(filled, torch.nn.Parameter):
                return filled
            return func(*args, **(kwargs or {}))

    with Undrawn():
        return recipe.build_model()


def load_recipe(path: Path, expected_digest: str | None = None) -> Recipe:
    """Run the recipe file and return what it defines.

    The bytes that are hashed are the bytes that run. Without `expected_digest` any file runs: only for one's own.
    Raises ContractError if the digest differs (before anything runs), if the file does not run, or if it lacks a part.
    """
    try:
        source = read_named(path)
    except OSError as error:
        raise ContractError(f"recipe {path.name}: cannot be read ({error.strerror}); check the path {path}") from None
    check_utf8(source, f"recipe {path.name}")
    digest = hashlib.sha256(source).hexdigest()
    if expected_digest is not None and digest != expected_digest:
        raise ContractError(f"recipe {path.name}: its digest is {digest[:12]}…, the approved one is "
                            f"{expected_digest[:12]}…; read the change, then approve it or restore the file")
    module = _execute(source, path, digest)
    try:
        name = TypeAdapter(Name).validate_python(getattr(module, "NAME", None))
    except ValidationError:
        raise ContractError(f"recipe {path.name}: must define NAME, lower-case letters, digits and hyphens") from None
    what = declared(vars(module), f"recipe {path.name}")
    trees = trees_of(vars(module), what.columns, f"recipe {path.name}")
    foreign = foreign_of(vars(module), f"recipe {path.name}")
    if trees is None and not callable(getattr(module, "build_model", None)):
        raise ContractError(f"recipe {path.name}: must define a function 'build_model' that returns the model, or say TREES")
    task = _task(module, what, path.name)
    own_loss = getattr(module, "loss", None)
    if own_loss is not None and not callable(own_loss):
        raise ContractError(f"recipe {path.name}: loss must be a function loss(outputs, batch) that gives each row's loss")
    build_model = (built_for(module.build_model, what.columns, f"recipe {path.name}") if trees is None
                   else builder_of(trees, task))

    def features(rows: pd.DataFrame) -> Arrays:
        found = {INPUT: what.columns.all_of(rows)} if what.columns is not None else _arrays("features", module.features, rows)
        check_arrays(found, "features", len(rows))
        return found

    def encode(rows: pd.DataFrame) -> Examples:
        inputs = features(rows)
        if task.unlabelled:
            targets = task.made_up(len(rows), ())
        else:
            targets = what.all_targets(rows, task) if what.targets else _arrays("labels", module.labels, rows)
        examples = Examples(inputs, task.cast(targets, name))
        recipe.check(examples)
        return examples

    recipe = Recipe(name, digest, build_model, encode, task, features, what, own_loss, trees, foreign)
    return recipe


def _task(module: ModuleType, what: InFile, file: str) -> Task:
    task = getattr(module, "TASK", what.task)
    if isinstance(task, Kind):
        check_targets(what.targets, task, f"recipe {file}")
        return task  # type: ignore[return-value]   # a kind that is in no union is refused where it is written down
    words = ", ".join(f"{kind.__name__}(…)" for kind in KINDS)
    raise ContractError(f"recipe {file}: TASK must be one of {words} of fedround.learning.tasks, got {type(task).__name__}")


def _arrays(what: str, function: Callable[[pd.DataFrame], Any], rows: pd.DataFrame) -> Arrays:
    """What a recipe's function returns: one array, or arrays by name. Raises as `_array`."""
    with warnings.catch_warnings(), np.errstate(invalid="warn"):
        warnings.filterwarnings("error", "invalid value encountered in cast", RuntimeWarning)
        found = function(rows)
    flat = {name: _array(what, array) for name, array in _flat(found)} if isinstance(found, Mapping) else _array(what, found)
    return named(flat, INPUT if what == "features" else TARGET)


def _flat(found: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Arrays of a head, which are by name themselves, as "head.name"."""
    flat = []
    for name, part in found.items():
        own = part if isinstance(part, Mapping) else {"": part}
        flat += [(f"{name}.{which}".rstrip("."), array) for which, array in own.items()]
    return flat


def _array(what: str, found: object) -> Array:
    """In one piece of memory and in this machine's order of bytes.

    Raises ContractError if it is no array of numpy; RuntimeWarning for a number that becomes a whole one and is none: some
    processors make a zero of it, others the smallest number.
    """
    if type(found) is not np.ndarray:
        kind = "float32" if what == "features" else "int64"
        raise ContractError(f"{what} returns {type(found).__name__}, expected an array of numpy, or several by name: end it "
                            f"with .to_numpy(np.{kind})")
    native = found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))
    return native if native.ndim == 0 else np.ascontiguousarray(native)


@functools.lru_cache(maxsize=4)
def schemas(recipe: Recipe, parts: Parts) -> Schemas:
    """The parts of the recipe's model. Raises ContractError as `divide` does."""
    if recipe.apart is not None:
        return recipe.apart.schemas(parts)
    return divide(recipe.build_model(), parts, recipe.name)


def initial_tensors(recipe: Recipe, seed: int) -> Tensors:
    """The model of round 0, where all that is trained travels: see `initial`."""
    return initial(recipe, seed)[0]


def initial(recipe: Recipe, seed: int, parts: Parts = WHOLE, *, per_record: bool = True,
            start: Tensors | None = None) -> tuple[Tensors, Rest]:
    """The model of round 0: what travels, by name, float32, and the rest. Same recipe, seed and torch version: same numbers.

    per_record: whether the privacy is that of single records. start: a checkpoint's numbers, used for the tensors that it
    has. Raises ContractError as `check_model`, `parts.divide` and `start.begun_from` do.
    """
    if recipe.apart is not None:
        return recipe.apart.initial(seed, parts, start, per_record=per_record)
    import torch

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = recipe.build_model()
    found = divide(model, parts, recipe.name)
    check_model(model, recipe.name, {spec.name for spec in found.private}, per_record=per_record)
    whole: Tensors = {name: value.detach().numpy().copy()
             for name, value in (*model.named_parameters(), *model.named_buffers()) if value.is_floating_point()}
    whole = whole if start is None else begun_from(whole, start, recipe.name)
    return {spec.name: whole[spec.name] for spec in found.shared}, found.rest_of(whole)


def order_of(recipe: Recipe) -> tuple[str, ...]:
    """The names of the model's tensors, in its own order."""
    return tuple(recipe.build_model().state_dict()) if recipe.apart is None else recipe.apart.order()


def check_model(model: nn.Module, name: str, private: Collection[str] = (), *, per_record: bool = True) -> None:
    """Raise ContractError for a model that cannot be trained as the federation agreed, or would not travel whole.

    Batch statistics mix the records of a batch. So no clipping can bound the effect of one record, and the noise would never
    reach the statistics. With `per_record` privacy no layer may keep them; otherwise only a layer that is wholly `private`
    may.
    """
    from torch import float32

    for part in mixes_rows(model):
        layer = model.get_submodule(part)
        own = {f"{part}.{tensor}".lstrip(".") for tensor, value in (*layer.named_parameters(), *layer.named_buffers())
               if value.is_floating_point()}
        if per_record or not own <= set(private):
            raise ContractError(f"recipe '{name}': '{part}' is {type(layer).__name__}, which keeps statistics of batches; "
                                "use GroupNorm or LayerNorm" + ("" if per_record else ", or name it in parts.private"))
    for part, parameter in model.named_parameters():
        if parameter.dtype != float32:
            raise ContractError(f"recipe '{name}': parameter '{part}' is {parameter.dtype}, and must be float32")


def _execute(source: bytes, path: Path, digest: str) -> ModuleType:
    module = ModuleType(f"fedround_recipe_{digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module       # dataclasses and typing look a class's module up by its name
    try:
        # As text: from bytes Python would obey a "coding:" comment, and UTF-7, for example, can hide a line of code in a
        # comment.
        exec(compile(source.decode(), str(path), "exec"), module.__dict__)  # noqa: S102 - these bytes are the approved ones
    except ContractError as error:
        del sys.modules[module.__name__]
        raise ContractError(f"recipe {path.name}: {error}") from None
    except ValidationError as error:            # of a task's numbers
        del sys.modules[module.__name__]
        raise ContractError(f"recipe {path.name}: {error.title}(…): {in_words(error)}") from None
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ContractError(f"recipe {path.name}: does not run ({type(error).__name__}: {error})") from error
    return module
