"""How many of something a row has, or how much: a number from 0 up whose mean is what matters.

N rows, B rows of a batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedround.learning.examples import TARGET, Arrays, Shape
from fedround.learning.tasks import numbers
from fedround.learning.tasks.base import Float64, Int64, Scored, Steepness, by_rank, one_for_each_row
from fedround.learning.tasks.metrics import Metrics
from fedround.learning.tasks.summed import SummedScores

if TYPE_CHECKING:
    import torch

SMALLEST = 1e-6
"""Of `max`: no smaller mean is predicted."""


class Count(SummedScores):
    """Visits, claims, amounts: numbers from 0 up, and `max` at most, which is public. More than that counts as `max`.

    The model gives the logarithm of the mean, one number for each row. The loss is Poisson's (its mean is right for amounts,
    too: Gourieroux, Monfort and Trognon 1984), divided by `max`' square root, so that large counts do not make large steps.
    """

    dtypes: ClassVar[Mapping[str, str]] = {TARGET: "float32"}
    kind: Literal["count"] = "count"
    max: Annotated[float, Field(gt=0, le=1e9)]

    # -- targets

    def check(self, targets: Arrays, recipe: str) -> None:
        """As `Kind`."""
        super().check(targets, recipe)
        one_for_each_row(self, targets[TARGET], recipe)

    def fits(self, targets: Arrays) -> npt.NDArray[np.bool_]:
        """As `Kind`: from 0 up."""
        return np.asarray(targets[TARGET] >= 0)

    @property
    def expects(self) -> str:
        """As `Kind`."""
        return "numbers from 0 up"

    def made_up(self, rows: int, targets: Sequence[Shape]) -> Arrays:
        """As `Kind`."""
        return {TARGET: np.minimum(np.arange(rows) % 4, self.max).astype(np.float32)}

    def strata(self, targets: Arrays) -> Int64:
        """As `Kind`: tenths of the rows, by their number."""
        return by_rank(targets[TARGET])

    def groups(self, targets: Arrays) -> tuple[list[str], Int64]:
        """As `Kind`: none, and four ranges up to `max`, each four times as far as the one before."""
        edges = [self.max / 64, self.max / 16, self.max / 4]
        names = ["0", f"up to {edges[0]:g}", *(f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)),
                 f"above {edges[-1]:g}"]
        return names, np.where(targets[TARGET] == 0, 0, 1 + np.searchsorted(edges, targets[TARGET], side="left"))

    # -- outputs

    def outputs(self, raw: Any, rows: int) -> torch.Tensor:
        """As `Kind`: (B,)."""
        return self.one_number(raw, rows, "one number, the logarithm of the mean,")

    def losses(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """As `Kind`."""
        log_mean_B = outputs.clamp(math.log(self.max * SMALLEST), math.log(self.max))
        # Outside the clamp no gradient would come back: a straight line leads back.
        beyond_B = (outputs - log_mean_B).abs()
        loss_B = log_mean_B.exp() - targets[TARGET].clamp(0, self.max) * log_mean_B
        return loss_B / math.sqrt(self.max) + beyond_B  # type: ignore[no-any-return]

    @property
    def outputs_each(self) -> int:
        """As `Kind`."""
        return 1

    def slopes(self, output_NK: Float64, targets: Arrays) -> tuple[Float64, Float64]:
        """As `Kind`, of Poisson's loss, divided by the square root of `max`."""
        mean_N1 = np.exp(np.clip(output_NK, math.log(self.max * SMALLEST), math.log(self.max)))
        number_N1 = np.clip(targets[TARGET], 0, self.max)[:, None]
        return (mean_N1 - number_N1) / math.sqrt(self.max), mean_N1 / math.sqrt(self.max)

    @property
    def steepness(self) -> Steepness:
        """As `Kind`: hardly a row is longer."""
        return Steepness(0.5, math.sqrt(self.max) / 2)

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The predicted mean as "score", and the number itself as "truth", (B,) each."""
        return {"score": self.answers(outputs.double()), "truth": targets[TARGET].double()}

    @property
    def scored_shapes(self) -> tuple[Shape, ...]:
        """As `Kind`."""
        return Shape("score", "float64", ()), Shape("truth", "float64", ())

    def answers(self, outputs: Any) -> torch.Tensor:
        """As `Kind`: the mean."""
        return outputs.clamp(math.log(self.max * SMALLEST), math.log(self.max)).exp()  # type: ignore[no-any-return]

    @property
    def gives(self) -> str:
        """As `Kind`."""
        return f"the mean number, at most {self.max:g}"

    def columns(self, width: int) -> list[str]:
        """As `Kind`."""
        return ["mean"]

    def scored_answers(self, answers: npt.NDArray[np.float32], targets: Arrays) -> Scored:
        """As `Kind`."""
        return Scored({"score": answers.astype(np.float64).reshape(-1), "truth": targets[TARGET].astype(np.float64)})

    # -- how good

    @property
    def summed(self) -> tuple[str, ...]:
        """As `Kind`."""
        return (*numbers.SUMMED, "deviance", "y_log_y")

    @property
    def longest(self) -> float:
        """As `Kind`."""
        return math.sqrt(numbers.LONGEST ** 2 + 2)

    def summands(self, scored: Scored) -> Float64:
        """As `Kind`: besides `numbers.summands` half a row's deviance over `max`, cut at 1; and y log(y / max) / max, in
        which y is the truth, of length 1 / e at most.
        """
        mean_N = np.clip(scored["score"], self.max * SMALLEST, self.max) / self.max
        y_N = np.clip(scored["truth"], 0, self.max) / self.max
        own_N = y_N * np.log(np.where(y_N > 0, y_N, 1))
        deviance_N = np.clip(own_N - y_N * np.log(mean_N) - y_N + mean_N, 0, 1)
        whole = numbers.summands(scored["score"], scored["truth"], 0.0, self.max)
        return np.concatenate([whole, np.stack([deviance_N, own_N], axis=1)], axis=1)

    def of_sums(self, sum_C: Float64, noise_std: float) -> Metrics | None:
        """As `Kind`: `numbers.of_sums`, and D²: the share of the deviance that the model explains (McFadden's kind of R²)."""
        found = numbers.of_sums(sum_C, noise_std, self.max)
        if found is None:
            return None
        rows, deviance, own = float(sum_C[0]), float(sum_C[5]), float(sum_C[6])
        mean = float(sum_C[3]) / rows + 0.5
        without = own - rows * mean * math.log(max(mean, SMALLEST)) if mean > 0 else 0.0
        steep = math.log(max(mean, SMALLEST)) + 1       # of `without`, by the sum of all numbers over `max`
        if numbers.is_known(without, noise_std * math.hypot(1, steep, mean - steep / 2), rows):
            found["d2"] = min(1 - deviance / without, 1.0)
        return Metrics.model_validate({**found, "rows": round(rows)})

    @property
    def headline(self) -> str:
        """As `Kind`."""
        return "d2"
