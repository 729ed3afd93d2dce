"""Questions that make no model: how good the run's last model is at the sites, and what is counted in the sites' rows.

A question is a signed plan, as a round is. Its result is a finding: signed by the coordinator, written once beside its plan,
and read again whenever the same is asked. So sites are asked, and charged, once.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fedround import __version__, layout
from fedround.errors import ContractError, NotFoundError
from fedround.records import Evaluate, Finding, Measure, Question, Told
from fedround.rounds.campaign import counts_leave
from fedround.signing import seal
from fedround.statistics import Release, Statistic, total
from fedround.statistics.partitions import Partition
from fedround.values import Name
from infra.documents import NOT_OURS
from infra.history import Committed, findings, read_finding, read_plan_at
from infra.stores import put_first
from tasks.begin import head_of
from tasks.collected import Collected
from tasks.coordinator import Coordinator
from tasks.evaluate import score_statistic
from tasks.partition import partition_of
from tasks.plan import Planned, asked_with, bare, compose, publish_plan, whom_to_ask
from tasks.quorum import check_quorum
from tasks.requests import RoundRequest
from tasks.setting_up import hand_on


def _for_forms(schema: dict[str, Any]) -> None:
    """Prefect's form draws "any of" these, and knows no "one of"."""
    schema.pop("discriminator", None)
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")


class MeasurementRequest(RoundRequest):
    """Ask the federation to count something in the sites' rows. Nothing is trained."""

    run: Annotated[Name, Field(
        title="Run", examples=["spring"],
        description="The campaign beside which the result is kept, and whose last model is scored where scores are counted; "
                    "a new name begins a new one.")]
    statistics: Annotated[tuple[Annotated[Statistic, Field(json_schema_extra=_for_forms)], ...], Field(
        min_length=1, max_length=64, title="Statistics",
        description="What every site counts. A histogram names a column and the edges between its cells; group counts name "
                    "columns and the values that make groups. Each has its own noise, and is charged by itself.")]
    partition: Annotated[Partition | None, Field(
        default=None, title="Partition",
        description="Which rows are counted, and pay: those of one week, say, told apart by a column. Empty: all.")] = None
    asker: Annotated[Name | None, Field(
        default=None, title="Who asks", description="Told to the sites, whose policy may name who may ask. Whoever asks the "
                                                    "same again reads the same answer.")] = None


def plan_question(coordinator: Coordinator, request: RoundRequest) -> Planned:
    """The plan that asks every site about the run's last model, or its rows: to measure if the request names statistics, to
    evaluate if it does not. The same question has the same plan.

    Raises ContractError if there is no model to evaluate, or if no counts leave sites under the federation's unit of privacy.
    """
    _check_leaves(coordinator)
    head = head_of(coordinator, request.run)
    if (settled := _settled(coordinator, head, request)) is not None:
        return settled
    return publish_plan(coordinator, head, compose(coordinator, head, request, _asks(coordinator, head, request)))


def known(coordinator: Coordinator, request: RoundRequest) -> Finding | None:
    """The result of the same question, asked before; None: there is none yet. Nobody is asked, and nothing is written.

    Raises as `plan_question`.
    """
    _check_leaves(coordinator)
    if (head := coordinator.head(request.run)) is None:
        asked_with(coordinator.federation, request)
        return None
    settled = _settled(coordinator, head, request)
    return None if settled is None else find(coordinator, settled)


def _check_leaves(coordinator: Coordinator) -> None:
    if not counts_leave(coordinator.federation.privacy):
        raise ContractError("under the unit 'site' no counts leave the sites: noise that hides all that a site contributes "
                            "would leave nothing to read. Evaluate on the coordinator's public test set")


def _asks(coordinator: Coordinator, head: Committed, request: RoundRequest) -> Question:
    if isinstance(request, MeasurementRequest):
        return Measure(statistics=request.statistics, partition=request.partition, asker=request.asker)
    if head.commit.round == 0:
        raise ContractError(f"run '{request.run}' has no committed round to evaluate; train one first")
    scores = score_statistic(coordinator, head.commit)
    return Evaluate(statistics=(scores,) * coordinator.federation.evaluation.clusters,
                    partition=partition_of(coordinator, head.commit))


def _settled(coordinator: Coordinator, head: Committed, request: RoundRequest) -> Planned | None:
    """The same question, asked before, if its finding is good enough: then nobody is asked, or charged, again.

    A finding depends on the question, the round and who was asked. It does not depend on the deadline, which may differ.
    """
    federation, question = asked_with(coordinator.federation, request), _asks(coordinator, head, request)
    asks, cohort = bare(question), whom_to_ask(coordinator, federation, head, question, request.sites).asked
    for number, attempt in findings(coordinator.store, request.run, asks.kind):
        if number != head.commit.round:
            continue
        try:
            plan, named = read_plan_at(coordinator.store, request.run, number, attempt, asks.kind, coordinator.key)
            found = Planned(plan, named, head)
            told = find(coordinator, found)
        except NOT_OURS:
            continue                    # somebody else's object: if it was ours, the plan that stands says so
        if ((bare(plan.asks), plan.parent, plan.cohort) == (asks, head.digest, cohort)
                and told is not None and len(told.answers) >= federation.quorum):
            return found
    return None


# -- what came of it ---------------------------------------------------------------------------------------------------


def conclude(coordinator: Coordinator, planned: Planned, collected: Collected) -> Finding:
    """Add up what the sites released, sign it and write it once; of two coordinators that try, both then read the same.

    Raises QuorumError, and nothing is published, if too few sites answered.
    """
    check_quorum(planned, collected)
    plan, summed = planned.plan, collected.sum
    if not plan.asks.is_of_rows:
        hand_on(coordinator, planned, collected)
    releases = [answer.releases for answer in collected.answers.values()]
    finding = Finding(
        federation=plan.federation, run=plan.run, round=plan.round, attempt=plan.attempt, plan=planned.digest,
        answers=tuple(Told(site=site, answer=admitted.digest) for site, admitted in sorted(collected.admitted.items())),
        refusals=tuple(refused.committed for _, refused in sorted(collected.refused.items())),
        rejected=tuple(rejection for _, rejection in sorted(collected.rejected.items())),
        missing=collected.missing, totals=totals_of(releases) if summed is None else summed.read.totals,
        sum=None if summed is None else summed.said, tool_version=__version__)
    where = plan.run, plan.round, plan.attempt, plan.asks.kind
    put_first(coordinator.store, layout.finding(*where), seal(finding, coordinator.identity))
    return read_finding(coordinator.store, *where, coordinator.key)


def totals_of(answers: list[tuple[Release, ...]]) -> tuple[Release, ...]:
    """What all sites say together, statistic by statistic; each answer releases all of them."""
    return tuple(total(of_one) for of_one in zip(*answers, strict=True))


def find(coordinator: Coordinator, planned: Planned) -> Finding | None:
    """The result of a question; None: there is none yet."""
    plan = planned.plan
    try:
        return read_finding(coordinator.store, plan.run, plan.round, plan.attempt, plan.asks.kind, coordinator.key)
    except NotFoundError:
        return None
