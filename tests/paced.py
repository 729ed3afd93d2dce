"""Five members of whom two are enough for a round: who is slower works on, and answers later."""

from __future__ import annotations

from pathlib import Path

from fedround import layout
from tasks.plan import Planned
from tests import small_federation
from tests.small_federation import SmallFederation

NAMES = ("ash", "birch", "cedar", "elm", "fir")
RUN = "spring"


def make(root: Path, max_age: int) -> SmallFederation:
    """A buffer of two, answers up to this age, and one round: 'elm' and 'fir' still work on its plan."""
    federation = small_federation.make(root, names=NAMES, quorum=2, enough=2, max_epsilon=80.0, pace={"max_age": max_age})
    turn(federation, "ash", "birch", "cedar")
    return federation


def turn(world: SmallFederation, *names: str) -> Planned:
    """One round, in which each of these answers what it works on."""
    planned = world.plan(RUN)
    for name in names:
        world.answer(name, planned.of(name))
    world.commit(planned)
    return planned


def said(world: SmallFederation, name: str, planned: Planned) -> Path:
    """Where a member's answer to the plan lies."""
    plan = planned.plan
    return world.root / "store" / layout.answer(name, plan.run, plan.round, plan.attempt, plan.asks.kind)
