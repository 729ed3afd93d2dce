"""A recipe is one Python file that says what is learnt: the features and the model. It is named by its SHA-256.

The file defines four things, or five, and may import what the site has installed::

    NAME = "banks-mlp"
    CLASSES = 2                                        # how many labels there are; 2 if it is not said
    COLUMNS = (Numeric("age", low=18, high=95), …)     # what the features are made of (`fedround.learning.columns`)
    TARGET = "default"                                 # the column of what is learnt
    def build_model(features: int) -> nn.Module: ...   # one logit for each row; with more than two classes CLASSES of them

For rows that need more than that it defines functions instead::

    def features(rows: pd.DataFrame): ...              # instead of COLUMNS: float32 (N, F), every row by itself
    def labels(rows: pd.DataFrame): ...                # instead of TARGET: int64 (N,); rows that are only scored have none
    def build_model() -> nn.Module: ...                # without COLUMNS it knows by itself how many features there are

A recipe is code that runs beside the records. A site approves a recipe by its digest, and only those bytes ever run.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.files import check_utf8
from fedround.learning.declared import Declared, built_for, declared
from fedround.learning.parts import WHOLE, Rest, Schemas, divide, mixes_rows
from fedround.learning.spec import Parts
from fedround.learning.start import begun_from
from fedround.learning.task import CLASSIFY, MAX_CLASSES, Task
from fedround.values import Name

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True)
class Examples:
    """Encoded rows: finite `features_NF` (float32) and `labels_N` (int64) from 0 up; a recipe says how far."""

    features_NF: npt.NDArray[np.float32]
    labels_N: npt.NDArray[np.int64]
    counts_N: npt.NDArray[np.bool_] = field(default_factory=lambda: np.ones(0, np.bool_))
    """False: the row does not count, whatever its features and its label are. It keeps its place, so that no other row
    changes. A recipe does not set this: all its rows count. A site uses it to leave out rows that it cannot use."""

    def __post_init__(self) -> None:
        if self.counts_N.size == 0:
            object.__setattr__(self, "counts_N", np.ones(len(self.labels_N), np.bool_))
        features, labels = self.features_NF, self.labels_N
        check_features(features)
        if labels.shape != features.shape[:1] or labels.dtype != np.int64:
            raise ContractError(f"labels are {labels.dtype} of shape {labels.shape}, "
                                f"expected int64 of ({len(features)},)")
        if self.counts_N.shape != labels.shape or self.counts_N.dtype != np.bool_:
            raise ContractError(f"what counts is {self.counts_N.dtype} of shape {self.counts_N.shape}, expected bool of "
                                f"({len(features)},)")
        if labels.min(initial=0) < 0:
            raise ContractError("labels must be whole numbers from 0 up")

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def digest(self) -> str:
        """Names these rows: SHA-256 of features, labels and what counts."""
        hasher = hashlib.sha256()
        for array in (self.features_NF.astype("<f4"), self.labels_N.astype("<i8"), self.counts_N):
            hasher.update(str(array.shape).encode())
            hasher.update(np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()


def check_features(features_NF: npt.NDArray[np.float32], rows: int | None = None) -> None:
    """Raise ContractError unless these are finite float32 numbers, (N, F). rows: which N must be; None: any."""
    if features_NF.ndim != 2 or features_NF.dtype != np.float32:
        raise ContractError(f"features are {features_NF.dtype} of {features_NF.ndim} dimensions, expected float32 of 2")
    if rows is not None and len(features_NF) != rows:
        raise ContractError(f"features of {len(features_NF)} rows for {rows} rows: a recipe encodes every row by itself, and "
                            "leaves none out")
    if not np.isfinite(features_NF).all():
        raise ContractError("features must be finite: encode missing values as numbers")


def _come_encoded(_: pd.DataFrame) -> npt.NDArray[np.float32]:
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
    features: Callable[[pd.DataFrame], npt.NDArray[np.float32]] = _come_encoded
    """The half of `encode` that needs no label: for rows that are scored."""
    declared: Declared = field(default_factory=Declared)
    """What the recipe says instead of defining functions."""

    def __post_init__(self) -> None:
        if not isinstance(self.task, Task):
            raise ContractError(f"recipe '{self.name}': expected a task, for example Classify(classes=10), got "
                                f"{type(self.task).__name__}")

    def check(self, examples: Examples) -> None:
        """Raise ContractError unless the examples are of the recipe's task."""
        self.task.check(examples.labels_N, self.name)


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
        source = path.read_bytes()
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
    if not callable(getattr(module, "build_model", None)):
        raise ContractError(f"recipe {path.name}: must define a function 'build_model' that returns the model")
    build_model = built_for(module.build_model, what.columns, f"recipe {path.name}")
    try:
        task = Task(classes=getattr(module, "CLASSES", 2 if what.target is None else what.target.classes))
    except ValidationError:
        raise ContractError(f"recipe {path.name}: CLASSES must be a whole number from 2 to {MAX_CLASSES}") from None

    def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
        found_NF = what.columns.all_of(rows) if what.columns is not None else _array("features", module.features, rows)
        check_features(found_NF, len(rows))
        if found_NF.shape[1] == 0:
            raise ContractError("features have no columns: a model needs one at least")
        return found_NF

    def encode(rows: pd.DataFrame) -> Examples:
        features_NF = features(rows)
        labels_N = what.target.all_of(rows) if what.target is not None else _array("labels", module.labels, rows)
        if labels_N.dtype.kind in "bi" or (labels_N.dtype.kind == "u" and labels_N.max(initial=0) < 1 << 63):
            labels_N = labels_N.astype(np.int64)
        examples = Examples(features_NF, labels_N)
        recipe.check(examples)
        return examples

    recipe = Recipe(name, digest, build_model, encode, task, features, what)
    return recipe


def _array(what: str, function: Callable[[pd.DataFrame], Any], rows: pd.DataFrame) -> npt.NDArray[Any]:
    """What a recipe's function returns, in one piece of memory and in this machine's order of bytes.

    Raises ContractError if it is no array of numpy; RuntimeWarning for a number that becomes a whole one and is none: some
    processors make a zero of it, others the smallest number.
    """
    with warnings.catch_warnings(), np.errstate(invalid="warn"):
        warnings.filterwarnings("error", "invalid value encountered in cast", RuntimeWarning)
        found = function(rows)
    if type(found) is not np.ndarray:
        kind = "float32" if what == "features" else "int64"
        raise ContractError(f"{what} returns {type(found).__name__}, expected an array of numpy: end it with "
                            f".to_numpy(np.{kind})")
    native = found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))
    return native if native.ndim == 0 else np.ascontiguousarray(native)


@functools.lru_cache(maxsize=4)
def schemas(recipe: Recipe, parts: Parts) -> Schemas:
    """The parts of the recipe's model. Raises ContractError as `divide` does."""
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
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ContractError(f"recipe {path.name}: does not run ({type(error).__name__}: {error})") from error
    return module
