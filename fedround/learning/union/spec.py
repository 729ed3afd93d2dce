"""The step, as a value that a federation agrees on."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedround.codec import Schema
from fedround.learning.algorithms import Algorithm, Plain
from fedround.learning.augmentation import Augmentation
from fedround.privacy.calibration import sampling_rate
from fedround.values import Value

LARGEST_BATCH = 100_000_000
ClassWeights = Annotated[tuple[Annotated[float, Field(gt=0, le=1000)], ...], Field(max_length=1000)]
"""By which a row's loss is multiplied, for each label in its order; empty: by nothing. A row's gradient is clipped after
that: a rare label counts more as far as its rows' gradients are within the clip norm, and no row does more."""


class UnionStep(Value):
    """One step of DP-SGD in a round, on a batch of (expected) `batch_size` rows of all sites together.

    Each row is drawn by its own site with the same public chance, `batch_size` by the agreed number of all rows. Its gradient
    at the common base model is clipped, and the site sends the sum with its share of the noise. The server's change is
    -learning_rate times the sum of all sites by the rows that were expected of them; then comes any server optimizer.

    augmentation: rows are learnt from as copies that are changed by chance; a row's copies are one record.
    """

    name: Literal["union_step"] = "union_step"
    batch_size: Annotated[int, Field(ge=1, le=LARGEST_BATCH)]
    """Of all sites together. As many as there are rows, or more: every row is in every step."""
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 1.0
    class_weights: ClassWeights = ()
    augmentation: Augmentation | None = None

    # What steps at a site agree on, and a single step need not.
    algorithm: ClassVar[Algorithm] = Plain()
    local_steps: ClassVar[int] = 1
    partial: ClassVar[Literal["refuse"]] = "refuse"
    is_linear: ClassVar[bool] = True

    def sampling_rate(self, rows: int) -> float:
        """The chance of each row to be in the batch. rows: of all sites together, as agreed."""
        return sampling_rate(self.batch_size, rows)

    @property
    def in_words(self) -> str:
        """For titles."""
        return f"one step on {self.batch_size} rows of all sites"

    def sent(self, model: Schema, *, noised: bool) -> Schema:
        """The tensors of a change: the model's."""
        return model
