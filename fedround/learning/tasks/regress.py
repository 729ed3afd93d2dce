"""A number of each row, between public bounds.

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
from fedround.learning.tasks.base import Float64, Int64, Scored, Steepness, by_rank
from fedround.learning.tasks.between import Between
from fedround.learning.tasks.metrics import Metrics

if TYPE_CHECKING:
    import torch

_KNEE = 0.2


class Regress(Between):
    """A number between `bounds`, which are public: what is possible, not the extremes of somebody's rows.

    The model gives one number for each row: -1 stands for the lower bound, 1 for the upper. The loss is that of this scale:
    "squared"; "huber", which is squared up to a tenth of the distance between the bounds and grows linearly from there; or
    "quantile", for the `quantile` of what is possible (0.5: the median). A number beyond the bounds counts as the bound.
    """

    dtypes: ClassVar[Mapping[str, str]] = {TARGET: "float32"}
    kind: Literal["regress"] = "regress"
    loss: Literal["squared", "huber", "quantile"] = "squared"
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5

    # -- targets

    def made_up(self, rows: int, targets: Sequence[Shape]) -> Arrays:
        """As `Kind`."""
        return {TARGET: (self.bounds[0] + self._width * (np.arange(rows) % 5) / 4).astype(np.float32)}

    def strata(self, targets: Arrays) -> Int64:
        """As `Kind`: tenths of the rows, by their number."""
        return by_rank(targets[TARGET])

    def groups(self, targets: Arrays) -> tuple[list[str], Int64]:
        """As `Kind`: five ranges between the bounds, and what lies beyond."""
        edges = np.linspace(*self.bounds, 6)
        names = [f"below {edges[0]:g}", *(f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)),
                 f"above {edges[-1]:g}"]
        place_N = np.searchsorted(edges, targets[TARGET], side="right")
        place_N[targets[TARGET] == self.bounds[1]] = 5
        return names, place_N

    # -- outputs

    def outputs(self, raw: Any, rows: int) -> torch.Tensor:
        """As `Kind`: (B,)."""
        return self.one_number(raw, rows, "one number, -1 for the lower bound and 1 for the upper,")

    def losses(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """As `Kind`."""
        import torch
        from torch.nn.functional import huber_loss

        wanted_B = self._scaled(targets[TARGET].clamp(*self.bounds)).to(outputs.dtype)
        if self.loss == "squared":
            return (outputs - wanted_B).square() / 2  # type: ignore[no-any-return]
        if self.loss == "huber":
            return huber_loss(outputs, wanted_B, reduction="none", delta=_KNEE)
        short_B = wanted_B - outputs
        return torch.maximum(self.quantile * short_B, (self.quantile - 1) * short_B)

    def _scaled(self, number: Any) -> Any:
        return 2 * (number - self.bounds[0]) / self._width - 1

    @property
    def outputs_each(self) -> int:
        """As `Kind`."""
        return 1

    def slopes(self, output_NK: Float64, targets: Arrays) -> tuple[Float64, Float64]:
        """As `Kind`: of the squared loss; of another, its slope, and 1."""
        apart_N1 = output_NK - self._scaled(np.clip(targets[TARGET], *self.bounds).astype(np.float64))[:, None]
        if self.loss == "huber":
            apart_N1 = np.clip(apart_N1, -_KNEE, _KNEE)
        if self.loss == "quantile":
            apart_N1 = np.where(apart_N1 < 0, -self.quantile, 1 - self.quantile)
        return apart_N1, np.ones_like(apart_N1)

    @property
    def steepness(self) -> Steepness:
        """As `Kind`: of the squared loss hardly a row is longer, of the others none."""
        steepest = {"squared": 1.0, "huber": _KNEE, "quantile": max(self.quantile, 1 - self.quantile)}[self.loss]
        return Steepness(steepest / 2, steepest * math.sqrt(1.25))

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What is predicted as "score", and the number itself as "truth", (B,) each."""
        return {"score": self.answers(outputs.double()), "truth": targets[TARGET].double()}

    @property
    def scored_shapes(self) -> tuple[Shape, ...]:
        """As `Kind`."""
        return Shape("score", "float64", ()), Shape("truth", "float64", ())

    def answers(self, outputs: Any) -> torch.Tensor:
        """As `Kind`: the number, within the bounds."""
        low, high = self.bounds
        return ((outputs.clamp(-1, 1) + 1) * (self._width / 2) + low).clamp(low, high)  # type: ignore[no-any-return]

    @property
    def gives(self) -> str:
        """As `Kind`."""
        what = f"the {self.quantile:g} quantile of the number" if self.loss == "quantile" else "the number"
        return f"{what}, from {self.bounds[0]:g} to {self.bounds[1]:g}"

    def columns(self, width: int) -> list[str]:
        """As `Kind`."""
        return ["predicted"]

    def scored_answers(self, answers: npt.NDArray[np.float32], targets: Arrays) -> Scored:
        """As `Kind`."""
        return Scored({"score": answers.astype(np.float64).reshape(-1), "truth": targets[TARGET].astype(np.float64)})

    # -- how good

    @property
    def summed(self) -> tuple[str, ...]:
        """As `Kind`."""
        return numbers.SUMMED

    @property
    def longest(self) -> float:
        """As `Kind`."""
        return numbers.LONGEST

    def summands(self, scored: Scored) -> Float64:
        """As `Kind`: `numbers.summands`."""
        return numbers.summands(scored["score"], scored["truth"], *self.bounds)

    def of_sums(self, sum_C: Float64, noise_std: float) -> Metrics | None:
        """As `Kind`: `numbers.of_sums`."""
        found = numbers.of_sums(sum_C, noise_std, self._width)
        return None if found is None else Metrics.model_validate({**found, "rows": round(float(sum_C[0]))})

    @property
    def headline(self) -> str:
        """As `Kind`."""
        return "r2"
