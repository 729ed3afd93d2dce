"""Sightings: members' signatures of the history that they were shown, and what these prove.

Every update carries a sighting: the site's signature of the plan that it answers (site, run, round, plan, head of the log).
Sites cannot read each other's answers, so the commit hands the sightings of its updates on to everybody, and at the next
round every site checks them (`check`). A plan names the commit that it continues. So a sighting of a plan is a sighting of
the whole history before it.

The argument. An honest site continues one commit of a round, and remembers which. Suppose a coordinator, alone or together
with the store, shows two groups two histories that part at the commits C and C' of round k. To continue each history, the
coordinator needs a commit of round k + 1 with the sightings of a majority of the members. Two majorities share a member.
That member would have sighted a plan that continues C and one that continues C', which an honest member never does. So at
most one history has a commit of round k + 1. The members that were shown the other history refuse round k + 2; if neither
group is a majority, all refuse. If q sightings of n members are required, two histories need 2q - n lying members
(`liars_needed`).

With a pace (`Federation.pace`) a commit holds answers to earlier plans, too, and fewer of them than a majority. Then a
majority is looked for in a window of W commits, among sightings of plans of that window (`Pace.window`). The same argument
holds for W rounds instead of one: a fork stops W rounds after it. Without a pace, W is 1. `docs/adr/0058-*.md` has the proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from fedround.errors import ChainError, ContractError, SignatureError
from fedround.federation import Federation
from fedround.records import Commit, CommittedUpdate, LogHead, Plan
from fedround.signing import Identity, is_signed, sign
from fedround.values import Digest, Name, Round, Signature, Signed


class Sighting(Signed):
    """A site was shown this plan, and answers it."""

    kind: ClassVar[str] = "sighting"

    federation: Name
    run: Name
    round: Round
    site: Name
    plan: Digest
    log: LogHead


def sign_sighting(plan: Plan, plan_digest: Digest, site: str, identity: Identity) -> Signature:
    """The site's word that it was shown this plan."""
    return sign(Sighting(federation=plan.federation, run=plan.run, round=plan.round, site=site, plan=plan_digest,
                                     log=plan.log), identity)


def is_sighting(plan: Plan, plan_digest: Digest, site: str, key: str, signature: Signature) -> bool:
    """Whether the site with this key signed that it was shown this plan."""
    return is_signed(Sighting(federation=plan.federation, run=plan.run, round=plan.round, site=site,
                                          plan=plan_digest, log=plan.log), key, signature)


def needed(federation: Federation) -> int:
    """How many members must have sighted plans of a window: a majority; one, if nothing says that a majority ever answers:
    without a pace, and with an agreed quorum that is no majority.
    """
    majority = len(federation.sites) // 2 + 1
    return majority if federation.pace is not None or federation.quorum >= majority else 1


def window(federation: Federation) -> int:
    """How many rounds back a majority is looked for: in the newest commit alone, unless there is a pace."""
    return 1 if federation.pace is None else federation.pace.window


def liars_needed(federation: Federation) -> int:
    """How many members must lie so that two histories can both continue; 0: a coordinator can do it alone."""
    return max(0, 2 * needed(federation) - len(federation.sites))


def check(commit: Commit, members: Federation, source: str, plans: Mapping[int, Digest] | None = None) -> int:
    """Whether the plan that each update of the commit answers was sighted by its site; returns how many were.

    members: the federation file that the commit names. plans: what the commits before it, on its chain, name as their plans,
    by round, as far back as the pace goes. An update to a plan of an older round, which none of them names, is not looked at.
    Raises SignatureError for a sighting that is none, ChainError for an update that is older than the pace allows.
    """
    known = {**(plans or {}), commit.round: commit.plan or ""}
    for update in commit.updates:
        try:
            key = members.site(update.site).key
        except ContractError:
            raise ChainError(f"{source}: holds an update of '{update.site}', which was no member") from None
        answered = answers_to(commit, update)
        if answered != commit.round and (members.pace is None or not 1 <= commit.round - answered <= members.pace.max_age):
            raise ChainError(f"{source}: holds an update of '{update.site}' to the plan of round {answered}, which is older "
                             "than all have agreed on, or younger than the commit")
        if answered not in known:
            continue
        sighting = Sighting(federation=commit.federation, run=commit.run, round=answered, site=update.site,
                            plan=known[answered], log=commit.log)
        if not is_signed(sighting, key, update.sighting):
            raise SignatureError(f"{source}: '{update.site}' did not sign that it was shown the plan that the commit names; "
                                 "it may have been shown another. Compare 'fedround verify' with that member")
    return len(commit.updates)


def answers_to(commit: Commit, update: CommittedUpdate) -> int:
    """The round whose plan an update answers."""
    return commit.round if update.ticket is None else update.ticket


def sighted(commits: Sequence[Commit], members: Federation, before: int) -> set[str]:
    """The members that have sighted plans of the window, as far as these commits say: those which a plan of round `before`
    rests on.
    """
    first, names = before - window(members), {site.name for site in members.sites}
    return {update.site for commit in commits for update in commit.updates
            if update.site in names and answers_to(commit, update) >= first}


def check_majority(commits: Sequence[Commit], members: Federation, source: str) -> None:
    """Whether enough members were shown what leads to the last of these commits.

    commits: the newest ones of a run's chain, in order, whose sightings hold: as many as the window has, or all.
    members: the federation file that the last one names.
    Raises ChainError for too few, and for an answer that counts twice.
    """
    counted = [(update.site, answers_to(commit, update)) for commit in commits for update in commit.updates]
    if len(set(counted)) < len(counted):
        site, answered = next(one for one in counted if counted.count(one) > 1)
        raise ChainError(f"{source}: the answer of '{site}' to the plan of round {answered} was counted twice. "
                         "Compare 'fedround verify' with other members")
    last = commits[-1].round
    if members.pace is not None and last < window(members):
        return
    found = len(sighted(commits, members, last + 1))
    if found < needed(members):
        what = "its plan" if members.pace is None else f"plans of rounds {last + 1 - window(members)} to {last}"
        raise ChainError(f"{source}: {found} of {len(members.sites)} members sighted {what}, {needed(members)} must: "
                         "others may have been shown another history. Compare 'fedround verify' with other members")
