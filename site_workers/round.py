"""One round at a site, from a request to an answer in the store.

verify the plan → ask the policy → check the rows → charge the ledger → work (`fedround.rounds.site`) → keep → release. Where
answers are added up under masks, the same flow run then waits until it is known whose, signs that if the terms say so, and
reveals its shares for that sum.
If it is killed at any point and started again, it ends with the same bytes: noise and sampling are drawn from the site's
secret, the plan and the rows.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from fedround import codec
from fedround.errors import (
    Cancelled,
    ContractError,
    FedroundError,
    NotFoundError,
    PrivacyError,
    SetupError,
    StoreError,
    TrustError,
)
from fedround.learning.learn import check_learner
from fedround.learning.trial import try_out
from fedround.privacy import ledger
from fedround.privacy.spec import GradientPrivacy, NoPrivacy
from fedround.records import Answer, Countersign, Join, Plan, Reason, Refusal, Reveal, Update
from fedround.rounds.site import Worked, work
from fedround.sightings import sign_sighting
from fedround.values import MAX_NUMBER, AboutSum, Attempt, CheckId, Digest, Name, Purpose, Value, parse
from infra.history import read_plan_at
from infra.stores import Patience
from site_workers import (
    accepted,
    audit,
    charging,
    inputs,
    joining,
    kept,
    limits,
    outbox,
    reading,
    release,
    rollback,
    speed,
    summing,
)
from site_workers.apart.opening import watched
from site_workers.authorise import Order, authorise, authorise_sum, refusal_by_policy, refuse
from site_workers.draws import SiteDraws
from site_workers.foreign import host
from site_workers.outcome import STOPPED, Ending, Outcome
from site_workers.site import Site, refreshed

log = logging.getLogger("fedround.site")

_BY_ROWS = frozenset({Reason.DATA, Reason.FAILED, Reason.LIMITS})
"""Reasons to refuse that a record can influence. Each such refusal can tell one bit, and it carries no noise."""

_AUTHORISE_S = 300.0
"""How long a site waits for the store until it knows the plan."""

LOOK_S = 0.1
"""A site that has given a masked answer looks so often whose answers are added up; less often after a while."""
_SELDOM_S = 0.3


class SiteRequest(Value):
    """All that the API can say to a site: which plan to look up. Everything else stands in the signed plan."""

    run: Name
    round: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    attempt: Attempt
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


def answer(site: Site, request: SiteRequest, cancelled: Callable[[], bool], source: reading.Source | None = None) -> Outcome:
    """Answer one plan; returns the kind of the answer. Raises TrustError for a plan that does not hold.

    source: None: the site's files.
    """
    source = source or reading.Source(reading.from_files, accepted.keep)
    site, order = _ordered(site, request)
    said = _say(site, order, cancelled, lambda: _within_limits(site, order, cancelled, source))
    if isinstance(said, _Done) and order.plan.asks.makes_model:
        source.trained_on(site, said.rows)
    if not isinstance(said, Refusal) and order.plan.asks.slot is not None:
        _reveal(site, order, cancelled)
    return Outcome(Ending.ANSWERED, "answered before; the same bytes were sent again" if said is None else
                   said.kind if isinstance(said, Refusal) else "answer" if said.answer.update is None else "update")


def _ordered(site: Site, request: SiteRequest, verify: Callable[[Site], Order] | None = None) -> tuple[Site, Order]:
    """What is asked, verified and written down; and the site with the key that it signs with. verify: how; None: from the
    store, with the history before it.
    """
    with _noticed(site, request):
        patient = site.within(Patience(_AUTHORISE_S))
        order = (authorise(patient, request.run, request.round, request.attempt, request.purpose) if verify is None
                 else verify(patient))
    site = replace(site, identity=order.identity)
    audit.record(site.folder, audit.Asked(
        utc=audit.utc(site.clock()), plan=order.digest, by=site.settings.coordinator, federation=order.plan.federation,
        **request.model_dump()))
    return site, order


def _say(site: Site, order: Order, cancelled: Callable[[], bool],
         work: Callable[[], _Done | Refusal]) -> _Done | Refusal | None:
    """Let the answer leave; None: it was given before, and the same bytes are sent again."""
    if (earlier := outbox.find(site.safe, order.plan)) is not None:
        _decided(site, order, "send again")
        release.send(_patient(site, order, cancelled), earlier)
        return None
    done = work()
    if isinstance(done, Refusal):
        _decided(site, order, done.reason)
        release.release(_patient(site, order, cancelled), order.plan, done)
    else:
        release.release(_patient(site, order, cancelled), order.plan, done.answer, done.payload, done.book)
    return done


def _reveal(site: Site, order: Order, cancelled: Callable[[], bool]) -> None:
    """Wait until the coordinator says whose answers are added up; if this site's is among them, sign that where the terms say
    so, and reveal its shares for it.

    Raises Cancelled if the guard says so before that. If nobody asks in twice the time that the plan gives, the site ends.
    """
    plan, patient, how = order.plan, _patient(site, order, cancelled), order.plan.agreed.combine
    purposes: tuple[AboutSum, ...] = ("countersign", "reveal") if how is not None and how.is_signed else ("reveal",)
    end = time.monotonic() + 2 * plan.deadline_s
    for purpose in purposes:
        if (found := _asked_of_sum(patient, order, purpose, cancelled, end)) is None:
            return
        request = SiteRequest(run=plan.run, round=plan.continues, attempt=found[0].attempt, purpose=purpose)
        site, asked = _ordered(site, request, partial(authorise_sum, order=order, plan=found[0], named=found[1]))
        _say(site, asked, cancelled, partial(_for_sum, site, order, asked))


def _asked_of_sum(site: Site, order: Order, purpose: AboutSum, cancelled: Callable[[], bool],
                  end: float) -> tuple[Plan, Digest] | None:
    """Wait for a plan about the sum of these answers: it, and its digest. None: none came, or for a sum without this site."""
    plan, attempt, pause = order.plan, 1, LOOK_S
    while time.monotonic() < end:
        try:
            asked, named = read_plan_at(site.store, plan.run, plan.continues, attempt, purpose, site.settings.coordinator)
        except NotFoundError:
            if cancelled():
                raise Cancelled from None
            time.sleep(pause)
            pause = min(pause * 1.02, _SELDOM_S)
            continue
        if isinstance(asked.asks, Countersign | Reveal) and asked.asks.of == order.digest:
            return (asked, named) if site.name in {told.site for told in asked.asks.survivors} else None
        attempt += 1
    return None


def _for_sum(site: Site, order: Order, asked: Order) -> _Done | Refusal:
    """The site's word that these are added up; or what takes the masks off the sum that `asked` names."""
    if (refusal := rollback.refusal(site, asked)) is not None:
        return refusal
    keys = summing.keys_of(site, order)
    if isinstance(keys, Refusal) or keys is None:
        raise TrustError(f"round {order.plan.round} of run '{order.plan.run}': the keys of its answer are not there any more")
    if isinstance(asked.plan.asks, Countersign):
        summing.countersigned(site, order, keys, asked)
        return _about_keys(site, asked, None)
    return _about_keys(site, asked, summing.revealed(site, order, keys, asked))


