"""What every task has: what its targets are, what a model must give, each row's loss, what may be measured, how good it is.

N rows, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Union

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError, DivergedError
from fedround.learning.examples import TARGET, Array, Arrays, Shape
from fedround.learning.tasks.metrics import Margin, Metrics
from fedround.spoken import how_many
from fedround.statistics import Judging, LocalEvaluation, ModelSums, Release, Scores
from fedround.values import Value

if TYPE_CHECKING:
    import torch

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Outputs = Union["torch.Tensor", Mapping[str, "torch.Tensor"]]
"""Of a batch: (B, ...), or by head."""

SMALLEST_LOSS = 0.01
"""Smaller losses are only noise; without this bound the ratio of two of them could be anything."""


@dataclass(frozen=True)
class Steepness:
    """How long a row's first derivatives g and `curvature` · h, its second ones, can be together (L2).

    `curvature` is as large as it can be without making a row longer: so second derivatives get less of the noise, at no cost.
    A row that is longer is cut to `length`: it counts for less, as an outlier does in Huber's loss.
    """

    curvature: float
    length: float


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

    @property
    def has_numbers(self) -> npt.NDArray[np.bool_]:
        """Of which rows all numbers are finite, (N,)."""
        there_N = np.ones(len(self), dtype=np.bool_)
        for array in self.numbers.values():
            there_N &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        return there_N

    def at(self, rows: Any) -> Scored:
        """These rows."""
        return Scored({name: array[rows] for name, array in self.numbers.items()})


def check_numbers(scored: Scored) -> None:
    """Raises DivergedError if a number is not finite."""
    if lacking := int((~scored.has_numbers).sum()):
        raise DivergedError(f"the model says no finite number for {lacking:,} of {how_many(len(scored), 'row')}: it has "
                            "diverged; a smaller learning rate, or a smaller clip norm, keeps it from that")


def scored_together(parts: Sequence[Scored]) -> Scored:
    """All rows, one after the other."""
    return Scored({name: np.concatenate([part[name] for part in parts]) for name in parts[0].numbers})


class Kind(Value):
    """A task. Methods that take `recipe` name it in their errors."""

    dtypes: ClassVar[Mapping[str, str]] = {TARGET: "int64"}
    """What the targets are called, and of which dtype each is."""
    hub: ClassVar[str] = "tabular-regression"
    """What model hubs call such a model."""

    unlabelled: ClassVar[bool] = False
    """Whether rows have no labels, so that a recipe says none; then their targets are zeros, which nobody reads."""

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
    def presence(self) -> Mapping[str, tuple[str, ...]]:
        """Targets that only say whether others are known, 0 or 1, and which: a recipe with `TARGET` need not name them."""
        return {}

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
        if not self.fits(targets).all():
            raise ContractError(f"recipe '{recipe}': labels must be {self.expects}, as {self.in_words} has them")

    def fits(self, targets: Arrays) -> npt.NDArray[np.bool_]:
        """Which rows' targets are possible, (N,). Their dtypes are the task's."""
        return np.ones(len(next(iter(targets.values()))), np.bool_)

    @property
    def expects(self) -> str:
        """What is possible, in words."""
        return "numbers"

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

    # -- what trees are made of

    @property
    def outputs_each(self) -> int | None:
        """How many numbers the model gives for a row, K; None: a row's loss needs others, and trees cannot learn it."""
        return None

    def slopes(self, output_NK: Float64, targets: Arrays) -> tuple[Float64, Float64]:
        """The loss' first and second derivative by each of these numbers, (N, K) each; where `outputs_each` is known."""
        raise NotImplementedError

    @property
    def steepness(self) -> Steepness:
        """Of `slopes`; where `outputs_each` is known."""
        raise NotImplementedError

    # -- what a model says

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What `Scored` holds of these rows."""
        raise NotImplementedError

    @property
    def scored_shapes(self) -> tuple[Shape, ...]:
        """What `scored` says of a row."""
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

    def statistic(self, evaluation: LocalEvaluation, public: Scored | None = None) -> Judging:
        """What sites are asked about a model. public: what is known of public rows."""
        raise NotImplementedError

    def is_judged_by(self, statistic: Judging) -> bool:
        """Whether sites can be asked this about a model of the task, whatever the noise, the bins and their edges."""
        usual = self.statistic(LocalEvaluation())
        if isinstance(statistic, Scores):
            return isinstance(usual, Scores) and usual.outcomes == statistic.outcomes
        return isinstance(usual, ModelSums) and (usual.names, usual.longest) == (statistic.names, statistic.longest)

    @property
    def summed(self) -> tuple[str, ...]:
        """What `summands` are called."""
        raise NotImplementedError

    @property
    def longest(self) -> float:
        """How long (L2) a row of `summands` can be, whatever the row is."""
        raise NotImplementedError

    def summands(self, scored: Scored) -> Float64:
        """What sums of are enough to judge the model by, (N, C): of each row, bounded; the first is 1."""
        raise NotImplementedError

    def of_sums(self, sum_C: Float64, noise_std: float) -> Metrics | None:
        """Metrics from sums of `summands`; None if noise of this size on each hides them."""
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
        """Exact metrics. Raises ContractError for rows that do not determine one, and DivergedError if there is a row of
        which the model says no number: without its hardest rows any model would look well.
        """
        check_numbers(scored)
        return self._exact(scored)

    def _exact(self, scored: Scored) -> Metrics:
        """The same, of finite numbers."""
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

    def one_number(self, raw: Any, rows: int, what: str) -> torch.Tensor:
        """The model's one number for each row, (B,). Raises ContractError for another shape; what: it is, in words."""
        if raw.numel() != rows:
            raise ContractError(f"for {self.in_words} the recipe's model must give {what} for each row, it gave outputs of "
                                f"shape {tuple(raw.shape)} for {rows} rows; change the model, or TASK")
        return raw.reshape(rows)  # type: ignore[no-any-return]


def one_for_each_row(task: Kind, target_N: Array, recipe: str) -> None:
    """Raise ContractError unless it is (N,)."""
    if target_N.ndim != 1:
        raise ContractError(f"recipe '{recipe}': labels are of shape {target_N.shape}, and {task.in_words} expects one for "
                            "each row")


def by_rank(number_N: Array) -> Int64:
    """In which tenth of the rows each is, by its number; equal numbers are in one tenth, (N,)."""
    edges = np.quantile(number_N, np.arange(1, 10) / 10) if len(number_N) else np.empty(0)
    return np.searchsorted(edges, number_N, side="right").astype(np.int64)


def _names(kinds: Mapping[str, Any]) -> str:
    """For messages: "'event' (int64) and 'time' (float32)"."""
    return " and ".join(f"'{name}' ({kind if isinstance(kind, str) else kind.dtype})" for name, kind in sorted(kinds.items()))
