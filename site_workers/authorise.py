"""May this plan be carried out here? Signature, membership, chain, history, policy: in that order, before any row is read.

What does not hold is raised (TrustError): somebody is lying or something is broken, and the site says nothing at all.
What the site's operator does not allow is returned: a signed refusal is an answer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from fedround import codec, layout
from fedround.errors import ChainError, NotFoundError, TrustError
from fedround.signing import MAX_DOCUMENT_BYTES, digest, unseal
from fedround.types import Commit, Federation, NoPrivacy, Purpose, Reason, RecordPrivacy, Refusal, RoundPlan
from infra.stores import ObjectStore
from site_workers import outbox
from site_workers.site import Site


@dataclass(frozen=True)
class Order:
    """A plan that the site has verified."""

    plan: RoundPlan
    digest: str


def authorise(site: Site, run: str, number: int, attempt: int, purpose: Purpose) -> Order:
    """Fetch the plan and verify that our coordinator signed it, for us, as the continuation of the run's history.

    Raises TrustError if anything does not hold, NotFoundError if there is no such plan.
    """
    source = f"{purpose} plan of round {number} of run '{run}'"
    document = site.store.get(layout.plan(run, number, attempt, purpose), max_bytes=MAX_DOCUMENT_BYTES)
    plan = unseal("plan", document, RoundPlan, site.settings.coordinator, source)
    if (plan.run, plan.round, plan.attempt, plan.purpose) != (run, number, attempt, purpose):
        raise TrustError(f"{source}: lies under this name but is for round {plan.round} of run '{plan.run}'")
    _check_membership(site, plan, source)
    _check_chain(site, plan, source)
    answered = outbox.plan_of(site.folder, plan)
    if answered is not None and answered != digest(document):
        raise ChainError(f"{source}: this site has answered another plan for the same round; the coordinator has "
                         "issued two. Ask the coordinator, and compare 'fedround verify'")
    return Order(plan, digest(document))


def refusal_by_policy(site: Site, order: Order) -> Refusal | None:
    """What the operator's policy says to the plan: nothing, or a refusal that names the line to talk about."""
    plan, policy = order.plan, site.policy
    if plan.recipe_digest not in policy.recipes or plan.recipe_digest != site.recipe.digest:
        problem = f"recipe {plan.recipe_digest[:16]} is not approved here"
    elif plan.contract_digest not in policy.contracts or plan.contract_digest != site.contract.digest:
        problem = f"contract {plan.contract_digest[:16]} is not approved here"
    elif isinstance(plan.privacy, NoPrivacy) and not policy.allow_no_privacy:
        problem = "training without differential privacy is not allowed here"
    elif isinstance(plan.privacy, RecordPrivacy) and plan.privacy.delta_dp > policy.delta_dp:
        problem = f"delta_dp {plan.privacy.delta_dp:g} is above the {policy.delta_dp:g} allowed here"
    elif plan.evaluation.noise_std == 0 and not policy.allow_no_privacy:
        problem = "evaluation counts without noise are not allowed here"
    else:
        return None
    return refuse(site, order, Reason.POLICY, problem)


def refuse(site: Site, order: Order, reason: Reason, detail: str, checks: tuple[str, ...] = ()) -> Refusal:
    """The site's "no" to this plan."""
    plan = order.plan
    return Refusal(federation=plan.federation, run=plan.run, round=plan.round, site=site.name, plan=order.digest,
                   reason=reason, detail=detail, checks=checks)


def base_model(site: Site, order: Order) -> bytes:
    """The model to start from, checked against the plan's digest. Raises TrustError if it is another."""
    plan = order.plan
    body = site.store.get(layout.model(plan.base_model), max_bytes=codec.size_bytes(plan.tensors))
    if digest(body) != plan.base_model:
        raise TrustError(f"base model of round {plan.round}: the stored bytes are not those that the plan names")
    return body


def _check_membership(site: Site, plan: RoundPlan, source: str) -> None:
    federation = _federation(site.store, plan.federation_digest, site.settings.coordinator)
    if federation.name != plan.federation or federation.name != site.settings.federation:
        raise TrustError(f"{source}: is for federation '{plan.federation}'; this site belongs to "
                         f"'{site.settings.federation}'")
    if federation.site(site.name).key != site.identity.key:
        raise TrustError(f"{source}: the federation file has another key for '{site.name}' than keys/identity.pem; "
                         "send the coordinator the key that 'fedround site check' shows")
    if site.name not in plan.cohort:
        raise TrustError(f"{source}: does not invite '{site.name}'")


@functools.lru_cache(maxsize=8)
def _federation(store: ObjectStore, sha256: str, coordinator: str) -> Federation:
    """A federation file, by its digest: read and verified once."""
    source = f"federation file {sha256[:16]}"
    document = store.get(layout.federation(sha256), max_bytes=MAX_DOCUMENT_BYTES)
    if digest(document) != sha256:
        raise TrustError(f"{source}: the stored bytes are not the ones that the plan names")
    return unseal("federation", document, Federation, coordinator, source)


def _check_chain(site: Site, plan: RoundPlan, source: str) -> None:
    """The plan's parent must be the signed commit whose model the plan starts from."""
    before = plan.round - 1 if plan.purpose is Purpose.TRAIN else plan.round
    try:
        document = site.store.get(layout.commit(plan.run, before), max_bytes=MAX_DOCUMENT_BYTES)
    except NotFoundError:
        raise ChainError(f"{source}: round {before}, which it continues, is not committed") from None
    if digest(document) != plan.parent:
        raise ChainError(f"{source}: does not continue the committed round {before}")
    commit = unseal("commit", document, Commit, site.settings.coordinator, f"commit of round {before}")
    if (commit.run, commit.round, commit.model) != (plan.run, before, plan.base_model):
        raise ChainError(f"{source}: starts from another model than the one that round {before} committed")
    # Whoever holds the API key may send an old invitation again; answering it would spend budget for nothing.
    if plan.purpose is Purpose.TRAIN and site.store.head(layout.commit(plan.run, plan.round)) is not None:
        raise ChainError(f"{source}: the round is committed already")