def _material(site: Site, order: Order, guard: limits.Guard) -> _Done | Refusal:
    """The answer to a plan about keys, if the policy and the folder allow it."""
    if (refusal := refusal_by_policy(site, order) or rollback.refusal(site, order)) is not None:
        return refusal
    if isinstance(order.plan.asks, Join):
        if (refusal := _refused_too_often(site, order)) is not None:
            return refusal
        sends = joining.step(site, order, guard)
        return sends if isinstance(sends, Refusal) else _about_keys(site, order, sends.body, sends)
    said = summing.material(site, order)
    return said if isinstance(said, Refusal) else _about_keys(site, order, said)


def _about_keys(site: Site, order: Order, body: bytes | None, said: joining.Said | None = None) -> _Done:
    """An answer that has a file at most. said: what was charged for it; None: there is nothing of rows in it."""
    book = ledger.read(site.ledger) if said is None else said.book
    noised = () if said is None else said.noised
    return _Done(Answer(
        **order.addressed(site), charges=len(book.entries), ledger_head=book.head,
        material=None if body is None else codec.payload_of(body), noised=noised,
        epsilon=_spent(book, order.plan) if noised else None,
        sighting=sign_sighting(order.plan, order.digest, site.name, site.identity)), body, book, b"")


def _patient(site: Site, order: Order, cancelled: Callable[[], bool]) -> Site:
    """The site, whose store is waited for as long as the plan waits for its sites.

    cancelled: is looked at for each piece that travels, as between two steps: whoever looks moves (`SiteWorker`).
    """
    return site.within(Patience(max(_AUTHORISE_S, order.plan.deadline_s), moved=cancelled))


@contextmanager
def _noticed(site: Site, request: SiteRequest | None = None) -> Iterator[None]:
    """Record in the audit log what does not hold, before it is turned away."""
    try:
        yield
    except FedroundError as error:
        asked: dict[str, Any] = {} if request is None else {"run": request.run, "round": request.round}
        audit.record(site.folder, audit.TurnedAway(utc=audit.utc(site.clock()), problem=type(error).__name__, **asked))
        raise


def _decided(site: Site, order: Order, decision: str, *before: audit.Event) -> None:
    audit.record(site.folder, *before, audit.Decided(utc=audit.utc(site.clock()), plan=order.digest, decision=decision))


@dataclass(frozen=True)
class _Done:
    """An answer, the file beside it, and the ledger that was charged for them."""

    answer: Answer
    payload: bytes | None
    book: ledger.Ledger
    rows: bytes
    """The digest of the rows that it is about."""


