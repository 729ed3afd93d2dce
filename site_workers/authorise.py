"""May this plan be carried out here? Signature, membership, chain, history, policy: in that order, before any row is read.

What does not hold is raised (TrustError): somebody lies or something is broken, and the site sends nothing at all. What the
site's operator does not allow is returned as a signed refusal, which is an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedround import __version__, layout
from fedround.errors import ChainError, ContractError, TrustError
from fedround.federation import Federation
from fedround.records import Commit, Plan, Reason, Refusal
from fedround.rounds.clipping import privacy_after
from fedround.signing import Identity
from fedround.values import Digest, Purpose
from infra.history import read_checkpoint, read_plan_at
from site_workers import history, outbox, seen
from site_workers.keys import agreed_identity
from site_workers.policy import objection
from site_workers.site import Site
from validation import quotes

_COMPARE = "Nothing was done. Ask the coordinator, and compare 'fedround verify'"


@dataclass(frozen=True)
class Order:
    """A plan that the site has verified."""

    plan: Plan
    digest: str
    parent: Commit
    """What the plan continues."""
    identity: Identity
    """The key that the federation has agreed for this site: it may have been rotated since the process began."""
    federation: Federation
    """The federation file that holds for the plan."""

    def addressed(self, site: Site) -> dict[str, Any]:
        """The fields that are the same in every answer of the site to this plan."""
        plan = self.plan
        return {"federation": plan.federation, "run": plan.run, "round": plan.round, "attempt": plan.attempt,
                "site": site.name, "plan": self.digest, "asked": plan.asks.kind, "log": plan.log, "tool_version": __version__}


def authorise(site: Site, run: str, number: int, attempt: int, purpose: Purpose) -> Order:
    """Fetch the plan and verify that our coordinator signed it, for us, as the continuation of the run's history.

    Raises TrustError if anything does not hold, NotFoundError if there is no such plan.
    """
    source = f"{purpose} plan of round {number} of run '{run}'"
    plan, named = read_plan_at(site.store, run, number, attempt, purpose, site.settings.coordinator)
    remembered = seen.read(site.folder)
    try:
        federation, log = history.agreement(site, plan, remembered, source)
        _check_terms(plan, federation, source)
        identity = _check_membership(site, federation, plan, source)
        parent = history.parent(site, plan, named, log, remembered, source)
        _check_choice(site, plan, federation, parent, source)
    except TrustError:
        if not history.is_over(site, plan, named, remembered):
            raise
        raise ChainError(f"{source}: an old invitation was sent again, to a question that is over; the history is as this "
                         "site has seen it. Nothing was done. Ask the coordinator who may start flow runs") from None
    # Whoever holds the API key may send an old invitation again; answering it would spend budget for nothing.
    if plan.asks.makes_model and plan.agreed.pace is None and site.store.head(layout.commit(run, number)) is not None:
        raise ChainError(f"{source}: the round is committed already")
    if plan.agreed.pace is not None and plan.asks.makes_model:
        history.check_ticket(site, plan, named, source)
    _check_only_one(site, plan, named, source)
    now = remembered.after(plan.log, run, seen.SeenCommit(round=parent.round, digest=plan.parent))
    if now != remembered:
        seen.write(site.folder, now)
    return Order(plan, named, parent, identity, federation)


_AS_BEFORE = ("federation", "federation_digest", "log", "run", "parent", "base_model", "rest", "agreed")
"""What a plan about a sum has from the plan whose answers are added up."""


def authorise_sum(site: Site, order: Order, plan: Plan, named: Digest) -> Order:
    """The same for a plan about the sum of answers to `order`, which was verified when this flow run began. The history
    before it is that of `order`, or the plan is none: so nothing of it is read once more.

    plan, named: as `read_plan_at` gave them, which holds the signature against the coordinator's key. Raises TrustError if
    anything does not hold.
    """
    source = f"{plan.asks.kind} plan of round {plan.round} of run '{plan.run}'"
    if (other := next((name for name in _AS_BEFORE if getattr(plan, name) != getattr(order.plan, name)), None)) is not None:
        raise TrustError(f"{source}: says something else about '{other}' than the plan whose answers are added up")
    identity = _check_membership(site, order.federation, plan, source)
    _check_only_one(site, plan, named, source)
    return Order(plan, named, order.parent, identity, order.federation)


def _check_only_one(site: Site, plan: Plan, named: Digest, source: str) -> None:
    answered = outbox.plan_of(site.safe, plan)
    if answered is not None and answered != named:
        raise ChainError(f"{source}: this site has answered another plan for the same round; the coordinator has "
                         "issued two. Ask the coordinator, and compare 'fedround verify'")


def refusal_by_policy(site: Site, order: Order) -> Refusal | None:
    """What the operator's policy says to the plan now: nothing, or a refusal that names the line to talk about."""
    found = objection(site.policy, order.plan, site.recipe.digest, site.contract.digest, site.clock())
    if found is None and site.policy.enclave is not None:
        found = _outside(site, site.policy.enclave)
    return None if found is None else refuse(site, order, *found)


