"""A small recipe and rows that it can learn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe, load_recipe

RECIPE = '''
import numpy as np
from torch import nn

NAME = "small"

def features(rows):
    return rows[["a", "b", "c"]].to_numpy(np.float32)

def labels(rows):
    return rows["y"].to_numpy(np.int64)

def build_model():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
'''


THREE = "\nfrom fedround.learning.tasks import Classify\nTASK = Classify(classes=3)\n"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[[str], Path]:
    def write(source: str = RECIPE) -> Path:
        path = tmp_path / "recipe.py"
        path.write_text(source)
        return path
    return write


@pytest.fixture
def recipe_with(write_recipe: Callable[[str], Path]) -> Callable[[str], Recipe]:
    """The small recipe with another model, given as an expression."""
    def build(model: str) -> Recipe:
        head, _, _ = RECIPE.partition("    return nn.")
        return load_recipe(write_recipe(f"{head}    return {model}\n"))
    return build


@pytest.fixture
def three_classes(write_recipe: Callable[[str], Path]) -> Recipe:
    """The small recipe with one label more."""
    return load_recipe(write_recipe(RECIPE.replace("Linear(4, 1)", "Linear(4, 3)") + THREE))


@pytest.fixture
def recipe(write_recipe: Callable[[], Path]) -> Recipe:
    return load_recipe(write_recipe())


@pytest.fixture
def three_labels() -> Examples:
    """Sixty rows that belong to the class of their largest feature."""
    features = np.random.default_rng(2).normal(size=(60, 3)).astype(np.float32)
    return Examples(features, features.argmax(axis=1).astype(np.int64))


@pytest.fixture
def examples() -> Examples:
    """Forty rows whose label follows from the features, with some noise."""
    generator = np.random.default_rng(1)
    features = generator.normal(size=(40, 3)).astype(np.float32)
    labels = features[:, 0] - features[:, 1] + generator.normal(0, 0.3, 40) > 0
    return Examples(features, labels.astype(np.int64))
