"""Recipes that run in a process of their own, for tests of that."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from fedround.learning.examples import Examples
from fedround.learning.spec import LocalTraining
from site_workers.apart.host import Host
from site_workers.policy import Limits
from tests.small_federation import RECIPE, SmallFederation

LIMITS = Limits(seconds=3600)
ROWS = Examples(np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32),
                np.random.default_rng(2).integers(0, 2, 60))
TRAINING = LocalTraining(local_steps=3, batch_size=16, learning_rate=0.5)
NO_TORCH = RECIPE.replace("from torch import nn", "")
"""What needs no torch starts in a third of the time."""


def hosted(folder: Path, text: str, limits: Limits = LIMITS) -> Host:
    """Where this recipe runs."""
    file = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:8]}.py"
    file.write_text(text)
    return Host(file, hashlib.sha256(text.encode()).hexdigest(), limits, "cpu")


def strict(federation: SmallFederation, name: str, recipe: str | None = None) -> None:
    """The site's recipe runs apart; it is another one that its operator has approved in its place, if one is given."""
    folder = federation.root / name
    path = folder / "site.toml"
    path.write_text(path.read_text().replace('sandbox = "auto"', 'sandbox = "strict"'))
    if recipe is not None:
        said, file = folder / "policy.toml", folder / "approved" / "recipe.py"
        old, new = (hashlib.sha256(body).hexdigest() for body in (file.read_bytes(), recipe.encode()))
        file.write_text(recipe)
        said.write_text(said.read_text().replace(old, new))
