"""A recipe is one Python file that says what is learnt: the features and the model. It is named by its SHA-256.

The file defines three things and may import what the site has installed::

    NAME = "banks-mlp"
    def encode(rows: pd.DataFrame) -> Examples: ...    # needs no statistics of any data set: nothing is pooled
    def build_model() -> nn.Module: ...                # one logit for each row of features

A recipe is code that runs beside the records. A site approves a recipe by its digest, and only those bytes ever run.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.values import Name

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True)
class Examples:
    """Encoded rows: finite `features_NF` (float32) and binary `labels_N` (int64)."""

    features_NF: npt.NDArray[np.float32]
    labels_N: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        features, labels = self.features_NF, self.labels_N
        if features.ndim != 2 or features.dtype != np.float32:
            raise ContractError(f"features are {features.dtype} of {features.ndim} dimensions, expected float32 of 2")
        if labels.shape != features.shape[:1] or labels.dtype != np.int64:
            raise ContractError(f"labels are {labels.dtype} of shape {labels.shape}, "
                                f"expected int64 of ({len(features)},)")
        if not np.isfinite(features).all():
            raise ContractError("features must be finite: encode missing values as numbers")
        if not np.isin(labels, (0, 1)).all():
            raise ContractError("labels must be 0 or 1")

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True)
class Recipe:
    """What is learnt, and the SHA-256 of the file that says so."""

    name: str
    digest: str
    build_model: Callable[[], nn.Module]
    encode: Callable[[pd.DataFrame], Examples]


def load_recipe(path: Path, expected_digest: str | None = None) -> Recipe:
    """Run the recipe file and return what it defines.

    The bytes that are hashed are the bytes that run. Without `expected_digest` any file runs: only for one's own.
    Raises ContractError, before anything runs, if the digest is another; and if the file does not run or lacks a part.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ContractError(f"recipe {path.name}: cannot be read ({error.strerror}); check the path {path}") from None
    digest = hashlib.sha256(source).hexdigest()
    if expected_digest is not None and digest != expected_digest:
        raise ContractError(f"recipe {path.name}: its digest is {digest[:12]}…, the approved one is "
                            f"{expected_digest[:12]}…; read the change, then approve it or restore the file")
    module = _execute(source, path, digest)
    for part in ("build_model", "encode"):
        if not callable(getattr(module, part, None)):
            raise ContractError(f"recipe {path.name}: must define a function '{part}'")
    try:
        name = TypeAdapter(Name).validate_python(getattr(module, "NAME", None))
    except ValidationError:
        raise ContractError(f"recipe {path.name}: must define NAME, lower-case letters, digits and hyphens") from None
    return Recipe(name, digest, module.build_model, module.encode)


def initial_tensors(recipe: Recipe, seed: int) -> Tensors:
    """The model of round 0: every parameter by name, float32. Same recipe, seed and torch version: same numbers."""
    import torch

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = recipe.build_model()
    check_model(model, recipe.name)
    return {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}


def check_model(model: nn.Module, name: str) -> None:
    """Raise ContractError for a model that cannot be trained one record at a time, or would not travel whole.

    Batch statistics mix the records of a batch, so that no clipping can bound what one of them does; and they are not
    parameters, so the noise would never reach them.
    """
    from torch import float32
    from torch.nn.modules.batchnorm import _NormBase

    for part, module in model.named_modules():
        if isinstance(module, _NormBase):
            raise ContractError(f"recipe '{name}': '{part}' is {type(module).__name__}, which keeps statistics of "
                                "batches; use GroupNorm or LayerNorm")
    for part, parameter in model.named_parameters():
        if parameter.dtype != float32 or not parameter.requires_grad:
            raise ContractError(f"recipe '{name}': parameter '{part}' must be float32 and trainable; "
                                "make a constant a buffer")


def _execute(source: bytes, path: Path, digest: str) -> ModuleType:
    module = ModuleType(f"fedround_recipe_{digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module       # dataclasses and typing look a class's module up by its name
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - these bytes are the approved ones
    except Exception as error:
        del sys.modules[module.__name__]
        raise ContractError(f"recipe {path.name}: does not run ({type(error).__name__}: {error})") from error
    return module
