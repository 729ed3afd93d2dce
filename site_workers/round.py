"""One round at a site, from a request to an answer in the store.

verify the plan → ask the policy → check the rows → charge the ledger → train → release. Killed at any point and started
again, it ends with the same bytes: noise and sampling are drawn from the site's secret, the plan and the rows.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fedround import codec
from fedround.errors import BudgetError, Cancelled, ContractError, SetupError
from fedround.learning.train import sampling_rate
from fedround.privacy import accounting, ledger
from fedround.signing import digest
from fedround.types import (
    DpSgd,
    EvaluationAnswer,
    GaussianCounts,
    Mechanism,
    Name,
    NoMechanism,
    Payload,
    Purpose,
    Reason,
    RecordPrivacy,
    RoundPlan,
    SiteAnswer,
    Update,
    Value,
    parse,
)
from site_workers import learn, outbox, release
from site_workers.authorise import Order, authorise, base_model, refusal_by_policy, refuse
from site_workers.rows import Rows, failed_checks, read_site_rows
from site_workers.site import Site

log = logging.getLogger("fedround.site")


class SiteRequest(Value):
    """All that the API can say to a site: which plan to look up. Everything else stands in the signed plan."""

    run: Name
    round: int
    attempt: int
    purpose: Purpose


def job(site: Site) -> Callable[[dict[str, Any], Callable[[], bool]], str]:
    """What the site's worker runs for a flow run: checks the parameters, then answers."""

    def run(parameters: dict[str, Any], cancelled: Callable[[], bool]) -> str:
        request = parse(SiteRequest, parameters, "parameters of the flow run")
        try:
            return answer(site, request, cancelled)
        except Cancelled:
            return "cancelled"

    return run


def answer(site: Site, request: SiteRequest, cancelled: Callable[[], bool]) -> str:
    """Answer one plan; returns the kind of the answer. Raises TrustError for a plan that does not hold."""
    order = authorise(site, request.run, request.round, request.attempt, request.purpose)
    if (kept := outbox.find(site.folder, order.plan)) is not None:
        release.send(site, kept)
        return "answered before; the same bytes were sent again"
    result, payload = _work(site, order, cancelled)
    release.release(site, order.plan, result, payload)
    return result.kind


def _work(site: Site, order: Order, cancelled: Callable[[], bool]) -> tuple[SiteAnswer, bytes | None]:
    if (refusal := refusal_by_policy(site, order)) is not None:
        return refusal, None
    try:
        if (failed := failed_checks(site)) != ():
            return refuse(site, order, Reason.CONTRACT, f"failed checks: {len(failed)}", failed), None
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
    return _learn(site, order, rows, mechanism, book, cancelled)


def _learn(site: Site, order: Order, rows: Rows, mechanism: Mechanism, book: ledger.Ledger,
           cancelled: Callable[[], bool]) -> tuple[SiteAnswer, bytes | None]:
    plan = order.plan
    base = codec.decode(base_model(site, order), plan.tensors, f"base model of round {plan.round}")
    common = {"federation": plan.federation, "run": plan.run, "round": plan.round, "site": site.name,
              "plan": order.digest, "ledger_head": book.head, "epsilon": _spent(book, plan),
              "evaluation": learn.evaluate(site, order, base, rows)}
    if plan.purpose is Purpose.EVALUATE:
        return EvaluationAnswer(**common), None
    payload = codec.encode(learn.train(site, order, base, rows, mechanism, cancelled))
    return Update(**common, base_model=plan.base_model, mechanism=mechanism,
                  payload=Payload(sha256=digest(payload), size_bytes=len(payload))), payload


def mechanism_for(plan: RoundPlan, rows: int) -> Mechanism:
    """What the plan's privacy means for a site with this many training rows. Raises BudgetError if no noise keeps it."""
    if not isinstance(plan.privacy, RecordPrivacy):
        return NoMechanism()
    rate = sampling_rate(plan.training, rows)
    try:
        noise = _calibrated(plan.privacy, rate, plan.training.local_steps, plan.evaluation)
    except ContractError as error:
        raise BudgetError(f"round {plan.round} of run '{plan.run}': {error}") from None
    return DpSgd(noise_multiplier=noise, clip_norm=plan.privacy.clip_norm, sampling_rate=rate,
                 steps=plan.training.local_steps)


_calibrated = functools.lru_cache(maxsize=64)(accounting.calibrate)


def _charge(site: Site, order: Order, mechanism: Mechanism) -> ledger.Ledger:
    """Write down what this answer will cost, before any work. A plan that was charged is not charged again."""
    plan = order.plan
    counts: Mechanism = (GaussianCounts(noise_std=plan.evaluation.noise_std) if plan.evaluation.noise_std > 0
                         else NoMechanism())
    charge = ledger.Charge(
        federation=plan.federation, run=plan.run, round=plan.round, purpose=plan.purpose, plan=order.digest,
        mechanisms=(mechanism, counts) if plan.purpose is Purpose.TRAIN else (counts,),
        delta_dp=site.policy.delta_dp, utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    limit = float("inf") if NoMechanism() in charge.mechanisms else site.policy.max_epsilon
    return ledger.charge(ledger.read(site.ledger), charge, limit)


def _spent(book: ledger.Ledger, plan: RoundPlan) -> float | None:
    if not isinstance(plan.privacy, RecordPrivacy):
        return None
    return ledger.spent(book, plan.privacy.delta_dp, run=plan.run)
