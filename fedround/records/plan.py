"""A plan: where it stands, what was agreed, and its one question."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from fedround.agreement import Deadline, Quorum
from fedround.codec import Schema
from fedround.learning.clusters import schema_of_one
from fedround.learning.tasks import Task
from fedround.records.questions import Measure, Question
from fedround.regions.spec import lapsed
from fedround.spoken import how_many
from fedround.statistics import ClassSums, Decisions, Importance, ModelSums, Scores
from fedround.statistics.partitions import of_one_kind
from fedround.terms import Agreed
from fedround.values import MAX_NUMBER, Attempt, Digest, Name, Round, Signed, TensorSpec, ToolVersion, Value


class Address(Value):
    """Where a question stands in a federation's history."""

    federation: Name
    run: Name
    round: Round
    """The round that the question makes. If it makes none: the round whose model it is about."""
    attempt: Attempt = 1


class LogHead(Value):
    """Names the federation log up to one of its entries (`fedround.federation_log`)."""

    number: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    digest: Digest


class Exclusion(Value):
    """A member that a round does not ask, by the federation's reputation policy."""

    site: Name
    until: Annotated[int, Field(ge=1, le=2 * MAX_NUMBER)]
    """The round in which it is asked again."""
    reason: Annotated[str, StringConstraints(max_length=300)]


class Ticket(Value):
    """A member that was asked in an earlier round and has said nothing yet: its answer counts in this one, too."""

    site: Name
    round: Round
    """Whose committed plan it works on."""
    plan: Digest


class Plan(Address, Signed):
    """What the coordinator asks of a cohort; a site does nothing that no plan asks for."""

    kind: ClassVar[str] = "plan"

    federation_digest: Digest
    log: LogHead
    """The federation log up to the entry that names this federation file."""
    parent: Digest
    base_model: Digest
    tensors: tuple[TensorSpec, ...]
    rest: Digest | None = None
    """The tensors that do not travel, the same in every round of the run: the frozen ones, and where private ones begin.
    None: there are none. `tensors` are the others."""
    cohort: tuple[Name, ...]
    excluded: tuple[Exclusion, ...] = ()
    """The members that the reputation policy excludes, each with the reason."""
    unasked: tuple[Name, ...] = ()
    """The members that were not chosen, where the federation file lets sites be chosen or selects them, and those that were
    not there. All others are in the cohort."""
    at: Annotated[int, Field(ge=0, le=10 ** 11)] | None = None
    """When it was planned, in seconds since 1970, by the coordinator's clock, where that decides whom it asks; None: it does
    not."""
    tickets: Annotated[tuple[Ticket, ...], Field(max_length=1000)] = ()
    """Where the terms have a `pace`: who is not asked now, because it still works on the plan of an earlier round. It follows
    from the plan and the commit of the round before (`fedround.rounds.tickets`)."""
    quorum: Quorum
    deadline_s: Deadline
    enough: Quorum | None = None
    """Once so many updates are admitted nobody else is waited for; None: all are."""
    task: Task
    """What the recipe says is learnt."""
    agreed: Agreed
    asks: Question
    tool_version: ToolVersion

    @model_validator(mode="after")
    def _check_decisions(self) -> Self:
        for one in self.asks.statistics:
            if isinstance(one, Decisions | Importance) and one.model != self.base_model:
                raise ValueError(f"{one.word} of model {one.model[:16]} are asked for, and the plan is about "
                                 f"{self.base_model[:16]}")
            if isinstance(one, Decisions) and not self.task.decides:
                raise ValueError(f"decisions are of two labels, and the task is {self.task.in_words}")
            if isinstance(one, ClassSums) and self.task.labels != one.labels:
                raise ValueError(f"sums by {one.labels} labels are asked for, and the task is {self.task.in_words}")
            judging = one.judged if isinstance(one, Importance) else one
            if isinstance(judging, Scores | ModelSums) and not self.task.is_judged_by(judging):
                raise ValueError(f"{one.in_words} as they are asked for say nothing about {self.task.in_words}")
        return self

    @model_validator(mode="after")
    def _check_clusters(self) -> Self:
        clusters, asked = self.agreed.clusters, self.asks.statistics
        if clusters == 1 or not self.asks.is_of_rows:
            return self
        schema_of_one(self.tensors, clusters)
        if isinstance(self.asks, Measure):
            if any(one.reads_model for one in asked):
                raise ValueError("a question about a model names one, and sites choose among several in this run")
        elif len(asked) != clusters:
            raise ValueError(f"sites choose among {clusters} models, and {len(asked)} are scored")
        return self

    @property
    def needs_all(self) -> bool:
        """Whether a site that may not release every statistic refuses: where the question says so, where numbers are added
        up, and where a site chooses by them.
        """
        return self.asks.needs_all or self.agreed.combine is not None or self.agreed.clusters > 1

    @model_validator(mode="after")
    def _check_tickets(self) -> Self:
        if not self.tickets:
            return self
        pace, sites = self.agreed.pace, [ticket.site for ticket in self.tickets]
        if pace is None or not self.asks.makes_model:
            raise ValueError("answers to earlier plans count in rounds that train, and where the terms have a pace")
        if len({*sites, *self.cohort}) < len(sites) + len(self.cohort):
            raise ValueError("a member has two tickets: it works on one plan at a time")
        if any(not 1 <= self.round - ticket.round <= pace.max_age for ticket in self.tickets):
            raise ValueError(f"a ticket is of this round, or older than the {how_many(pace.max_age, 'round')} of the pace")
        return self

    @model_validator(mode="after")
    def _check_partition(self) -> Self:
        about_all = isinstance(self.asks, Measure) or not self.asks.is_of_rows
        if not about_all and not of_one_kind(self.agreed.partitions, self.asks.partition):
            raise ValueError("a campaign is about one partition of the rows if, and only if, its terms say how rows are told "
                             "apart, and in that way")
        return self

    @model_validator(mode="after")
    def _check_mandates(self) -> Self:
        if self.asks.makes_model and (why_not := lapsed(self.agreed.regions, self.round)) is not None:
            raise ValueError(why_not)
        return self

    @property
    def by_region(self) -> bool:
        """Whether regional coordinators add up the answers' updates."""
        return self.asks.makes_model and self.agreed.regions != ()

    @property
    def planned_at(self) -> datetime | None:
        """When it was planned; None: that does not matter."""
        return None if self.at is None else datetime.fromtimestamp(self.at, UTC)

    @property
    def answering(self) -> tuple[Name, ...]:
        """Whose answers count, to this plan or to an earlier one; in order of names where there are tickets."""
        return tuple(sorted((*self.cohort, *(ticket.site for ticket in self.tickets)))) if self.tickets else self.cohort

    @property
    def sent(self) -> Schema:
        """The tensors of an update."""
        return self.agreed.sent(self.tensors)

    @property
    def continues(self) -> int:
        """The committed round whose model the question is about."""
        return self.round - 1 if self.asks.makes_model else self.round
