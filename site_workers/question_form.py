"""Which questions about rows an operator allows: [questions] of policy.toml."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedround.records import Measure, Plan
from fedround.statistics.partitions import Partitions, of_one_kind
from fedround.values import ColumnName, Name, Value


class QuestionForm(Value):
    """The form of the questions that may be asked about rows, whoever wrote them: no code travels, so a form is enough."""

    columns: tuple[ColumnName, ...] | None = None
    """The only ones that may be named, to sum, group, filter or tell rows apart by; None: any."""
    most_numbers: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """In one statistic: bins, groups, products."""
    min_noise_std: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    """Of each statistic, beside one record's longest contribution."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of max_epsilon: the most that all questions together may spend; campaigns do not count."""
    hours_between: Annotated[float, Field(ge=0, le=8784)] = 0.0
    """From one question that was charged to the next."""
    askers: tuple[Name, ...] | None = None
    """Who may ask, by the names that the coordinator gives; None: anybody."""

    def objections(self, asks: Measure, partitions: Sequence[Partitions], *, agreed: bool) -> Iterator[str]:
        """Why this question has another form, in words for the coordinator.

        partitions: how else rows may be told apart. agreed: whether a campaign's terms ask it, and so nobody in particular.
        The coordinator writes the terms: what may be counted is the same.
        """
        if self.askers is not None and not agreed and asks.asker not in self.askers:
            whose = "of this asker" if asks.asker else "without an asker"
            yield f"questions {whose} are not answered here"
        part = asks.partition
        if (self.columns is not None and part is not None and part.column not in self.columns
                and not any(of_one_kind(one, part) for one in partitions)):
            yield f"questions about column '{part.column}' are not answered here"[:300]
        for one in asks.statistics:
            if self.columns is not None and (other := [name for name in one.columns if name not in self.columns]):
                yield f"questions about column '{other[0]}' are not answered here"[:300]
            if (numbers := math.prod(one.shape)) > self.most_numbers:
                yield f"{one.in_words}: {numbers} numbers in one answer are more than the {self.most_numbers} allowed here"
            if one.noise_std < self.min_noise_std:
                yield f"{one.in_words}: noise of {one.noise_std:g} is less than the {self.min_noise_std:g} asked for here"


def is_agreed(plan: Plan) -> bool:
    """Whether the terms of the campaign ask for this measurement themselves: of drift, or of groups before a promotion."""
    agreed, asked = plan.agreed, plan.asks.statistics
    return ((agreed.drift is not None and asked == agreed.drift.statistics)
            or (agreed.groups is not None and asked == agreed.groups.about(plan.base_model)))
