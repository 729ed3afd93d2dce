"""The committed rounds that say whom the next one asks, and how it trains.

Everything follows from signed plans and commits. So whoever can read these can compute it again; `verify` does. Only updates
with the site's own signature count: nobody else can give a site a bad reputation.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedround.records import Commit, Plan
from fedround.rounds.asking import first_that_counts
from fedround.rounds.decay import TrainedRound
from fedround.rounds.earlier import Earlier
from fedround.rounds.ending import ToldOfModel
from infra.history import Committed, read_commit, read_plan
from tasks.coordinator import Coordinator


@dataclass(frozen=True)
class Past:
    """One committed round of training."""

    plan: Plan
    commit: Commit

    @property
    def said(self) -> Earlier:
        """What it says to the rounds after it."""
        commit, score = self.commit, self.commit.score
        told = None if score is None else ToldOfModel(score.value, score.margin)
        return Earlier(
            self.plan.round, frozenset(self.plan.cohort), {update.site: update.verdict for update in commit.updates},
            {update.site: update.loss for update in commit.updates if update.loss is not None}, self.plan.excluded,
            None if commit.agreed is None else TrainedRound(commit.agreed.training, told))


def said_before(coordinator: Coordinator, head: Committed) -> list[Earlier]:
    """What the rounds, up to `head`, that can still count for whom the federation asks next say."""
    key, rounds = coordinator.key, list[Earlier]()
    for number in range(first_that_counts(coordinator.federation, head.commit.round + 1), head.commit.round + 1):
        commit = head.commit if number == head.commit.round else read_commit(
            coordinator.store, head.commit.run, number, key).commit
        rounds.append(Past(read_plan(coordinator.store, commit, key), commit).said)
    return rounds
