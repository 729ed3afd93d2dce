"""Before a run's next secure sum: the questions that set up keys, where none stand (`tasks.epochs`)."""

from __future__ import annotations

from fedround import layout
from fedround.errors import QuorumError
from fedround.records import DealShares, OfferKeys, Question
from fedround.secure_sums.spec import FEWEST_MEMBERS
from infra.history import read_finding
from infra.stores import publish
from tasks.begin import head_of
from tasks.choice import choice_asked
from tasks.collected import Collected
from tasks.coordinator import Coordinator
from tasks.epochs import standing
from tasks.plan import Planned, compose, publish_plan
from tasks.requests import NextRoundRequest, RoundRequest

SLOTS = 32
"""Sums in one epoch. A member that was away takes part from the next epoch on, or from the next round if it says so."""

MOST_IN_A_ROW = 3
"""Epochs that are begun before one round: whoever offers keys and deals no shares costs one."""


def next_question(coordinator: Coordinator, request: RoundRequest) -> Planned | None:
    """What must be asked before the run's next sum: for keys, or for shares of their secrets. None: keys stand, or nothing is
    added up in this federation.
    """
    if coordinator.federation.combine is None:
        return None
    if isinstance(request, NextRoundRequest):
        head = head_of(coordinator, request.run, after=request.after, choice=choice_asked(coordinator, request))
    else:
        head = head_of(coordinator, request.run, after=None, choice=None)
    stands = standing(coordinator, request.run)
    if stands.dealt is not None:
        return None
    everybody = RoundRequest(run=request.run, deadline_s=request.deadline_s,
                             quorum=max(FEWEST_MEMBERS, request.quorum or coordinator.federation.quorum))
    if stands.offered is None:
        return publish_plan(coordinator, head, compose(coordinator, head, everybody, OfferKeys(
            epoch=stands.number + 1, slots=SLOTS)))
    offered = read_finding(coordinator.store, request.run, stands.offered.round, stands.offered.attempt, "keys",
                           coordinator.key)
    asks: Question = DealShares(offered=stands.offered, members=len(offered.answers), slots=SLOTS)
    plan = compose(coordinator, head, everybody, asks)
    those = tuple(told.site for told in offered.answers)
    return publish_plan(coordinator, head, plan.model_copy(update={"cohort": those}))


def check_in_a_row(run: str, begun: int) -> None:
    """Raises QuorumError if keys were set up in vain too often."""
    if begun > MOST_IN_A_ROW:
        raise QuorumError(f"run '{run}': keys for secure sums were set up {MOST_IN_A_ROW} times, and each time a member "
                          "offered keys and dealt no shares: the flow runs say who. Run it again when that member is mended, "
                          "or leave it out of the federation")


def hand_on(coordinator: Coordinator, planned: Planned, collected: Collected) -> None:
    """Let all members read what each of them said to a question about keys."""
    for _, admitted in sorted(collected.admitted.items()):
        publish(coordinator.store, layout.relayed(planned.plan.run, admitted.digest), admitted.document,
                sha256=admitted.digest)
        if admitted.file is not None and admitted.answer.material is not None:
            sha256 = admitted.answer.material.sha256
            publish(coordinator.store, layout.relayed(planned.plan.run, sha256), admitted.file, sha256=sha256)
