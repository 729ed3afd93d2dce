"""One round at a site, from a request to an answer in the store.

verify the plan → ask the policy → check the rows → charge the ledger → train → release. Killed at any point and started
again, it ends with the same bytes: noise and sampling are drawn from the site's secret, the plan and the rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from fedround import codec
from fedround.errors import BudgetError, Cancelled, ContractError, FedroundError, SetupError
from fedround.privacy import campaign, ledger
from fedround.privacy.spec import AdaptiveDpSgd, DpSgd, Mechanism, NoMechanism, NoPrivacy
from fedround.sightings import sign_sighting
from fedround.types import EvaluationAnswer, Purpose, Reason, Refusal, RoundPlan, SiteAnswer, Update
from fedround.values import CheckId, Name, Value, parse
from site_workers import audit, control, learn, limits, outbox, parts, personal, release, rollback
from site_workers.authorise import Order, authorise, base_model, refusal_by_policy, refuse
from site_workers.outcome import STOPPED, Ending, Outcome
from site_workers.pack import pack
from site_workers.rows import Rows, failed_checks, read_site_rows
from site_workers.site import Site, refreshed

log = logging.getLogger("fedround.site")


class SiteRequest(Value):
    """All that the API can say to a site: which plan to look up. Everything else stands in the signed plan."""

    run: Name
    round: Annotated[int, Field(ge=1, le=99_999)]
    attempt: Annotated[int, Field(ge=1, le=99)]
    purpose: Purpose


def job(site: Site) -> Callable[[dict[str, Any], Callable[[], bool]], Outcome]:
    """What the site's worker runs for a flow run: checks the parameters, then answers. What the operator has changed in the
    meantime (policy, approvals) holds from the next run on.
    """

    def run(parameters: dict[str, Any], cancelled: Callable[[], bool]) -> Outcome:
        nonlocal site
        site = refreshed(site)
        with _noticed(site):
            request = parse(SiteRequest, parameters, "parameters of the flow run")
        try:
            return answer(site, request, cancelled)
        except Cancelled:
            return STOPPED

    return run


def answer(site: Site, request: SiteRequest, cancelled: Callable[[], bool]) -> Outcome:
    """Answer one plan; returns the kind of the answer. Raises TrustError for a plan that does not hold."""
    with _noticed(site, request):
        order = authorise(site, request.run, request.round, request.attempt, request.purpose)
    site = replace(site, identity=order.identity)
    audit.record(site.folder, audit.Asked(
        utc=audit.utc(site.clock()), plan=order.digest, by=site.settings.coordinator, federation=order.plan.federation,
        **request.model_dump()))
    if (kept := outbox.find(site.folder, order.plan)) is not None:
        _decided(site, order, "send again")
        release.send(site, kept)
        return Outcome(Ending.ANSWERED, "answered before; the same bytes were sent again")
    result, payload = _within_limits(site, order, cancelled)
    if isinstance(result, Refusal):
        _decided(site, order, result.reason)
    release.release(site, order.plan, result, payload)
    return Outcome(Ending.ANSWERED, result.kind)


@contextmanager
def _noticed(site: Site, request: SiteRequest | None = None) -> Iterator[None]:
    """What does not hold is written down before it is turned away."""
    try:
        yield
    except FedroundError as error:
        asked = {} if request is None else {"run": request.run, "round": request.round}
        audit.record(site.folder, audit.TurnedAway(utc=audit.utc(site.clock()), problem=type(error).__name__, **asked))
        raise


def _decided(site: Site, order: Order, decision: str, *before: audit.Event) -> None:
    audit.record(site.folder, *before, audit.Decided(utc=audit.utc(site.clock()), plan=order.digest, decision=decision))


def _within_limits(site: Site, order: Order, cancelled: Callable[[], bool]) -> tuple[SiteAnswer, bytes | None]:
    """Do the work, or refuse when it takes more than the operator allows one plan."""
    guard = limits.Guard(site.policy, cancelled, site.clock)
    try:
        with limits.memory(site.policy.limits):
            return _work(site, order, guard)
    except MemoryError:
        return refuse(site, order, Reason.LIMITS, "needs more memory than one plan may take here"), None
    except Cancelled:
        if guard.over is None:
            raise
        return refuse(site, order, *guard.over), None


def _work(site: Site, order: Order, guard: limits.Guard) -> tuple[SiteAnswer, bytes | None]:
    if (refusal := refusal_by_policy(site, order) or rollback.refusal(site, order)) is not None:
        return refusal, None
    try:
        if (failed := failed_checks(site)) != ():
            return _refuse_rows(site, order, failed), None
        rows = read_site_rows(site)
    except (SetupError, ContractError) as error:
        log.error("round %d of run '%s': %s", order.plan.round, order.plan.run, error)
        return refuse(site, order, Reason.DATA, "the rows cannot be read; the site's operator sees why"), None
    if len(rows.train.labels_N) < site.policy.min_rows:
        return refuse(site, order, Reason.DATA, "fewer rows than the site's policy asks for"), None
    try:
        mechanism = mechanism_for(order.plan, len(rows.train.labels_N))
        book = _charge(site, order, mechanism)
    except BudgetError:
        return refuse(site, order, Reason.BUDGET, "the site's privacy budget would be exceeded"), None
    return _learn(site, order, rows, mechanism, book, guard)


def _refuse_rows(site: Site, order: Order, failed: tuple[CheckId, ...]) -> Refusal:
    """The rows do not meet the contract; which checks they fail is said where the policy lets it out."""
    if "checks" in site.policy.statistics:
        return refuse(site, order, Reason.CONTRACT, f"failed checks: {len(failed)}", failed)
    log.error("round %d of run '%s': the rows fail %s", order.plan.round, order.plan.run, ", ".join(failed))
    return refuse(site, order, Reason.CONTRACT, "the rows do not meet the contract; the site's operator sees why")


def _learn(site: Site, order: Order, rows: Rows, mechanism: Mechanism, book: ledger.Ledger,
           guard: limits.Guard) -> tuple[SiteAnswer, bytes | None]:
    plan = order.plan
    base, rest = base_model(site, order), parts.rest(site, order)
    common = {**order.addressed(site), "charges": len(book.charges), "ledger_head": book.head, "epsilon": _spent(book, plan),
              "evaluation": learn.evaluate(site, order, base, rows, rest) if site.policy.scores_leave(plan) else None}
    if plan.purpose is Purpose.EVALUATE:
        return EvaluationAnswer(**common), None
    shift_D = control.shift(site, order)
    trained = learn.train(site, order, base, rows, mechanism, guard, shift_D, rest)
    payload, arrives = pack(site, order, trained.delta, rows)
    control.keep(site, order, shift_D, codec.flatten(arrives))
    parts.keep(site, order, trained.private)
    personal.keep(site, order, base, rows, rest, guard)
    few = len(rows.train) if isinstance(mechanism, DpSgd | AdaptiveDpSgd) and mechanism.sampling_rate == 1 else None
    return Update(**common, base_model=plan.base_model, schema_digest=codec.schema_digest(plan.tensors),
                  sighting=sign_sighting(plan, order.digest, site.name, site.identity), mechanism=mechanism, rows=few,
                  within_clip=trained.within_clip, steps=trained.steps if trained.steps < plan.training.local_steps else None,
                  payload=codec.payload_of(payload)), payload


def mechanism_for(plan: RoundPlan, rows: int) -> Mechanism:
    """What the plan's privacy means for a site with this many training rows. Raises BudgetError if no noise keeps it."""
    try:
        return campaign.mechanism_for(plan.privacy, plan.training, plan.evaluation, rows)
    except ContractError as error:
        raise BudgetError(f"round {plan.round} of run '{plan.run}': {error}") from None


