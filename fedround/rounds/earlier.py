"""What a committed round says to the rounds after it. Live it is read from its signed plan and commit (`tasks.past`);
simulated it is remembered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fedround.aggregation.verdict import Verdict
from fedround.learning.spec import Training
from fedround.records import Exclusion
from fedround.rounds.decay import TrainedRound, decayed
from fedround.selection import MemberRecord


@dataclass(frozen=True)
class Earlier:
    """One committed round of training."""

    number: int
    asked: Collection[str]
    """The members whom its plan asked."""
    verdicts: Mapping[str, Verdict]
    """What became of each update that was admitted."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """The base model's mean loss at each member of which it is known."""
    excluded: tuple[Exclusion, ...] = ()
    trained: TrainedRound | None = None
    """How, and what it told of its base model; None: it does not say."""


def standings(past: Sequence[Earlier], members: Iterable[str]) -> dict[str, MemberRecord]:
    """What these rounds, in their order, say of each of the members."""
    found = dict.fromkeys(members, MemberRecord())
    for one in past:
        for name, standing in found.items():
            if name not in one.asked:
                found[name] = replace(standing, rested=standing.rested + 1)
                continue
            used = one.verdicts.get(name) is Verdict.USED
            found[name] = MemberRecord(asked=standing.asked + 1, used=standing.used + used,
                                       loss=one.losses.get(name, standing.loss))
    return found


def training_after(agreed: Training, number: int, past: Sequence[Earlier]) -> Training:
    """The training of round `number`, after these rounds, in their order: as many as its rule looks back."""
    return decayed(agreed, number, [one.trained for one in past if one.trained is not None])
