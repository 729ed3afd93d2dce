"""What every task has: what its targets are, what a model must give, each row's loss, what may be measured, how good it is.

N rows, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Union

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.learning.examples import TARGET, Array, Arrays, Shape
from fedround.learning.tasks.metrics import Margin, Metrics
from fedround.statistics import LocalEvaluation, Release, Statistic
from fedround.values import Value

if TYPE_CHECKING:
    import torch

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Outputs = Union["torch.Tensor", Mapping[str, "torch.Tensor"]]
"""Of a batch: (B, ...), or by head."""

SMALLEST_LOSS = 0.01
"""Smaller losses are only noise; without this bound the ratio of two of them could be anything."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What a model says of rows, in a form that its task can judge: numbers by name, (N, ...) each.

    Every task has "score", one number for each row; which others, the task says.
    """

    numbers: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.numbers["score"])

    def __getitem__(self, name: str) -> Array:
        return self.numbers[name]

    def at(self, rows: Any) -> Scored:
        """These rows."""
        return Scored({name: array[rows] for name, array in self.numbers.items()})


def scored_together(parts: Sequence[Scored]) -> Scored:
    """All rows, one after the other."""
    return Scored({name: np.concatenate([part[name] for part in parts]) for name in parts[0].numbers})


class Kind(Value):
    """A task. Methods that take `recipe` name it in their errors."""

    dtypes: ClassVar[Mapping[str, str]] = {TARGET: "int64"}
    """What the targets are called, and of which dtype each is."""

    # -- targets

    @property
    def labels(self) -> int | None:
        """How many labels there are; None: what is learnt is no label of a row."""
        return None

    @property
    def decides(self) -> bool:
        """Whether there are two labels, so that a threshold on the score makes a decision."""
        return self.labels == 2

    def cast(self, targets: Arrays, recipe: str) -> Arrays:
        """What a recipe's `labels` gave, in the task's dtypes, as far as that loses nothing but digits.

        Raises ContractError for names or kinds of numbers that are not the task's.
        """
        wanted = self.dtypes_by_name
        if set(targets) != set(wanted):
            raise ContractError(f"recipe '{recipe}': labels(rows) gives {_names(targets)}, and {self.in_words} expects "
                                f"{_names(wanted)}")
        made = {}
        for name, dtype in wanted.items():
            found = targets[name]
            fits = found.dtype.kind in ("biuf" if dtype == "float32" else "biu")
            large = found.dtype.kind == "u" and found.size and found.max() >= 1 << 63
            if not fits or large:
                raise ContractError(f"recipe '{recipe}': labels are {_names(targets)}, and {self.in_words} expects "
                                    f"{_names(wanted)}")
            made[name] = found.astype(dtype, copy=False)
        return made

    @property
    def dtypes_by_name(self) -> Mapping[str, str]:
        """`dtypes`, where they depend on the value."""
        return self.dtypes

    @property
    def in_words(self) -> str:
        """The task as a recipe writes it."""
        said = self.model_dump(exclude={"kind"}, exclude_defaults=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in said.items())})"

    def check(self, targets: Arrays, recipe: str) -> None:
        """Raise ContractError unless the targets are of this task."""
        wanted = self.dtypes_by_name
        found = {name: array.dtype.name for name, array in targets.items()}
        if found != dict(wanted):
            raise ContractError(f"recipe '{recipe}': labels are {_names(found)}, and {self.in_words} expects "
                                f"{_names(wanted)}")

    def made_up(self, rows: int, targets: Sequence[Shape]) -> Arrays:
        """Targets of so many rows that nobody has, in turn all kinds of them. targets: their form."""
        raise NotImplementedError

    def strata(self, targets: Arrays) -> Int64:
        """Rows that are alike in what is learnt have the same number, (N,): to deal rows to simulated sites by it."""
        raise NotImplementedError

    def groups(self, targets: Arrays) -> tuple[list[str], Int64]:
        """Public groups of rows by what is learnt, in words, and which each row is in, (N,): for people who see the rows."""
        raise NotImplementedError

    # -- outputs

    def outputs(self, raw: Any, rows: int) -> Outputs:
        """What the model gave for so many rows, in the task's shape. Raises ContractError for another one."""
        raise NotImplementedError

    def losses(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Each row's loss, (B,)."""
        raise NotImplementedError

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What `Scored` holds of these rows."""
        raise NotImplementedError

    def answers(self, outputs: Any) -> torch.Tensor:
        """What the model is used for, (B,) or (B, its columns): what a bundle's model gives."""
        raise NotImplementedError

    @property
    def gives(self) -> str:
        """What `answers` are, in words."""
        raise NotImplementedError

    def columns(self, width: int) -> list[str]:
        """What the columns of `answers` are called; width: how many there are."""
        raise NotImplementedError

    def scored_answers(self, answers: npt.NDArray[np.float32], targets: Arrays) -> Scored:
        """As `scored`, from `answers`, whichever program computed them."""
        raise NotImplementedError

    # -- what may be measured

    def statistic(self, evaluation: LocalEvaluation, public: Scored | None = None) -> Statistic:
        """What sites are asked about a model. public: what is known of public rows."""
        raise NotImplementedError

    def mean_loss(self, told: Release) -> float | None:
        """A site's mean loss, from `SMALLEST_LOSS` to 1, from what it told; None if the noise hides it."""
        raise NotImplementedError

    def metrics_of(self, told: Sequence[Release]) -> Metrics | None:
        """Metrics of all sites together; None if the noise hides them."""
        raise NotImplementedError

    def margin_of(self, told: Sequence[Release]) -> Margin | None:
        """How far noise may have moved `metrics_of` the same; None where that is None, or nothing is noised."""
        raise NotImplementedError

    # -- how good

    def metrics(self, scored: Scored) -> Metrics:
        """Exact metrics. Raises ContractError for rows that do not determine one."""
        raise NotImplementedError

    @property
    def headline(self) -> str:
        """The first of `metrics`. More of it is better."""
        raise NotImplementedError

    def worth(self, scored: Scored) -> float:
        """The `headline` of `metrics`: for where many models are compared. Raises ContractError as `metrics` does."""
        return self.metrics(scored).known()[self.headline]

    def grain(self, targets: Arrays) -> float:
        """By how much `worth` changes if two rows change their order, or one is judged otherwise."""
        return 1 / max(1, len(next(iter(targets.values()))))


def _names(kinds: Mapping[str, Any]) -> str:
    """For messages: "'event' (int64) and 'time' (float32)"."""
    return " and ".join(f"'{name}' ({kind if isinstance(kind, str) else kind.dtype})" for name, kind in sorted(kinds.items()))