def _within_limits(site: Site, order: Order, cancelled: Callable[[], bool], source: reading.Source) -> _Done | Refusal:
    """Do the work. Refuse if it takes more than the operator allows for one plan."""
    guard = limits.Guard(site.policy, order.plan.deadline_s, cancelled, site.clock)
    try:
        with limits.memory(site.policy.limits), watched(site.recipe, guard.is_over):
            return _carry_out(site, order, guard, source) if order.plan.asks.is_of_rows else _material(site, order, guard)
    except MemoryError:
        return refuse(site, order, Reason.LIMITS, "needs more memory than one plan may take here")
    except Cancelled:
        if guard.over is None:
            raise
        return refuse(site, order, *guard.over)
    except (TrustError, PrivacyError, StoreError, SetupError):
        raise               # of the plan, the ledger, the store or the folder: mended, the same plan can be answered
    except (Exception, SystemExit):     # of the recipe's code, or ours: its words may quote rows, and stay here
        log.exception("round %d of run '%s': the work failed", order.plan.round, order.plan.run)
        return refuse(site, order, Reason.FAILED, "the work failed; the site's operator sees why")


def _carry_out(site: Site, order: Order, guard: limits.Guard, source: reading.Source) -> _Done | Refusal:
    """Check everything that could forbid it; then charge, read, work, keep."""
    plan = order.plan
    if (refusal := _refused_too_often(site, order)) is not None:
        return refusal
    allowed = reading.allowed(site, order, source)
    if isinstance(allowed, Refusal):
        return allowed
    rows, warnings = allowed
    if plan.asks.reads_model:
        try:
            if plan.asks.makes_model:
                check_learner(site.recipe, plan.agreed.training)
                host.check(site)
            notes = try_out(site.recipe, rows.train.form, plan.agreed.parts,
                            per_record=isinstance(plan.agreed.privacy, GradientPrivacy), training=plan.agreed.training,
                            device=site.settings.device)
        except (ContractError, SetupError) as error:
            log.error("round %d of run '%s': %s", plan.round, plan.run, error)
            return refuse(site, order, Reason.FAILED, "the recipe's model cannot be trained; the site's operator sees why")
        for note in notes:
            log.warning("recipe '%s': %s", site.recipe.name, note)
    if isinstance(keys := summing.keys_of(site, order), Refusal):
        return keys
    charged = charging.offer_and_charge(site, order, rows)
    if isinstance(charged, Refusal):
        return charged
    offered, book = charged
    began = site.clock()
    worked = work(plan.asks, plan.agreed, plan.round, bytes.fromhex(order.digest),
                  inputs.read(_patient(site, order, guard), order, rows, guard), offered,
                  SiteDraws(site.noise_secret, order.digest, rows.digest), guard)
    speed.note(site, plan, site.clock() - began, worked.declared)
    kept.write(site.safe, plan, worked.keeps)
    answer, body = _answer(site, order, worked, book, warnings), worked.payload
    if keys is not None and worked.summand_S is not None:
        masked, body = summing.masked(site, order, keys, offered, worked.summand_S)
        answer = answer.model_copy(update={"masked": masked})
    return _Done(answer, body, book, rows.digest)


def _refused_too_often(site: Site, order: Order) -> Refusal | None:
    if outbox.refusals(site.safe, _BY_ROWS) < site.policy.max_refusals:
        return None
    log.error("round %d of run '%s': refused, because %d plans were refused before for reasons of rows, recipe or machine: "
              "find out why, then raise max_refusals in policy.toml", order.plan.round, order.plan.run,
              site.policy.max_refusals)
    return refuse(site, order, Reason.POLICY, "this site has refused too often; its operator sees why")


def _answer(site: Site, order: Order, worked: Worked, book: ledger.Ledger, warnings: tuple[CheckId, ...]) -> Answer:
    plan, said = order.plan, worked.declared
    return Answer(
        **order.addressed(site), charges=len(book.entries), ledger_head=book.head, checks=warnings,
        epsilon=_spent(book, plan), epsilon_alone=None if plan.agreed.combine is None else _spent(book, plan, alone=True),
        sighting=sign_sighting(plan, order.digest, site.name, site.identity), releases=worked.releases,
        update=None if said is None or worked.payload is None else Update(
            base_model=plan.base_model, schema_digest=codec.schema_digest(plan.sent), mechanism=said.mechanism,
            rows=said.rows, steps=said.steps, within_clip=said.within_clip, payload=codec.payload_of(worked.payload)))


def _spent(book: ledger.Ledger, plan: Plan, *, alone: bool = False) -> float | None:
    """The epsilon that the run has spent; None also if there is no bound at the plan's delta_dp. alone: as `ledger.spent`.

    What was paid for must be an answer that can be written.
    """
    privacy = plan.agreed.privacy
    if isinstance(privacy, NoPrivacy):
        return None
    spent = ledger.spent(book, privacy.delta_dp, run=plan.run, unit=privacy.unit, alone=alone)
    return None if math.isinf(spent) else spent
