"""How long until something happens, where some rows are only known to have waited: discrete-time survival.

N rows, B rows of a batch, K intervals of time, S bins of scores.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedround.errors import ContractError
from fedround.learning.examples import Arrays, Shape
from fedround.learning.tasks.base import Float64, Int64, Scored, Steepness, by_rank, check_numbers, one_for_each_row
from fedround.learning.tasks.binned import Binned, few
from fedround.learning.tasks.censored import brier, concordance
from fedround.learning.tasks.metrics import Metrics
from fedround.learning.tasks.summed import hidden
from fedround.spoken import how_many

if TYPE_CHECKING:
    import torch

TIME, EVENT = "time", "event"
Time = Annotated[float, Field(gt=0, le=1e9)]


class Survive(Binned):
    """Times from 0 to an event, in intervals that end at `edges`, which are public; labels(rows) gives "time" and "event".

    event: 1 if it happened at that time, 0 if the row was only watched so long (it is censored). What happens after the last
    edge counts as: not yet by then. The model gives K logits for each row: of the event in each interval, for who has come
    so far. The loss is the hazards' (Gensheimer and Narasimhan 2019); an interval in which a row is censored is not in it.
    What is scored is the chance of the event by the last edge.
    """

    dtypes: ClassVar[Mapping[str, str]] = {EVENT: "int64", TIME: "float32"}
    kind: Literal["survive"] = "survive"
    edges: Annotated[tuple[Time, ...], Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        if any(later <= earlier for earlier, later in itertools.pairwise(self.edges)):
            raise ValueError("edges must ascend")
        return self

    # -- targets

    def check(self, targets: Arrays, recipe: str) -> None:
        """As `Kind`."""
        super().check(targets, recipe)
        for target_N in targets.values():
            one_for_each_row(self, target_N, recipe)

    def fits(self, targets: Arrays) -> npt.NDArray[np.bool_]:
        """As `Kind`."""
        event_N = targets[EVENT]
        return np.asarray((targets[TIME] >= 0) & ((event_N == 0) | (event_N == 1)))

    @property
    def expects(self) -> str:
        """As `Kind`."""
        return "times from 0 up, and events 0 or 1"

    def made_up(self, rows: int, targets: Sequence[Shape]) -> Arrays:
        """As `Kind`."""
        times = np.array([0.0, *self.edges], np.float32)
        return {EVENT: np.arange(rows, dtype=np.int64) % 2, TIME: times[np.arange(rows) % len(times)]}

    def strata(self, targets: Arrays) -> Int64:
        """As `Kind`: tenths of the rows, by their time."""
        return by_rank(targets[TIME])

    def groups(self, targets: Arrays) -> tuple[list[str], Int64]:
        """As `Kind`: the event by the last edge, censored before it, and neither."""
        early_N, event_N = targets[TIME] < self.edges[-1], targets[EVENT] == 1
        return (["event", "censored", f"later than {self.edges[-1]:g}"],
                np.where(early_N & event_N, 0, np.where(early_N, 1, 2)))

    # -- outputs

    def outputs(self, raw: Any, rows: int) -> torch.Tensor:
        """As `Kind`: (B, K)."""
        if raw.numel() != rows * len(self.edges):
            raise ContractError(f"for {how_many(len(self.edges), 'interval')} the recipe's model must give "
                                f"{how_many(len(self.edges), 'logit')} for each row, it gave outputs of shape "
                                f"{tuple(raw.shape)} for {rows} rows; change the model, or TASK = Survive(edges=…)")
        return raw.reshape(rows, len(self.edges))  # type: ignore[no-any-return]

    def losses(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """As `Kind`."""
        from torch.nn.functional import softplus

        survived_BK, died_BK = self._known(targets)
        return (softplus(outputs) * survived_BK + softplus(-outputs) * died_BK).sum(dim=1)

    @property
    def outputs_each(self) -> int:
        """As `Kind`: the logits of the intervals."""
        return len(self.edges)

    def slopes(self, output_NK: Float64, targets: Arrays) -> tuple[Float64, Float64]:
        """As `Kind`; 0 for intervals of which nothing is known."""
        chance_NK = 0.5 + 0.5 * np.tanh(output_NK / 2)
        place_N1 = np.searchsorted(np.array(self.edges, np.float32), targets[TIME], side="right")[:, None]
        interval_K = np.arange(len(self.edges))
        died_NK = (interval_K == place_N1) & (targets[EVENT] == 1)[:, None]
        known_NK = (interval_K < place_N1) | died_NK            # intervals that the row came through, and that of its event
        return (chance_NK - died_NK) * known_NK, chance_NK * (1 - chance_NK) * known_NK

    @property
    def steepness(self) -> Steepness:
        """As `Kind`: a row that came through many intervals may be longer."""
        return Steepness(2.0, math.sqrt(2))

    def _known(self, targets: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Which intervals a row is known to have come through, and in which it had the event, (B, K)."""
        import torch

        edge_K = torch.tensor(self.edges, dtype=torch.float32)
        time_B1 = targets[TIME][:, None]
        survived_BK = time_B1 >= edge_K
        inside_BK = ~survived_BK & (time_B1 >= torch.cat([torch.zeros(1), edge_K[:-1]]))
        return survived_BK.float(), (inside_BK & (targets[EVENT] == 1)[:, None]).float()

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The chance of the event by the last edge as "score", "truth" (`_outcome`), "survival" at each edge (B, K), and what
        is known: "time", "event".
        """
        survival_BK = self.answers(outputs.double())
        numbers = {name: targets[name].numpy() for name in (TIME, EVENT)}
        import torch

        return {"score": 1 - survival_BK[:, -1], "survival": survival_BK, TIME: targets[TIME].double(), EVENT: targets[EVENT],
                "truth": torch.from_numpy(self._outcome(numbers))}

    @property
    def scored_shapes(self) -> tuple[Shape, ...]:
        """As `Kind`."""
        return (Shape("score", "float64", ()), Shape("survival", "float64", (len(self.edges),)), Shape(TIME, "float64", ()),
                Shape(EVENT, "int64", ()), Shape("truth", "int64", ()))

    def _outcome(self, targets: Arrays) -> Int64:
        """2k: censored in interval k; 2k + 1: the event in it; 2K: neither by the last edge. (N,)"""
        place_N = np.searchsorted(np.array(self.edges, np.float32), targets[TIME], side="right")
        return np.where(place_N == len(self.edges), 2 * place_N, 2 * place_N + targets[EVENT]).astype(np.int64)

    def answers(self, outputs: Any) -> torch.Tensor:
        """As `Kind`: the chance that the event has not happened by each edge, (B, K)."""
        from torch.nn.functional import logsigmoid

        return logsigmoid(-outputs).cumsum(dim=1).exp()

    @property
    def gives(self) -> str:
        """As `Kind`."""
        return f"the chance that the event has not happened yet, at each of {len(self.edges)} times"

    def columns(self, width: int) -> list[str]:
        """As `Kind`."""
        return [f"not_yet_{edge:g}" for edge in self.edges]

    def scored_answers(self, answers: npt.NDArray[np.float32], targets: Arrays) -> Scored:
        """As `Kind`."""
        survival_NK = answers.astype(np.float64).reshape(-1, len(self.edges))
        return Scored({"score": 1 - survival_NK[:, -1], "survival": survival_NK, TIME: targets[TIME].astype(np.float64),
                       EVENT: targets[EVENT], "truth": self._outcome(targets)})

    # -- what may be measured

    @property
    def outcomes(self) -> tuple[str, ...]:
        """As `Binned`, in the order of `_outcome`."""
        return (*(word for edge in self.edges for word in (f"censored by {edge:g}", f"event by {edge:g}")), "neither")

    def missed(self, table_TB: Float64, middle_B: Float64) -> tuple[float, float]:
        """As `Binned`: of rows of whom it is known what happened by the last edge."""
        died_B, lived_B = table_TB[1::2].sum(axis=0), table_TB[-1]
        return float(died_B @ (1 - middle_B) + lived_B @ middle_B), float(died_B.sum() + lived_B.sum())

    def of_counts(self, table_TB: Float64, noise_std: float) -> Metrics | None:
        """As `Binned`: the concordance."""
        rows = float(table_TB.sum())
        pairs, concordant, waiting_B = 0.0, 0.0, table_TB[-1].copy()
        for place in reversed(range(len(self.edges))):
            waiting_B = waiting_B + table_TB[2 * place]
            died_B = table_TB[2 * place + 1]
            below_B = np.cumsum(waiting_B) - waiting_B
            pairs += float(died_B.sum() * waiting_B.sum())
            concordant += float(died_B @ (below_B + waiting_B / 2))
            waiting_B = waiting_B + died_B
        # Noise on both sides of a pair: a pair's count is off by about noise · rows · sqrt(cells of one side).
        if few(rows, table_TB, noise_std) or pairs <= 3 * noise_std * rows * math.sqrt(table_TB.shape[1]):
            return None
        return Metrics(concordance=float(np.clip(concordant / pairs, 0, 1)), rows=round(rows))

    @property
    def summed(self) -> tuple[str, ...]:
        """As `Kind`: where it is one of several heads."""
        return "rows", "missed", "known"

    @property
    def longest(self) -> float:
        """As `Kind`."""
        return math.sqrt(3)

    def summands(self, scored: Scored) -> Float64:
        """As `Kind`: of rows of whom it is known what happened by the last edge, the squared error of the chance."""
        truth_N = scored["truth"]
        lived_N = truth_N == 2 * len(self.edges)
        known_N = lived_N | (truth_N % 2 == 1)
        error_N = np.where(known_N, (scored["score"] - ~lived_N) ** 2, 0.0)
        return np.stack([np.ones(len(truth_N)), error_N, known_N], axis=1).astype(np.float64)

    def of_sums(self, sum_C: Float64, noise_std: float) -> Metrics | None:
        """As `Kind`: the Brier score at the last edge, of rows of whom it is known."""
        if hidden(sum_C, noise_std) or sum_C[2] <= 3 * noise_std:
            return None
        return Metrics(brier=float(np.clip(sum_C[1] / sum_C[2], 0, 1)), rows=round(float(sum_C[0])))

    # -- how good

    def _exact(self, scored: Scored) -> Metrics:
        """The concordance (Harrell) of the score, and the Brier score, averaged over the edges and weighted for censoring
        (Graf et al. 1999). Raises ContractError unless two rows can be compared.
        """
        error = brier(scored["survival"], scored[TIME], scored[EVENT], self.edges)
        return Metrics(concordance=self.worth(scored), brier=error, rows=len(scored))

    @property
    def headline(self) -> str:
        """As `Kind`."""
        return "concordance"

    def worth(self, scored: Scored) -> float:
        """As `Kind`."""
        check_numbers(scored)
        return concordance(scored["score"], scored[TIME], scored[EVENT], horizon=self.edges[-1])
