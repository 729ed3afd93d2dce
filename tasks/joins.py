"""An exchange between two members, step by step: which question comes next.

Every step is a signed plan and a finding, as every question is. What the two send each other is encrypted; the coordinator
hands it on and learns how long it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fedround.errors import ContractError
from fedround.records import Join, Placed
from fedround.signing import digest
from fedround.values import Digest, Name
from fedround.vertical.spec import SCORING, TRAINING, LabelEpsilon, Levels, Step
from tasks.begin import head_of
from tasks.coordinator import Coordinator
from tasks.epochs import newest_first
from tasks.plan import Planned, compose, publish_plan
from tasks.requests import RoundRequest


class JoinRequest(BaseModel):
    """Let two members learn together from columns of the same customers. No row moves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Annotated[Name, Field(
        title="Run", description="The campaign beside which the steps are kept; a new name begins a new one.",
        examples=["spring"])]
    labels: Annotated[Name, Field(title="Labels", description="The site that has the labels.", examples=["bank"])]
    features: Annotated[Name, Field(
        title="Features", description="The site that has other columns of the same customers.", examples=["shop"])]
    purpose: Annotated[Name, Field(
        title="Purpose", description="What it is for, as both sites' policies name it.", examples=["credit-risk"])]
    label_epsilon: Annotated[LabelEpsilon, Field(
        default=2.0, title="Epsilon of a label",
        description="Labels are told by a coin; this is what each pays, in its site's ledger. From 0.01 to 20; 2 "
                    "if nothing is said.")] = 2.0
    levels: Annotated[Levels, Field(
        default=64, title="Levels of a score",
        description="How many values a score may have: fewer tell less. From 2 to 256; 64 if nothing is said. Scores of "
                    "other customers have as many as those that were learnt with.")] = 64
    score: Annotated[bool, Field(
        default=False, title="Score", description="Nothing is learnt: the site with the labels wants scores of the customers "
                                                  "that it named ('fedround predict --with').")] = False
    anew: Annotated[bool, Field(
        default=False, title="Anew", description="Begin another exchange, though one was made. Sites refuse it unless their "
                                                 "policies grant several.")] = False
    deadline_s: Annotated[int | None, Field(
        default=None, ge=1, le=604_800, title="Deadline (seconds)",
        description="How long a site has for one step. Empty: as the federation file says.")] = None


@dataclass(frozen=True)
class ExchangeSoFar:
    """One exchange, as far as it has come."""

    last: Join
    """What was asked last."""
    link: Digest
    """The plan of its first step."""
    findings: tuple[Placed, ...]
    holds: bool
    """Whether the federation file is the same."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing more is to be asked."""
        return len(self.findings) == len(_steps(self.last))


def next_step(coordinator: Coordinator, request: JoinRequest) -> Planned | None:
    """The next step's plan, published; None: the exchange is whole. Asked for again, the same exchange goes on.

    Raises ContractError if the two are no members, or if scores are wanted and nothing was learnt.
    """
    check_two_members(coordinator, request)
    head, asks = head_of(coordinator, request.run), _asked(coordinator, request)
    if asks is None:
        return None
    everybody = RoundRequest(run=request.run, deadline_s=request.deadline_s)
    plan = compose(coordinator, head, everybody, asks)
    if missing := {*asks.senders} - {*plan.cohort}:
        raise ContractError(f"an exchange between '{asks.labels}' and '{asks.features}': '{missing.pop()}' is excluded by "
                            "the reputation policy")
    return publish_plan(coordinator, head, plan.model_copy(update={
        "cohort": tuple(name for name in plan.cohort if name in asks.senders), "quorum": len(asks.senders),
        "unasked": ()}))


def check_two_members(coordinator: Coordinator, request: JoinRequest) -> None:
    """Raises ContractError unless the request names two members of the federation."""
    for name in (request.labels, request.features):
        coordinator.federation.site(name)
    if request.labels == request.features:
        raise ContractError(f"an exchange is between two members, and '{request.labels}' is named twice")


def begun_anew(request: JoinRequest) -> JoinRequest:
    """The same request once its first step was asked for: what follows belongs to that exchange."""
    return request.model_copy(update={"anew": False})


def _asked(coordinator: Coordinator, request: JoinRequest) -> Join | None:
    chains = list(_chains(coordinator, request))
    learnt = next((one for one in chains if one.last.learnt is None and one.is_whole), None) if request.score else None
    if request.score and learnt is None:
        raise ContractError(f"'{request.labels}' and '{request.features}' have learnt nothing for '{request.purpose}' in run "
                            f"'{request.run}' yet: begin with 'fedround join'")
    said: dict[str, Any] = {
        "labels": request.labels, "features": request.features, "purpose": request.purpose,
        "levels": request.levels if learnt is None else learnt.last.levels,        # one scale for all customers
        "epsilon": request.label_epsilon if learnt is None else None, "learnt": None if learnt is None else learnt.link}
    number = max((one.last.number for one in chains), default=0)
    goes_on = next((one for one in chains if one.holds and one.last.number == number and all(
        getattr(one.last, name) == value for name, value in said.items())), None)
    if goes_on is None or request.anew:
        return Join(step="channel", number=number + 1, **said)
    if goes_on.is_whole:
        return None
    return Join(step=_steps(goes_on.last)[len(goes_on.findings)], number=number, before=goes_on.findings, **said)


def _chains(coordinator: Coordinator, request: JoinRequest) -> Iterator[ExchangeSoFar]:
    """The exchanges of these two for this purpose, the newest first."""
    seen = set[int]()
    for found in newest_first(coordinator, request.run, "join"):
        asks = found.plan.asks
        if isinstance(asks, Join) and asks.number not in seen and (
                asks.labels, asks.features, asks.purpose) == (request.labels, request.features, request.purpose):
            seen.add(asks.number)
            link = found.finding.plan
            if asks.before:
                first = next(one for one in newest_first(coordinator, request.run, "join") if one.placed == asks.before[0])
                link = first.finding.plan
            yield ExchangeSoFar(asks, link, (*asks.before, found.placed),
                                found.plan.federation_digest == digest(coordinator.federation_document))


def _steps(asks: Join) -> tuple[Step, ...]:
    return TRAINING if asks.learnt is None else SCORING