def _charge(site: Site, order: Order, mechanism: Mechanism) -> ledger.Ledger:
    """Write down what this answer will cost, before any work. A plan that was charged is not charged again."""
    plan, policy, now = order.plan, site.policy, audit.utc(site.clock())
    counts = campaign.counts_of(plan.privacy, plan.evaluation) if policy.scores_leave(plan) else ()
    charge = ledger.Charge(
        federation=plan.federation, run=plan.run, round=plan.round, purpose=plan.purpose, plan=order.digest,
        mechanisms=(mechanism, *counts) if plan.purpose is Purpose.TRAIN else counts, delta_dp=policy.delta_dp, utc=now)
    # Where nothing is noised, the policy allows it by name, and that ends every other promise.
    bounds = ((float("inf"),) if NoMechanism() in charge.mechanisms else
              (policy.max_epsilon, policy.max_epsilon_site, policy.max_epsilon_per_run))
    book = ledger.charge(ledger.read(site.ledger), charge, *bounds)
    _decided(site, order, "carry out", audit.Spent(
        utc=now, plan=order.digest, mechanisms=charge.mechanisms, ledger_head=book.head))
    return book


def _spent(book: ledger.Ledger, plan: RoundPlan) -> float | None:
    if isinstance(plan.privacy, NoPrivacy):
        return None
    return ledger.spent(book, plan.privacy.delta_dp, run=plan.run, unit=plan.privacy.unit)
