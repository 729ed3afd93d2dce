"""What is learnt, as a value: one small file for each kind.

A task says what its targets are and checks them, what a model must give, each row's loss, what of it may be measured at a
site, its metrics and how far noise moves them. A new kind is a class with `Kind`'s methods, added to the union.
"""

from __future__ import annotations

from fedround.learning.tasks.base import SMALLEST_LOSS, Kind, Outputs, Scored, scored_together
from fedround.learning.tasks.classify import MAX_CLASSES, Classify
from fedround.learning.tasks.metrics import Margin, MetricName, Metrics, digits_of, in_words, is_better

__all__ = ["CLASSIFY", "KINDS", "MAX_CLASSES", "SMALLEST_LOSS", "Classify", "Kind", "Margin", "MetricName", "Metrics",
           "Outputs", "Scored", "Task", "digits_of", "in_words", "is_better", "scored_together"]

Task = Classify
"""The tasks that a recipe may name."""

KINDS: tuple[type[Kind], ...] = (Classify,)
"""As classes: a recipe finds them by name."""

CLASSIFY = Classify()
"""The task of a recipe that does not name one."""
