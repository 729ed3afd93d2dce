"""A number that each row's model is to make large: nobody labelled the row.

N rows, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fedround.learning.examples import TARGET, Arrays, Shape
from fedround.learning.tasks.base import Float64, Int64, Scored
from fedround.learning.tasks.between import Between
from fedround.learning.tasks.metrics import Metrics
from fedround.learning.tasks.summed import hidden

if TYPE_CHECKING:
    import torch


class Maximise(Between):
    """A number between `bounds`, which are public: how long an agent lasted in a row's episode, or how likely a model of the
    rows finds a row.

    The model gives the number of each row, in its own units; more is better. The loss is minus the number, over the distance
    between the bounds. Where a number has no gradient (it was found by chance, say), the model gives one whose gradient is an
    estimate: `number + surrogate - surrogate.detach()`. A number beyond the bounds counts as the bound where it is measured,
    and as itself in training.

    Rows have no labels: a recipe for this task says neither TARGET nor labels(rows).
    """

    unlabelled: ClassVar[bool] = True
    kind: Literal["maximise"] = "maximise"

    # -- targets: a zero for each row, which nobody reads

    @property
    def expects(self) -> str:
        """As `Kind`."""
        return "no labels"

    def made_up(self, rows: int, targets: Sequence[Shape]) -> Arrays:
        """As `Kind`."""
        return {TARGET: np.zeros(rows, np.int64)}

    def strata(self, targets: Arrays) -> Int64:
        """As `Kind`: all rows are of one."""
        return np.zeros(len(targets[TARGET]), np.int64)

    def groups(self, targets: Arrays) -> tuple[list[str], Int64]:
        """As `Kind`: one."""
        return ["all"], self.strata(targets)

    # -- outputs

    def outputs(self, raw: Any, rows: int) -> torch.Tensor:
        """As `Kind`: (B,)."""
        return self.one_number(raw, rows, "one number, which is to be large,")

    def losses(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """As `Kind`."""
        return -outputs / self._width  # type: ignore[no-any-return]

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The number as "score", (B,)."""
        return {"score": self.answers(outputs.double())}

    @property
    def scored_shapes(self) -> tuple[Shape, ...]:
        """As `Kind`."""
        return (Shape("score", "float64", ()),)

    def answers(self, outputs: Any) -> torch.Tensor:
        """As `Kind`: the number, within the bounds."""
        return outputs.clamp(*self.bounds)  # type: ignore[no-any-return]

    @property
    def gives(self) -> str:
        """As `Kind`."""
        return f"the number, from {self.bounds[0]:g} to {self.bounds[1]:g}; more is better"

    def columns(self, width: int) -> list[str]:
        """As `Kind`."""
        return ["number"]

    def scored_answers(self, answers: npt.NDArray[np.float32], targets: Arrays) -> Scored:
        """As `Kind`."""
        return Scored({"score": answers.astype(np.float64).reshape(-1)})

    # -- how good

    @property
    def summed(self) -> tuple[str, ...]:
        """As `Kind`."""
        return ("rows", "missing")

    @property
    def longest(self) -> float:
        """As `Kind`."""
        return 2 ** 0.5

    def summands(self, scored: Scored) -> Float64:
        """As `Kind`: how far each row's number is below the upper bound, over the distance between the bounds."""
        number_N = np.clip(scored["score"], *self.bounds).astype(np.float64)
        missing_N = (self.bounds[1] - number_N) / self._width
        return np.stack([np.ones(len(missing_N)), missing_N], axis=1)

    def of_sums(self, sum_C: Float64, noise_std: float) -> Metrics | None:
        """As `Kind`."""
        if hidden(sum_C, noise_std):
            return None
        missing = min(max(float(sum_C[1] / sum_C[0]), 0.0), 1.0)
        return Metrics(objective=self.bounds[1] - self._width * missing, rows=round(float(sum_C[0])))

    @property
    def headline(self) -> str:
        """As `Kind`."""
        return "objective"
