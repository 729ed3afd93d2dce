"""The banks, clients and public test set of `fedround_examples.banks`."""

from __future__ import annotations

from pathlib import Path

from fedround_examples.banks.split import split
from fedround_examples.story import Story

STORY = Story(Path(__file__).parent, split)
