"""Does a round say what was agreed? Its plan, its cohort, its weights, its ledgers: held against the federation file and the
round before. For proofs: nothing is believed, everything that does not fit is a ChainError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedround.aggregation.verdict import Verdict
from fedround.agreement import Federation
from fedround.errors import ChainError
from fedround.federation_log import Logged
from fedround.learning.spec import Scaffold
from fedround.privacy.spec import RecordPrivacy
from fedround.types import Commit, RoundPlan, Update
from infra.history import Committed
from tasks.clipping import following
from tasks.ledgers import keys_of
from tasks.reputation import Past, exclusions, first_that_counts

_OF_THE_ROUND = {"quorum", "deadline_s", "privacy", "aggregation"}
"""What a plan may say otherwise than the file, as far as the file allows."""


@dataclass(frozen=True)
class Proven:
    """A round that holds, for the proof of the next one."""

    committed: Committed
    plan: RoundPlan | None = None
    answers: Mapping[str, Update] = field(default_factory=dict)


def check_agreed(plan: RoundPlan, members: Federation, before: Proven, source: str) -> None:
    """The plan asks for what the federation file says, with the quorum and the deadline that the round was asked for with."""
    for name in sorted((Federation.model_fields.keys() & RoundPlan.model_fields.keys()) - _OF_THE_ROUND):
        if getattr(plan, name) != getattr(members, name):
            raise ChainError(f"plan of {source}: asks for something else than the federation file: {name}")
    if plan.aggregation != members.model_copy(update={"quorum": plan.quorum}).how_to_aggregate():
        raise ChainError(f"plan of {source}: asks for something else than the federation file: aggregation")
    past = before.committed.commit.control if isinstance(plan.training.algorithm, Scaffold) else None
    if plan.control != past:
        raise ChainError(f"plan of {source}: continues another control variate than the round before left")
    if plan.rest != before.committed.commit.rest:
        raise ChainError(f"plan of {source}: has other parts that do not travel than the round before")
    _check_privacy(plan, members, before, source)


def _check_privacy(plan: RoundPlan, members: Federation, before: Proven, source: str) -> None:
    """With adaptive clipping the clip norm is the one that the last round's answers call for, computed again."""
    agreed, asked, last = members.privacy, plan.privacy, before.committed.commit
    used = [update.site for update in last.updates if update.verdict is Verdict.USED]
    if before.plan is not None and all(site in before.answers for site in used):
        agreed = following(agreed, before.plan.privacy, [before.answers[site] for site in used])
    elif before.plan is not None and isinstance(agreed, RecordPrivacy) and isinstance(asked, RecordPrivacy):
        agreed = agreed.model_copy(update={"clip_norm": asked.clip_norm})       # not all may be read: the coordinator vouches
    if asked != agreed:
        raise ChainError(f"plan of {source}: asks for other privacy than the federation file, and the answers of the round "
                         "before, say")


def check_ledgers(commit: Commit, before: Commit, members: Federation, log: Sequence[Logged], answers: Mapping[str, Update],
                  source: str) -> None:
    """Every ledger grows, and the commit says of it what the site said."""
    known = {ledger.site: ledger for ledger in before.ledgers}
    for ledger in commit.ledgers:
        earlier = known.pop(ledger.site, None)
        if ledger.site not in {update.site for update in commit.updates}:
            if ledger != earlier:
                raise ChainError(f"commit of {source}: changes the ledger of '{ledger.site}', which sent no update")
            continue
        answer = answers.get(ledger.site)
        if ledger.key != members.site(ledger.site).key or (
                answer is not None and (answer.charges, answer.ledger_head) != (ledger.charges, ledger.head)):
            raise ChainError(f"commit of {source}: says of the ledger of '{ledger.site}' what the site did not say")
        if (earlier is not None and earlier.key in keys_of(members.site(ledger.site), log)
                and ledger.charges <= earlier.charges):
            raise ChainError(f"commit of {source}: the ledger of '{ledger.site}' has not grown: it was rolled back")
    if known or {update.site for update in commit.updates} - {ledger.site for ledger in commit.ledgers}:
        raise ChainError(f"commit of {source}: leaves out the ledger of a site")


def check_everybody(commit: Commit, plan: RoundPlan, federation: Federation, source: str) -> None:
    """Nobody is left out, counted twice or given another weight than was agreed, the quorum was met, and what does not travel
    is what it was.
    """
    if commit.rest != plan.rest:
        raise ChainError(f"commit of {source}: has other parts that do not travel than its plan")
    named = [entry.site for entry in (*commit.updates, *commit.refusals, *commit.rejected)] + list(commit.missing)
    if sorted(named) != sorted(plan.cohort):
        raise ChainError(f"commit of {source}: does not name every site of the cohort once")
    used = sum(update.verdict is Verdict.USED for update in commit.updates)
    if used < plan.quorum:
        raise ChainError(f"commit of {source}: {used} updates, its plan asks for a quorum of {plan.quorum}")
    for update in commit.updates:
        if update.weight != federation.site(update.site).weight:
            raise ChainError(f"commit of {source}: gives '{update.site}' another weight than the federation file")


def check_cohort(plan: RoundPlan, federation: Federation, past: Sequence[Past], source: str) -> tuple[str, ...]:
    """Every member was asked, those excepted whom the agreed policy excludes; returns these."""
    asked_with = federation.model_copy(update={"quorum": plan.quorum})
    since = first_that_counts(federation, plan.round)
    due = exclusions(asked_with, plan.round, [round_ for round_ in past if round_.plan.round >= since])
    if plan.excluded != due:
        raise ChainError(f"plan of {source}: excludes others than the agreed policy does")
    excluded = {exclusion.site for exclusion in due}
    if set(plan.cohort) != {site.name for site in federation.sites} - excluded:
        raise ChainError(f"plan of {source}: does not ask every member that the agreed policy leaves in")
    return tuple(sorted(excluded))
