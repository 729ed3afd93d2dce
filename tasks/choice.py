"""With which privacy target and rule a run trains, if the federation file lets them be chosen: chosen when it begins, and
never again.

The run's checkpoints name the choice, each plan names it, and sites and `verify` compare them.
"""

from __future__ import annotations

from fedround.choices import Choice
from fedround.errors import ContractError
from infra.history import Committed, read_checkpoint
from tasks.coordinator import Coordinator
from tasks.requests import NextRoundRequest


def choice_of_run(coordinator: Coordinator, run: str) -> Choice | None:
    """What a run has, by its last checkpoint; None: what the federation file says first, or the run is new."""
    head = coordinator.head(run)
    return None if head is None else _choice(coordinator, head)


def choice_asked(coordinator: Coordinator, request: NextRoundRequest) -> Choice | None:
    """What the run has, or will.

    Raises ContractError if the request names something else than the run has, or what may not be chosen.
    """
    federation, run = coordinator.federation, request.run
    wanted = federation.offer.choice(request.epsilon, request.rule)
    if (head := coordinator.head(run)) is None:
        return wanted
    begun = _choice(coordinator, head)
    if (request.epsilon, request.rule) == (None, None):
        return begun
    has, asked = federation.chosen(begun).offer, federation.chosen(wanted).offer
    same_target = request.epsilon is None or asked.epsilons == has.epsilons
    if not same_target or (request.rule is not None and asked.rules != has.rules):
        raise ContractError(f"run '{run}' trains with {has}, from its first round to its last: for {asked} begin a new run")
    return begun


def _choice(coordinator: Coordinator, head: Committed) -> Choice | None:
    return read_checkpoint(coordinator.store, head.commit, coordinator.key).choice
