"""Several things are learnt at once, by one model with a head for each.

N rows, B rows of a batch, C summands of a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedround.errors import ContractError
from fedround.learning.examples import TARGET, Arrays, Shape
from fedround.learning.tasks.base import Float64, Int64, Outputs, Scored
from fedround.learning.tasks.classify import Classify
from fedround.learning.tasks.count import Count
from fedround.learning.tasks.metrics import HeadName, Metrics
from fedround.learning.tasks.regress import Regress
from fedround.learning.tasks.summed import Summed
from fedround.learning.tasks.survive import Survive

if TYPE_CHECKING:
    import torch

Head = Annotated[Classify | Regress | Count | Survive, Field(discriminator="kind")]


class Several(Summed):
    """A task for each head; the model gives {head: its outputs}, and labels(rows) {head: its labels}.

    A row's loss is the mean of its heads' losses. What sites measure together is less than each head's own task could (the
    accuracy, and no AUC), since all heads share one release. One head, `main`, is the one that counts where models are
    compared.
    """

    kind: Literal["several"] = "several"
    heads: Annotated[dict[HeadName, Head], Field(min_length=1, max_length=20)]
    main: HeadName | None = None
    """Which head counts where models are compared; None: the first by name."""

    @model_validator(mode="after")
    def _check_main(self) -> Self:
        if self.main is not None and self.main not in self.heads:
            raise ValueError(f"main is '{self.main}', and no head is called so")
        return self

    def __hash__(self) -> int:
        return hash((self.kind, self.main, *sorted((name, hash(head)) for name, head in self.heads.items())))

    @property
    def in_words(self) -> str:
        """As `Kind`."""
        return "Several(heads={" + ", ".join(f"'{name}': {head.in_words}" for name, head in self._heads) + "})"

    @property
    def _heads(self) -> list[tuple[str, Head]]:
        """By name: a document may hold them in another order."""
        return sorted(self.heads.items())

    @property
    def _main(self) -> str:
        return self.main or min(self.heads)

    def _own(self, name: str, targets: Mapping[str, Any]) -> dict[str, Any]:
        """A head's targets, by the names that its task knows."""
        alone = {TARGET: targets[name]} if name in targets else {}
        return alone | {key.removeprefix(f"{name}."): part for key, part in targets.items() if key.startswith(f"{name}.")}

    # -- targets

    @property
    def dtypes_by_name(self) -> Mapping[str, str]:
        """As `Kind`: "head", or "head.name" where a head has several."""
        return dict(sorted((name if own == TARGET else f"{name}.{own}", dtype) for name, head in self._heads
                           for own, dtype in head.dtypes_by_name.items()))

    def check(self, targets: Arrays, recipe: str) -> None:
        """As `Kind`."""
        super().check(targets, recipe)
        for name, head in self._heads:
            head.check(self._own(name, targets), f"{recipe}', head '{name}")

    def fits(self, targets: Arrays) -> npt.NDArray[np.bool_]:
        """As `Kind`: of every head."""
        return np.asarray(np.all([head.fits(self._own(name, targets)) for name, head in self._heads], axis=0))

    @property
    def expects(self) -> str:
        """As `Kind`."""
        return "; ".join(f"'{name}': {head.expects}" for name, head in self._heads)

    def made_up(self, rows: int, targets: Sequence[Shape]) -> Arrays:
        """As `Kind`."""
        return dict(sorted((name if own == TARGET else f"{name}.{own}", array) for name, head in self._heads
                           for own, array in head.made_up(rows, ()).items()))

    def strata(self, targets: Arrays) -> Int64:
        """As `Kind`: of the main head."""
        return self.heads[self._main].strata(self._own(self._main, targets))

    def groups(self, targets: Arrays) -> tuple[list[str], Int64]:
        """As `Kind`: of the main head."""
        names, place_N = self.heads[self._main].groups(self._own(self._main, targets))
        return [f"{self._main}: {name}" for name in names], place_N

    # -- outputs

    def outputs(self, raw: Any, rows: int) -> Outputs:
        """As `Kind`: by head."""
        if not isinstance(raw, Mapping) or set(raw) != set(self.heads):
            found = f"those of {', '.join(sorted(raw))}" if isinstance(raw, Mapping) else type(raw).__name__
            raise ContractError(f"the recipe's model must give the outputs of each head by its name "
                                f"({', '.join(sorted(self.heads))}), "
                                f"it gave {found}")
        return {name: head.outputs(raw[name], rows) for name, head in self._heads}

    def losses(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """As `Kind`."""
        found = [head.losses(outputs[name], self._own(name, targets)) for name, head in self._heads]
        return sum(found[1:], start=found[0]) / len(found)

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What each head scores, as "head.name"; and the main head's "score"."""
        found = {f"{name}.{what}": part for name, head in self._heads
                 for what, part in head.scored(outputs[name], self._own(name, targets)).items()}
        return {"score": found[f"{self._main}.score"], **found}

    def _of_head(self, scored: Scored, name: str) -> Scored:
        return Scored(self._own(name, scored.numbers))

    def answers(self, outputs: Any) -> torch.Tensor:
        """As `Kind`: of all heads side by side, (B, all their columns)."""
        import torch

        return torch.cat([head.answers(outputs[name]).reshape(outputs[name].shape[0], -1)
                          for name, head in self._heads], dim=1)

    @property
    def gives(self) -> str:
        """As `Kind`."""
        return "; ".join(f"'{name}': {head.gives}" for name, head in self._heads)

    def _columns(self) -> Iterator[tuple[str, list[str]]]:
        for name, head in self._heads:
            width = head.classes if isinstance(head, Classify) and head.classes > 2 else 1
            yield name, head.columns(width)

    def columns(self, width: int) -> list[str]:
        """As `Kind`: "head_column"."""
        return [f"{name}_{column}" for name, columns in self._columns() for column in columns]

    def scored_answers(self, answers: npt.NDArray[np.float32], targets: Arrays) -> Scored:
        """As `Kind`."""
        found, start = dict[str, Any](), 0
        for name, columns in self._columns():
            part = answers[:, start:start + len(columns)]
            start += len(columns)
            own = self.heads[name].scored_answers(part[:, 0] if len(columns) == 1 else part, self._own(name, targets))
            found |= {f"{name}.{what}": array for what, array in own.numbers.items()}
        return Scored({"score": found[f"{self._main}.score"], **found})

    # -- how good

    @property
    def summed(self) -> tuple[str, ...]:
        """As `Kind`: the rows, and what each head has besides."""
        return ("rows", *(f"{name}.{what}" for name, head in self._heads for what in head.summed[1:]))

    @property
    def longest(self) -> float:
        """As `Kind`: every head's own, with one "rows" for all."""
        return math.sqrt(1 + sum(head.longest ** 2 - 1 for _, head in self._heads))

    def summands(self, scored: Scored) -> Float64:
        """As `Kind`."""
        return np.concatenate([np.ones((len(scored), 1)), *(head.summands(self._of_head(scored, name))[:, 1:]
                                                            for name, head in self._heads)], axis=1)

    def of_sums(self, sum_C: Float64, noise_std: float) -> Metrics | None:
        """As `Kind`: of every head that the noise does not hide."""
        found = {name: one for name, own_C in self._parts(sum_C)
                 if (one := self.heads[name].of_sums(own_C, noise_std)) is not None}
        return Metrics(heads=found, rows=round(float(sum_C[0]))) if found else None

    def _parts(self, sum_C: Float64) -> Iterator[tuple[str, Float64]]:
        start = 1
        for name, head in self._heads:
            end = start + len(head.summed) - 1
            yield name, np.concatenate([sum_C[:1], sum_C[start:end]])
            start = end

    def loss_of(self, mean_C: Float64) -> float:
        """As `Summed`: the mean over heads."""
        return float(np.mean([own_C[1] for _, own_C in self._parts(mean_C)]))

    def metrics(self, scored: Scored) -> Metrics:
        """As `Kind`: each head's own."""
        return Metrics(rows=len(scored), heads={
            name: head.metrics(self._of_head(scored, name)) for name, head in self._heads})

    @property
    def headline(self) -> str:
        """As `Kind`: the main head's."""
        return f"{self._main}.{self.heads[self._main].headline}"

    def worth(self, scored: Scored) -> float:
        """As `Kind`: of the main head."""
        return self.heads[self._main].worth(self._of_head(scored, self._main))

    def grain(self, targets: Arrays) -> float:
        """As `Kind`: of the main head."""
        return self.heads[self._main].grain(self._own(self._main, targets))