def _outside(site: Site, asked: quotes.Enclave) -> tuple[Reason, str] | None:
    """Why the coordinator's key is not known to be in the enclave that the policy asks for."""
    try:
        quote, collateral = ((site.folder / name).read_bytes() for name in (asked.quote, asked.collateral))
        quotes.check(asked, quote, collateral, quotes.report_data_of(site.settings.coordinator), site.clock())
    except OSError as error:
        return Reason.POLICY, f"no quote of the coordinator's enclave can be read here ({error.strerror})"
    except TrustError as error:
        return Reason.POLICY, str(error)[:300]
    return None


def refuse(site: Site, order: Order, reason: Reason, detail: str, checks: tuple[str, ...] = ()) -> Refusal:
    """The site's "no" to this plan."""
    return Refusal(**order.addressed(site), reason=reason, detail=detail, checks=checks)


def _check_terms(plan: Plan, federation: Federation, source: str) -> None:
    """Whether the plan adds up as the federation file says, and by whom; and up to which age it counts answers.

    From the first follows what a sum hides and how much noise is in it, and who besides the coordinator reads this site's
    answers; from the second how long two histories can go on. Nothing else here holds them against the number of members.
    """
    if plan.agreed.pace != federation.pace:
        raise TrustError(f"{source}: counts answers up to another age than the federation file says. Nothing was done. Ask "
                         "the coordinator, and compare 'fedround verify'")
    if (plan.agreed.combine, plan.agreed.together, plan.agreed.regions) != (
            federation.combine, federation.together, federation.regions):
        raise TrustError(f"{source}: says something else than the federation file about how members' numbers are added up, "
                         "by whom, or about who they are. Nothing was done. Ask the coordinator, and compare 'fedround "
                         "verify'")


def _check_choice(site: Site, plan: Plan, federation: Federation, parent: Commit, source: str) -> None:
    """Whether the plan asks for the privacy and the rule that the federation file says first, or for those that were chosen
    for the run when it began, among those that the file offers. Of a committed round a majority was shown what the run has
    (`history.parent`).

    A rule that the file leaves to the quorum is not held against what this version would take.
    """
    made, before = plan.agreed.choice, parent.agreed
    if before is not None:
        begun = before.choice
    elif made is None and not federation.offers_terms:
        begun = None
    else:
        begun = read_checkpoint(site.store, parent, site.settings.coordinator).choice
    if made != begun:
        raise ChainError(f"{source}: says that something else was chosen for the run than when it began. {_COMPARE}")
    try:
        agreed = federation.chosen(made)
    except ContractError as error:
        raise TrustError(f"{source}: {error}. {_COMPARE}") from None
    asked, named = plan.agreed, agreed.aggregation
    if asked.privacy != privacy_after(agreed.privacy, parent) or (
            named is not None and asked.aggregation.rule != named.rule):
        raise TrustError(f"{source}: asks for other privacy or another rule than the federation file says, or than was "
                         f"chosen for the run. {_COMPARE}")


def _check_membership(site: Site, federation: Federation, plan: Plan, source: str) -> Identity:
    """Whether the plan is for us; returns the key that we sign with, as the federation has agreed."""
    if federation.name != plan.federation or federation.name != site.settings.federation:
        raise TrustError(f"{source}: is for federation '{plan.federation}'; this site belongs to "
                         f"'{site.settings.federation}'")
    if site.identity.key in federation.revoked:
        raise TrustError(f"{source}: the key of '{site.name}' was revoked; make a new one and have the coordinator enrol it")
    entry = next((member for member in federation.sites if member.name == site.name), None)
    if entry is None:
        raise TrustError(f"{source}: '{site.name}' is no member any more, says the federation log")
    identity = agreed_identity(site, entry.key)
    if identity is None:
        raise TrustError(f"{source}: the federation file has another key for '{site.name}' than keys/identity.pem; "
                         "send the coordinator the key that 'fedround site check' shows")
    if site.name not in plan.cohort:
        raise TrustError(f"{source}: does not invite '{site.name}'")
    if plan.asks.is_of_rows:
        try:
            federation.model_copy(update={"quorum": plan.quorum}).check_asked(
                plan.cohort, plan.unasked, plan.planned_at, trains=plan.asks.makes_model)
        except ContractError as error:
            raise TrustError(f"{source}: does not ask {', '.join(plan.unasked) or 'fewer'}: {error}") from None
    return identity
