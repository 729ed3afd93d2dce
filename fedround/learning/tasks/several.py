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
from fedround.learning.tasks.summed import SummedScores
from fedround.learning.tasks.survive import Survive

if TYPE_CHECKING:
    import torch

KNOWN = "known"

Head = Annotated[Classify | Regress | Count | Survive, Field(discriminator="kind")]


class Several(SummedScores):
    """A task for each head; the model gives {head: its outputs}, and labels(rows) {head: its labels}.

    A row's loss is the mean of its heads' losses. All heads share one release, so sites can measure a little less than each
    head's own task could. One head, `main`, is the one that counts where models are compared.

    Of a head that `may_miss`, a row says whether its label is known: 0 or 1, as "head.known". Where it is not, whatever
    stands as its label is not looked at, the head's loss is 0, which leaves the other heads' gradients as they are, and the
    row adds nothing to the head's sums.
    """

    kind: Literal["several"] = "several"
    heads: Annotated[dict[HeadName, Head], Field(min_length=1, max_length=20)]
    main: HeadName | None = None
    """Which head counts where models are compared; None: the first by name."""

    may_miss: tuple[HeadName, ...] = ()
    """Heads of which some rows, or all rows of a site, have no label."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if other := sorted(set(self.may_miss) - set(self.heads)):
            raise ValueError(f"may_miss names '{other[0]}', and no head is called so")
        if len(set(self.may_miss)) < len(self.may_miss) or (self.may_miss and len(self.heads) == 1):
            raise ValueError("may_miss names each head once, and there must be another head to learn from")
        if self.main is not None and self.main not in self.heads:
            raise ValueError(f"main is '{self.main}', and no head is called so")
        return self

    def __hash__(self) -> int:
        return hash((self.kind, self.main, self.may_miss, *sorted((name, hash(head)) for name, head in self.heads.items())))

    @property
    def in_words(self) -> str:
        """As `Kind`."""
        misses = f", may_miss={self.may_miss!r}" if self.may_miss else ""
        return "Several(heads={" + ", ".join(f"'{name}': {head.in_words}" for name, head in self._heads) + "}" + misses + ")"

    @property
    def _heads(self) -> list[tuple[str, Head]]:
        """By name: a document may hold them in another order."""
        return sorted(self.heads.items())

    @property
    def _main(self) -> str:
        return self.main or min(self.heads)

    def _own(self, name: str, targets: Mapping[str, Any]) -> dict[str, Any]:
        """A head's targets, by the names that its task knows; 0, which every task knows, where the label is not known."""
        alone = {TARGET: targets[name]} if name in targets else {}
        own = alone | {key.removeprefix(f"{name}."): part for key, part in targets.items() if key.startswith(f"{name}.")}
        if name not in self.may_miss:
            return own
        there = own.pop(KNOWN) == 1
        return {key: part * there for key, part in own.items()}

    # -- targets

    @property
    def dtypes_by_name(self) -> Mapping[str, str]:
        """As `Kind`: "head", or "head.name" where a head has several."""
        return dict(sorted([*((name if own == TARGET else f"{name}.{own}", dtype) for name, head in self._heads
                              for own, dtype in head.dtypes_by_name.items()),
                            *((f"{name}.{KNOWN}", "int64") for name in self.may_miss)]))

    @property
    def presence(self) -> Mapping[str, tuple[str, ...]]:
        """As `Kind`."""
        return {f"{name}.{KNOWN}": tuple(name if own == TARGET else f"{name}.{own}"
                                         for own in self.heads[name].dtypes_by_name) for name in self.may_miss}

    def check(self, targets: Arrays, recipe: str) -> None:
        """As `Kind`."""
        super().check(targets, recipe)
        for name, head in self._heads:
            head.check(self._own(name, targets), f"{recipe}', head '{name}")

    def fits(self, targets: Arrays) -> npt.NDArray[np.bool_]:
        """As `Kind`: of every head, of which one at least is known."""
        said = [np.isin(targets[f"{name}.{KNOWN}"], (0, 1)) for name in self.may_miss]
        known = [self._known(name, targets) for name, _ in self._heads]
        fits = [head.fits(self._own(name, targets)) for name, head in self._heads]
        return np.asarray(np.all([*said, *fits, np.any(known, axis=0)], axis=0))

    def _known(self, name: str, numbers: Arrays) -> npt.NDArray[np.bool_]:
        """Whose label of the head is known, (N,)."""
        if name in self.may_miss:
            return np.asarray(numbers[f"{name}.{KNOWN}"] == 1)
        return np.ones(len(next(iter(numbers.values()))), np.bool_)

    @property
    def expects(self) -> str:
        """As `Kind`."""
        misses = [f"'{name}.{KNOWN}': 0 or 1, one head's at least 1 in each row" for name in self.may_miss]
        return "; ".join([*(f"'{name}': {head.expects}" for name, head in self._heads), *misses])

    def made_up(self, rows: int, targets: Sequence[Shape]) -> Arrays:
        """As `Kind`: of each head that may miss another row in turn misses."""
        made = [(name if own == TARGET else f"{name}.{own}", array) for name, head in self._heads
                for own, array in head.made_up(rows, ()).items()]
        made += [(f"{name}.{KNOWN}", ((np.arange(rows) + place) % (len(self.heads) + 1) != 1).astype(np.int64))
                 for place, name in enumerate(self.may_miss)]
        return dict(sorted(made))

    def strata(self, targets: Arrays) -> Int64:
        """As `Kind`: of the main head."""
        stratum_N = self.heads[self._main].strata(self._own(self._main, targets))
        return np.where(self._known(self._main, targets), stratum_N, stratum_N.max(initial=0) + 1)

    def groups(self, targets: Arrays) -> tuple[list[str], Int64]:
        """As `Kind`: of the main head."""
        names, place_N = self.heads[self._main].groups(self._own(self._main, targets))
        missing = [f"{self._main}: not known"] if self._main in self.may_miss else []
        return ([f"{self._main}: {name}" for name in names] + missing,
                np.where(self._known(self._main, targets), place_N, len(names)))

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
        found = [self._loss(name, outputs[name], targets) for name, _ in self._heads]
        return sum(found[1:], start=found[0]) / len(found)

    def _loss(self, name: str, outputs: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        losses_B = self.heads[name].losses(outputs, self._own(name, targets))
        return losses_B.where(targets[f"{name}.{KNOWN}"] == 1, 0.0) if name in self.may_miss else losses_B

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What each head scores, as "head.name"; and the main head's "score"."""
        found = {f"{name}.{what}": part for name, head in self._heads
                 for what, part in head.scored(outputs[name], self._own(name, targets)).items()}
        return {"score": found[f"{self._main}.score"], **found,
                **{f"{name}.{KNOWN}": targets[f"{name}.{KNOWN}"] for name in self.may_miss}}

    @property
    def scored_shapes(self) -> tuple[Shape, ...]:
        """As `Kind`."""
        heads = {name: head.scored_shapes for name, head in self._heads}
        (main,) = (one for one in heads[self._main] if one.name == "score")
        return (main, *(one._replace(name=f"{name}.{one.name}") for name, own in heads.items() for one in own),
                *(Shape(f"{name}.{KNOWN}", "int64", ()) for name in self.may_miss))

    def _of_head(self, scored: Scored, name: str) -> Scored:
        """What it scores, of all rows."""
        return Scored({key.removeprefix(f"{name}."): part for key, part in scored.numbers.items()
                       if key.startswith(f"{name}.")})

    def _of_known(self, scored: Scored, name: str) -> Scored:
        return self._of_head(scored, name).at(self._known(name, scored.numbers))

    def answers(self, outputs: Any) -> torch.Tensor:
        """As `Kind`: of all heads side by side, (B, all their columns)."""
        import torch

        parts = [head.answers(outputs[name]) for name, head in self._heads]
        return torch.cat([part if part.ndim == 2 else part[:, None] for part in parts], dim=1)

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
        return Scored({"score": found[f"{self._main}.score"], **found,
                       **{f"{name}.{KNOWN}": targets[f"{name}.{KNOWN}"] for name in self.may_miss}})

    # -- how good

    @property
    def summed(self) -> tuple[str, ...]:
        """As `Kind`: the rows, and what each head has besides; a head that may miss has rows of its own."""
        return ("rows", *(f"{name}.{what}" for name, head in self._heads for what in head.summed[self._first(name):]))

    def _first(self, name: str) -> int:
        """Which of a head's summands is the first that is its own: all heads of which every row has a label share "rows"."""
        return 0 if name in self.may_miss else 1

    @property
    def longest(self) -> float:
        """As `Kind`: every head's own, with "rows" for all."""
        return math.sqrt(1 + sum(head.longest ** 2 - self._first(name) for name, head in self._heads))

    def summands(self, scored: Scored) -> Float64:
        """As `Kind`; 0 where a head's label is not known."""
        return np.concatenate([np.ones((len(scored), 1)), *(
            np.where(self._known(name, scored.numbers)[:, None], head.summands(self._of_head(scored, name)), 0.0)
            [:, self._first(name):] for name, head in self._heads)], axis=1)

    def of_sums(self, sum_C: Float64, noise_std: float) -> Metrics | None:
        """As `Kind`: of every head that the noise does not hide."""
        found = {name: one for name, own_C in self._parts(sum_C)
                 if (one := self.heads[name].of_sums(own_C, noise_std)) is not None}
        return Metrics(heads=found, rows=round(float(sum_C[0]))) if found else None

    def _parts(self, sum_C: Float64) -> Iterator[tuple[str, Float64]]:
        start = 1
        for name, head in self._heads:
            end = start + len(head.summed) - self._first(name)
            yield name, np.concatenate([sum_C[:self._first(name)], sum_C[start:end]])
            start = end

    def loss_of(self, mean_C: Float64) -> float:
        """As `Summed`: the mean over heads; as in training, a head whose label is not known adds 0."""
        return float(np.mean([own_C[1] for _, own_C in self._parts(mean_C)]))

    def _exact(self, scored: Scored) -> Metrics:
        """As `Kind`: each head's own, on the rows that have its label; none of a head other than `main` without such rows."""
        return Metrics(rows=len(scored), heads={
            name: head.metrics(self._of_known(scored, name)) for name, head in self._heads
            if name == self._main or self._known(name, scored.numbers).any()})

    @property
    def headline(self) -> str:
        """As `Kind`: the main head's."""
        return f"{self._main}.{self.heads[self._main].headline}"

    def worth(self, scored: Scored) -> float:
        """As `Kind`: of the main head."""
        return self.heads[self._main].worth(self._of_known(scored, self._main))

    def grain(self, targets: Arrays) -> float:
        """As `Kind`: of the main head."""
        known_N = self._known(self._main, targets)
        return self.heads[self._main].grain({key: part[known_N] for key, part in self._own(self._main, targets).items()})
