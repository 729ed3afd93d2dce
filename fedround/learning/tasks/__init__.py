"""What is learnt, as a value: one small file for each kind.

A task says what its targets are and checks them, what a model must give, each row's loss, what of it may be measured at a
site, its metrics and how far noise moves them. A new kind is a class with `Kind`'s methods, added to the union.
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from fedround.learning.tasks.base import (
    SMALLEST_LOSS,
    Kind,
    Outputs,
    Scored,
    Steepness,
    check_numbers,
    scored_together,
)
from fedround.learning.tasks.classify import MAX_CLASSES, Classify
from fedround.learning.tasks.count import Count
from fedround.learning.tasks.maximise import Maximise
from fedround.learning.tasks.metrics import SHOWN, Margin, MetricName, Metrics, in_words, shown
from fedround.learning.tasks.regress import Regress
from fedround.learning.tasks.sequences import NextToken, Tag
from fedround.learning.tasks.several import Several
from fedround.learning.tasks.survive import Survive

__all__ = ["CLASSIFY", "KINDS", "MAX_CLASSES", "SHOWN", "SMALLEST_LOSS", "Classify", "Count", "Kind", "Margin", "Maximise",
           "MetricName", "Metrics", "NextToken", "Outputs", "Regress", "Scored", "Several", "Steepness", "Survive", "Tag",
           "Task", "check_numbers", "in_words", "scored_together", "shown"]

Task = Annotated[Classify | Regress | Count | Survive | Tag | NextToken | Several | Maximise, Field(discriminator="kind")]
"""The tasks that a recipe may name."""

KINDS: tuple[type[Kind], ...] = get_args(get_args(Task)[0])
"""As classes, for messages."""

CLASSIFY = Classify()
"""The task of a recipe that does not name one."""
