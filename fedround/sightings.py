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
"""

from __future__ import annotations

from typing import ClassVar

from fedround.agreement import Federation
from fedround.errors import ChainError, ContractError, SignatureError
from fedround.records import Commit, LogHead, Plan
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
    """How many members must have sighted a round's plan: a majority; one, if the agreed quorum is not a majority."""
    majority = len(federation.sites) // 2 + 1
    return majority if federation.quorum >= majority else 1


def liars_needed(federation: Federation) -> int:
    """How many members must lie so that two histories can both continue; 0: a coordinator can do it alone."""
    return max(0, 2 * needed(federation) - len(federation.sites))


def check(commit: Commit, members: Federation, source: str) -> int:
    """Whether the commit's plan was sighted by all whose updates it holds, and by enough members; returns by how many.

    members: the federation file that the commit names.
    Raises SignatureError for a sighting that is none, ChainError for too few.
    """
    for update in commit.updates:
        try:
            key = members.site(update.site).key
        except ContractError:
            raise ChainError(f"{source}: holds an update of '{update.site}', which was no member") from None
        sighting = Sighting(federation=commit.federation, run=commit.run, round=commit.round, site=update.site,
                            plan=commit.plan or "", log=commit.log)
        if not is_signed(sighting, key, update.sighting):
            raise SignatureError(f"{source}: '{update.site}' did not sign that it was shown the plan that the commit names; "
                                 "it may have been shown another. Compare 'fedround verify' with that member")
    sighted = len({update.site for update in commit.updates})
    if sighted < needed(members):
        raise ChainError(f"{source}: {sighted} of {len(members.sites)} members sighted its plan, {needed(members)} must: "
                         "others may have been shown another history. Compare 'fedround verify' with other members")
    return sighted
