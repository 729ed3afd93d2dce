"""Plain steps."""

from __future__ import annotations

from typing import Literal

from fedround.learning.algorithms.base import LocalAlgorithm


class Plain(LocalAlgorithm):
    """A site follows its own gradients, and nothing else."""

    name: Literal["plain"] = "plain"
