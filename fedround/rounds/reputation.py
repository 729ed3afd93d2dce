"""Who is not asked for a while: members that were left out of the aggregate too often, by the agreed policy."""

from __future__ import annotations

from collections.abc import Sequence

from fedround.aggregation.verdict import Verdict
from fedround.agreement import Agreement
from fedround.errors import ContractError
from fedround.records import Exclusion
from fedround.rounds.earlier import Earlier
from fedround.spoken import how_many
from fedround.standing import Reputation


def first_judged(policy: Reputation | None, number: int) -> int:
    """The oldest round that matters for whom round `number` asks."""
    return number if policy is None else max(1, number - policy.window)


def exclusions(agreed: Agreement, members: Sequence[str], number: int, past: Sequence[Earlier]) -> tuple[Exclusion, ...]:
    """The members that are not asked in round `number`, in their order.

    past: the rounds up to `number` - 1, in order, from `first_judged` on at least; what was before does not count.
    Raises ContractError if the members that are left could not meet the quorum.
    """
    policy = agreed.reputation
    if policy is None:
        return ()
    judged = [one for one in past if one.number >= first_judged(policy, number)]
    found = [exclusion for site in members if (exclusion := _exclusion(policy, site, number, judged)) is not None]
    left = len(members) - len(found)
    if found and left < agreed.quorum:
        names = ", ".join(f"'{exclusion.site}' ({exclusion.reason})" for exclusion in found)
        raise ContractError(f"round {number}: with {names} excluded, {how_many(left, 'site', 'is', 'are')} left and the "
                            f"quorum is {agreed.quorum}: lower the quorum, or take [reputation] out of the federation file")
    return tuple(found)


def _exclusion(policy: Reputation, site: str, number: int, past: Sequence[Earlier]) -> Exclusion | None:
    earlier = [exclusion for one in past for exclusion in one.excluded if exclusion.site == site]
    if earlier and earlier[-1].until > number:
        return earlier[-1]
    anew = max((exclusion.until for exclusion in earlier), default=1)        # what was before is served
    counted = [verdict for one in past if one.number >= anew
               if (verdict := one.verdicts.get(site)) not in (None, Verdict.USED)]
    if len(counted) < policy.exclude_after:
        return None
    kinds = ", ".join(f"{counted.count(kind)} × {kind}" for kind in Verdict if kind in counted)
    return Exclusion(site=site, until=number + policy.exclude_for,
                     reason=f"left out of {len(counted)} of the last {policy.window} rounds: {kinds}")
