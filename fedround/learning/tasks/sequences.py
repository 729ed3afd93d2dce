"""A label at every place of a sequence: words with their kinds, or each place's next token.

N rows, B rows of a batch, L places of the longest row, C labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedround.errors import ContractError
from fedround.learning.examples import TARGET, Arrays, Shape
from fedround.learning.tasks.base import Float64, Int64, Scored
from fedround.learning.tasks.metrics import Metrics
from fedround.learning.tasks.summed import SummedScores, hidden
from fedround.spoken import how_many

if TYPE_CHECKING:
    import torch

NOTHING = -1
"""The label of a place that is not there: a row is shorter than the longest."""


class _Sequences(SummedScores):
    """Every place has one of some labels. labels(rows) gives (N, L); -1 where a row has no place any more.

    The model gives C logits for each place. A row's loss is the mean cross-entropy of the places that it has: a long row does
    not weigh more, and how far other rows reach changes nothing. A model that looks along the row takes a mask among its
    features (`{"tokens": …, "mask": …}`), or padding changes what it says.
    """

    @property
    def _labels(self) -> int:
        raise NotImplementedError

    @property
    def _most(self) -> float:
        """What a row's mean loss counts for at most, where it is measured: twice that of a guess."""
        return 2 * math.log(self._labels)

    # -- targets

    def check(self, targets: Arrays, recipe: str) -> None:
        """As `Kind`."""
        if TARGET in targets and targets[TARGET].ndim != 2:
            raise ContractError(f"recipe '{recipe}': labels are of shape {targets[TARGET].shape}, and {self.in_words} "
                                "expects a label for every place, (rows, places), and -1 where a row has no place")
        super().check(targets, recipe)

    def fits(self, targets: Arrays) -> npt.NDArray[np.bool_]:
        """As `Kind`: labels that there are, and one place at least."""
        label_NL = targets[TARGET]
        return np.asarray(((label_NL >= NOTHING) & (label_NL < self._labels)).all(axis=1) & (label_NL >= 0).any(axis=1))

    @property
    def expects(self) -> str:
        """As `Kind`."""
        return f"whole numbers from 0 to {self._labels - 1}, -1 where a row has no place, and one place at least in each row"

    def made_up(self, rows: int, targets: Sequence[Shape]) -> Arrays:
        """As `Kind`: the first row has one place, the second two."""
        length = next((shape.shape[0] for shape in targets if shape.shape), 1)
        row_N1, place_L = np.arange(rows)[:, None], np.arange(length)
        return {TARGET: np.where(place_L <= row_N1, (row_N1 + place_L) % self._labels, NOTHING).astype(np.int64)}

    def strata(self, targets: Arrays) -> Int64:
        """As `Kind`: a row's most frequent label."""
        label_NL = targets[TARGET]
        counts_NC = np.stack([(label_NL == label).sum(axis=1) for label in range(self._labels)], axis=1)
        return np.asarray(counts_NC.argmax(axis=1), np.int64)

    def groups(self, targets: Arrays) -> tuple[list[str], Int64]:
        """As `Kind`: rows by their length."""
        length_N = (targets[TARGET] >= 0).sum(axis=1)
        ends = [8, 32, 128]
        return (["1 to 8 places", "9 to 32 places", "33 to 128 places", "more than 128 places"],
                np.searchsorted(ends, length_N, side="left").astype(np.int64))

    # -- outputs

    def outputs(self, raw: Any, rows: int) -> torch.Tensor:
        """As `Kind`: (B, L, C)."""
        if raw.ndim != 3 or raw.shape[0] != rows or raw.shape[2] != self._labels:
            raise ContractError(f"for {self.in_words} the recipe's model must give {how_many(self._labels, 'logit')} for "
                                f"each place, (rows, places, {self._labels}), it gave outputs of shape {tuple(raw.shape)} "
                                f"for {rows} rows")
        return raw  # type: ignore[no-any-return]

    def losses(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """As `Kind`."""
        loss_BL, there_BL = self._of_places(outputs, targets[TARGET])
        return loss_BL.sum(dim=1) / there_BL.sum(dim=1).clamp(min=1)

    def _of_places(self, outputs: Any, label_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each place's loss, 0 where there is none, and which there are, (B, L)."""
        if outputs.shape[1] != label_BL.shape[1]:
            raise ContractError(f"the recipe's model gives {how_many(outputs.shape[1], 'place')}, and labels(rows) "
                                f"{label_BL.shape[1]}")
        there_BL = label_BL >= 0
        chance_BLC = outputs.log_softmax(dim=2)
        loss_BL = -chance_BLC.gather(2, label_BL.clamp(min=0)[:, :, None])[:, :, 0]
        return loss_BL.where(there_BL, loss_BL.new_zeros(())), there_BL

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The share of places that are named rightly as "score", the mean loss as "loss"."""
        label_BL = targets[TARGET]
        loss_BL, there_BL = self._of_places(outputs.double(), label_BL)
        places_B = there_BL.sum(dim=1).clamp(min=1)
        right_BL = (outputs.argmax(dim=2) == label_BL) & there_BL
        return {"score": right_BL.sum(dim=1) / places_B.double(), "loss": loss_BL.sum(dim=1) / places_B}

    @property
    def scored_shapes(self) -> tuple[Shape, ...]:
        """As `Kind`."""
        return Shape("score", "float64", ()), Shape("loss", "float64", ())

    # -- how good

    @property
    def summed(self) -> tuple[str, ...]:
        """As `Kind`."""
        return "rows", "loss", "right"

    @property
    def longest(self) -> float:
        """As `Kind`."""
        return math.sqrt(3)

    def summands(self, scored: Scored) -> Float64:
        """As `Kind`: the mean loss in units of twice that of a guess, cut at 1; the share that is right."""
        loss_N = np.clip(scored["loss"] / self._most, 0, 1)
        return np.stack([np.ones(len(loss_N)), loss_N, scored["score"]], axis=1)


class Tag(_Sequences):
    """One of `tags` labels at every place; judged by macro-F1, in which every row weighs alike."""

    hub: ClassVar[str] = "token-classification"
    kind: Literal["tag"] = "tag"
    tags: Annotated[int, Field(ge=2, le=300)]

    @property
    def _labels(self) -> int:
        return self.tags

    def answers(self, outputs: Any) -> torch.Tensor:
        """As `Kind`: the chance of every label at every place, (B, L · C)."""
        return outputs.softmax(dim=2).flatten(1)  # type: ignore[no-any-return]

    @property
    def gives(self) -> str:
        """As `Kind`."""
        return f"the chance of each of {self.tags} labels at every place"

    def columns(self, width: int) -> list[str]:
        """As `Kind`."""
        return [f"place_{number // self.tags}_label_{number % self.tags}" for number in range(width)]

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As `_Sequences`; and of every label the share of the row's places that has it ("held"), gets it ("named"), and both
        ("hit"), (B, C).
        """
        import torch

        label_BL = targets[TARGET]
        there_BL, named_BL = label_BL >= 0, outputs.argmax(dim=2)
        places_B1 = there_BL.sum(dim=1, keepdim=True).clamp(min=1).double()
        every_C = torch.arange(self.tags)
        held_BLC = (label_BL[:, :, None] == every_C) & there_BL[:, :, None]
        named_BLC = (named_BL[:, :, None] == every_C) & there_BL[:, :, None]
        return {**super().scored(outputs, targets), "hit": (held_BLC & named_BLC).sum(dim=1) / places_B1,
                "held": held_BLC.sum(dim=1) / places_B1, "named": named_BLC.sum(dim=1) / places_B1}

    @property
    def scored_shapes(self) -> tuple[Shape, ...]:
        """As `Kind`."""
        return *super().scored_shapes, *(Shape(name, "float64", (self.tags,)) for name in ("hit", "held", "named"))

    def scored_answers(self, answers: npt.NDArray[np.float32], targets: Arrays) -> Scored:
        """As `Kind`."""
        return _from_chances(self, answers.reshape(len(answers), answers.shape[1] // self.tags, self.tags), targets[TARGET])

    @property
    def summed(self) -> tuple[str, ...]:
        """As `Kind`."""
        return (*super().summed, *(f"{what}_{label}" for what in ("hit", "held", "named") for label in range(self.tags)))

    @property
    def longest(self) -> float:
        """As `Kind`: shares add up to one at most, so they are no longer than that."""
        return math.sqrt(6)

    def summands(self, scored: Scored) -> Float64:
        """As `Kind`; and the shares of every label."""
        return np.concatenate([super().summands(scored), scored["hit"], scored["held"], scored["named"]], axis=1)

    def of_sums(self, sum_C: Float64, noise_std: float) -> Metrics | None:
        """As `Kind`. A label that nobody has, as far as the noise tells, is not in the macro-F1."""
        if hidden(sum_C, noise_std):
            return None
        hit, held, named = sum_C[3:].reshape(3, -1)
        seen = held > max(3 * noise_std, 1e-9)
        f1_C = np.clip(2 * hit[seen] / (held[seen] + np.maximum(named[seen], 0)), 0, 1)
        return Metrics(macro_f1=float(f1_C.mean()) if seen.any() else None,
                       accuracy=float(np.clip(sum_C[2] / sum_C[0], 0, 1)),
                       log_loss=max(float(sum_C[1] / sum_C[0]) * self._most, 0.0), rows=round(float(sum_C[0])))

    @property
    def headline(self) -> str:
        """As `Kind`."""
        return "macro_f1"


class NextToken(_Sequences):
    """Which of `vocabulary` tokens comes next, at every place: labels(rows) are the tokens one place on.

    The perplexity is the exponential of the mean loss of rows, in which every row weighs alike and counts for twice a guess
    at most.
    """

    hub: ClassVar[str] = "text-generation"
    kind: Literal["next_token"] = "next_token"
    vocabulary: Annotated[int, Field(ge=2, le=200_000)]

    @property
    def _labels(self) -> int:
        return self.vocabulary

    def strata(self, targets: Arrays) -> Int64:
        """As `Kind`: a row's first token."""
        return targets[TARGET][:, 0].astype(np.int64)

    def answers(self, outputs: Any) -> torch.Tensor:
        """As `Kind`: the chance of every token after the last place, (B, C)."""
        return outputs[:, -1].softmax(dim=1)  # type: ignore[no-any-return]

    @property
    def gives(self) -> str:
        """As `Kind`."""
        return f"the chance of each of {self.vocabulary} tokens after the last place"

    def columns(self, width: int) -> list[str]:
        """As `Kind`."""
        return [f"token_{token}" for token in range(width)]

    def scored_answers(self, answers: npt.NDArray[np.float32], targets: Arrays) -> Scored:
        """As `Kind`: of the last place alone."""
        return _from_chances(self, answers[:, None], targets[TARGET][:, -1:])

    def of_sums(self, sum_C: Float64, noise_std: float) -> Metrics | None:
        """As `Kind`."""
        if hidden(sum_C, noise_std):
            return None
        return Metrics(accuracy=float(np.clip(sum_C[2] / sum_C[0], 0, 1)), rows=round(float(sum_C[0])),
                       perplexity=math.exp(min(max(float(sum_C[1] / sum_C[0]), 0.0), 1.0) * self._most))

    @property
    def headline(self) -> str:
        """As `Kind`."""
        return "accuracy"


def _from_chances(task: Tag | NextToken, chance_NLC: npt.NDArray[np.float32], label_NL: Int64) -> Scored:
    import torch

    outputs = torch.from_numpy(np.log(np.maximum(chance_NLC.astype(np.float64), 1e-300)))
    found = task.scored(outputs, {TARGET: torch.from_numpy(np.ascontiguousarray(label_NL))})
    return Scored({name: part.numpy() for name, part in found.items()})
