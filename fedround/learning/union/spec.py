"""The step, as a value that a federation agrees on."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedround.codec import Schema
from fedround.learning.augmentation import Augmentation
from fedround.learning.learner import AtOnce, ClassWeights
from fedround.privacy.calibration import sampling_rate

LARGEST_BATCH = 100_000_000

class UnionStep(AtOnce):
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
