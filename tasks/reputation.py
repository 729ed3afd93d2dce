"""Who is not asked for a while: members that were left out of the aggregate too often, by the agreed policy.

Everything follows from signed plans and commits. So whoever can read these can compute it again; `verify` does. Only updates
with the site's own signature count: nobody else can give a site a bad reputation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedround.aggregation.verdict import Verdict
from fedround.errors import ContractError
from fedround.federation import Federation
from fedround.learning.spec import LocalTraining
from fedround.records import Commit, Exclusion, Plan
from infra.history import Committed, read_commit, read_plan
from tasks.coordinator import Coordinator


@dataclass(frozen=True)
class Past:
    """One committed round of training."""

    plan: Plan
    commit: Commit


def past_rounds(coordinator: Coordinator, head: Committed) -> list[Past]:
    """The rounds, up to `head`, that can still count for whom the federation asks next."""
    key, rounds = coordinator.key, []
    for number in range(first_that_counts(coordinator.federation, head.commit.round + 1), head.commit.round + 1):
        commit = head.commit if number == head.commit.round else read_commit(
            coordinator.store, head.commit.run, number, key).commit
        rounds.append(Past(read_plan(coordinator.store, commit, key), commit))
    return rounds


def first_that_counts(federation: Federation, number: int) -> int:
    """The oldest round that matters for round `number`: to the reputation policy, to a selection, or to a rule of
    training.
    """
    rule = federation.training.rule if isinstance(federation.training, LocalTraining) else None
    looks_back = max((one.looks_back for one in (federation.selection, rule) if one is not None), default=0)
    return min(_first_judged(federation, number), max(1, number - looks_back))


def _first_judged(federation: Federation, number: int) -> int:
    """The oldest round that the reputation policy looks at."""
    policy = federation.reputation
    return number if policy is None else max(1, number - policy.window)


def exclusions(federation: Federation, number: int, past: Sequence[Past]) -> tuple[Exclusion, ...]:
    """The members that are not asked in round `number`, in the order of the federation file.

    past: the rounds from `first_that_counts` to `number` - 1, in order.
    Raises ContractError if the members that are left could not meet the quorum.
    """
    judged = [one for one in past if one.plan.round >= _first_judged(federation, number)]
    found = [exclusion for site in federation.sites
             if (exclusion := _exclusion(federation, site.name, number, judged)) is not None]
    left = len(federation.sites) - len(found)
    if found and left < federation.quorum:
        names = ", ".join(f"'{exclusion.site}' ({exclusion.reason})" for exclusion in found)
        raise ContractError(f"round {number}: with {names} excluded, {left} sites are left and the quorum is "
                            f"{federation.quorum}: lower the quorum, or take [reputation] out of the federation file")
    return tuple(found)


def _exclusion(federation: Federation, site: str, number: int, past: Sequence[Past]) -> Exclusion | None:
    policy = federation.reputation
    if policy is None:
        return None
    earlier = [exclusion for round_ in past for exclusion in round_.plan.excluded if exclusion.site == site]
    if earlier and earlier[-1].until > number:
        return earlier[-1]
    anew = max((exclusion.until for exclusion in earlier), default=1)        # what was before is served
    counted = [verdict for round_ in past if round_.commit.round >= anew
               if (verdict := _verdict(round_.commit, site)) not in (None, Verdict.USED)]
    if len(counted) < policy.exclude_after:
        return None
    kinds = ", ".join(f"{counted.count(kind)} × {kind}" for kind in Verdict if kind in counted)
    return Exclusion(site=site, until=number + policy.exclude_for,
                     reason=f"left out of {len(counted)} of the last {policy.window} rounds: {kinds}")


def _verdict(commit: Commit, site: str) -> Verdict | None:
    return next((update.verdict for update in commit.updates if update.site == site), None)
