"""What an answer is charged, before any work. The charge keeps the plan's promise and the policy's bounds."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime, timedelta

import rfc8785

from fedround.errors import BudgetError, ContractError
from fedround.federation import MORE_ROWS
from fedround.learning.spec import LocalTraining
from fedround.privacy import ledger, sense
from fedround.privacy.accounting import Batch, epsilon_of_batches
from fedround.privacy.entries import Lot
from fedround.privacy.entries import Rows as Side
from fedround.privacy.participation import counted
from fedround.privacy.spec import DpFtrl, GaussianCounts, NoPrivacy, PersonPrivacy, RandomisedLabels
from fedround.records import Plan, Reason, Refusal
from fedround.rounds.campaign import LOUDER
from fedround.rounds.offer import Offer, offer
from fedround.rounds.summed import HELD_OUT_TOO
from fedround.signing import digest
from fedround.values import canonical
from site_workers import audit, registry
from site_workers.authorise import Order, refuse
from site_workers.question_form import is_agreed
from site_workers.rows import Rows
from site_workers.site import Site
from site_workers.speed import terms_here

log = logging.getLogger("fedround.site")


def offer_and_charge(site: Site, order: Order, rows: Rows) -> tuple[Offer, ledger.Ledger] | Refusal:
    """What will be released, charged; or the reason why it will not be."""
    plan = order.plan
    if (refusal := _refuse_other_rows(site, order)) is not None:
        return refusal
    if (refusal := _refuse_too_soon(site, order)) is not None:
        return refusal
    try:
        units = rows.units(plan.agreed.privacy)
        everything = rows.units(plan.agreed.privacy, held_out=True)
        if (refusal := _refuse_more_rows(site, order, units, everything)) is not None:
            return refusal
        offered = offer(plan.asks, terms_here(site, order), units, lambda statistic: site.policy.lets_out(statistic, plan),
                        apart=registry.are_apart(site.folder, site.settings.data))
        refusal = refuse_if_meaningless(site, order, offered, everything)
        refusal = refusal or _refuse_over_share(site, order, offered)
        return charge(site, order, offered, rows.digest) if refusal is None else refusal
    except BudgetError as error:
        log.error("%s", error)
        return refuse(site, order, Reason.BUDGET, "the site's privacy budget would be exceeded")
    except ContractError as error:
        log.error("round %d of run '%s': %s", plan.round, plan.run, error)
        return refuse(site, order, Reason.BUDGET, "no noise keeps the plan's promise with the rows that are here")


def _refuse_other_rows(site: Site, order: Order) -> Refusal | None:
    """A refusal if this run has worked with another partition here: a campaign is fixed before anything of it leaves."""
    plan, book = order.plan, ledger.read(site.ledger)
    known = {charge.partition for charge in book.charges if charge.purpose in ("train", "evaluate")
             and (charge.federation, charge.run) == (plan.federation, plan.run)}
    if plan.asks.kind == "measure" or known <= {None, partition_of(plan, book)}:
        return None         # a charge to all rows may be one that was recovered: it says of no partition
    return refuse(site, order, Reason.POLICY, "this run has trained on another partition's rows here: a run keeps its "
                                              "partition, and another one needs a new run")


def _earlier_questions(site: Site, order: Order) -> list[ledger.Charge]:
    """What was charged for questions that no campaign had set aside, this plan's own charge left out."""
    return [charge for charge in ledger.read(site.ledger).charges if charge.purpose == "measure"
            and charge.plan != order.digest and all(isinstance(lot.mechanism, GaussianCounts) for lot in charge.campaign)]


def _is_question(order: Order) -> bool:
    return order.plan.asks.kind == "measure" and not is_agreed(order.plan)


def _refuse_more_rows(site: Site, order: Order, units: int, everything: int) -> Refusal | None:
    """A refusal if a sum has no room for so many. What the ring holds is fixed by the agreed numbers, and one site alone that
    has more could make the sum of all of them another number.

    units: rows to train on, or persons who have some. everything: with those held out. Both numbers are public. How many rows
    the persons have is not, and decides nothing: of each no more are used than the ring has room for.
    """
    agreed = order.federation.site(site.name).rows
    if order.plan.agreed.combine is None or agreed is None:
        return None
    if units <= MORE_ROWS * agreed and everything <= MORE_ROWS * HELD_OUT_TOO * agreed:
        return None
    log.error("round %d of run '%s': rows (or persons) to train on: %d, in all: %d; agreed: %d, and %g times as many at "
              "most: have the new number agreed ('rows' in the federation file)", order.plan.round, order.plan.run, units,
              everything, agreed, MORE_ROWS)
    return refuse(site, order, Reason.POLICY, f"more than {MORE_ROWS:g} times the rows that are agreed for this site")


def _refuse_too_soon(site: Site, order: Order) -> Refusal | None:
    """A refusal if the last question was charged too short a time ago. The time of a charge depends on no row."""
    hours = site.policy.questions.hours_between
    if not _is_question(order) or hours == 0 or not (earlier := _earlier_questions(site, order)):
        return None
    last = max(datetime.fromisoformat(charge.utc) for charge in earlier)
    if site.clock() - last >= timedelta(hours=hours):
        return None
    return refuse(site, order, Reason.HOURS, f"not now: {hours:g} h must pass between two questions here")


def _refuse_over_share(site: Site, order: Order, offered: Offer) -> Refusal | None:
    """A refusal if all questions together would spend more than their share of the budget."""
    policy, privacy = site.policy, order.plan.agreed.privacy
    if not _is_question(order) or policy.questions.share == 1 or isinstance(privacy, NoPrivacy):
        return None
    most = policy.budgets.get(privacy.unit, policy.max_epsilon)
    of_each = [*(charge.mechanisms for charge in _earlier_questions(site, order)), offered.mechanisms]
    batches = [Batch(tuple(Counter(mechanisms).items())) for mechanisms in of_each]
    after = epsilon_of_batches(batches, policy.delta_dp, privacy.unit)
    alone = epsilon_of_batches([one.alone() for one in batches], policy.delta_dp, policy.alone[0])
    if after <= policy.questions.share * most and alone <= policy.questions.share * policy.alone[1]:
        return None
    return refuse(site, order, Reason.BUDGET, "questions would spend more than their share of the site's privacy budget")


def refuse_if_meaningless(site: Site, order: Order, offered: Offer, units: int) -> Refusal | None:
    """A refusal if the plan's promise means nothing (`fedround.privacy.sense`). It has no numbers; the operator reads them.

    units: rows, or persons who have some; their number is public. Under `site` it is not, so nothing that is signed depends
    on it. There 'fedround site check' says whether the policy's own delta_dp fits the rows.
    """
    privacy, policy = order.plan.agreed.privacy, site.policy
    if isinstance(privacy, NoPrivacy):
        return None
    delta_dp, known = (0.0, None) if privacy.unit == "site" else (privacy.delta_dp, units)
    floors = policy.min_noise_multiplier, policy.min_batch
    problems = [problem for mechanism in offered.mechanisms
                for problem in sense.doubts(delta_dp, known, mechanism, None, *floors)]
    if not problems:
        return None
    log.error("round %d of run '%s': %s", order.plan.round, order.plan.run, problems[0])
    return refuse(site, order, Reason.POLICY, "the plan's promise means nothing with the rows that are here: its delta_dp is "
                                              "too large, or its noise or its batches are too small")


def charge(site: Site, order: Order, offered: Offer, rows: bytes) -> tuple[Offer, ledger.Ledger]:
    """Write down what this answer is and what it will cost, before any work. A plan that was charged is not charged again.

    If a run's rows have changed, the run goes on with what the plan's promise has left for the other rounds. It takes more
    noise if nothing else fits.
    """
    before = ledger.read(site.ledger)
    *tried, last = _candidates(site, order, before, offered, rows)
    for one, charge in tried:
        try:
            return one, _written(site, order, before, charge)
        except BudgetError:
            continue
    return last[0], _written(site, order, before, last[1])


def _candidates(site: Site, order: Order, before: ledger.Ledger, offered: Offer,
                files: bytes) -> list[tuple[Offer, ledger.Charge]]:
    """Charges to try, the best first. Only one if the plan was charged before, or if it goes on with a campaign.

    files: a digest of the rows and their order; those of a partition stand in an order of their own.
    """
    plan, privacy, book = order.plan, order.plan.agreed.privacy, before.book
    done = sum(one.rounds for one in book.campaigns
               if one.trains and (one.federation, one.run) == (plan.federation, plan.run))
    changed = done > 0 and not isinstance(privacy, NoPrivacy) and done < privacy.rounds
    found, rows = [], pays_apart(site, offered)
    part = b"" if plan.asks.partition is None else canonical(plan.asks.partition)
    in_order = digest(files + part) if isinstance(offered.training, DpFtrl) else None
    agreed_for = 0 if isinstance(privacy, NoPrivacy) else privacy.rounds
    terms, payer, now = _terms(plan), partition_of(plan, before), audit.utc(site.clock())
    is_new = all(earlier.plan != order.digest for earlier in before.charges)
    for factor in LOUDER if changed else LOUDER[:1]:
        louder = offered.louder(factor)
        found.append((louder, counted(ledger.Charge(
            federation=plan.federation, run=plan.run, round=plan.round, plan=order.digest,
            purpose=plan.asks.kind,  # type: ignore[arg-type]   # a question about rows
            mechanisms=louder.mechanisms, delta_dp=site.policy.delta_dp, utc=now,
            campaign=louder.campaign(rows, done, plan.agreed.groups, plan.agreed.drift), terms=terms,
            rows=rows, partition=payer, order=in_order), before.charges, agreed_for)))
        if is_new and book.room_for(found[-1][1]) is not None:      # the first that goes on, and none was charged before
            return found[-1:]
    again = [one for one in found if any(one[1].is_of(earlier) for earlier in before.charges)]
    going_on = [one for one in found if book.room_for(one[1]) is not None]
    return again[:1] or going_on[:1] or found


def charge_labels(site: Site, order: Order, mechanism: RandomisedLabels) -> ledger.Ledger:
    """Write down what it costs to tell labels by a coin, before one is drawn. Raises BudgetError."""
    plan, before = order.plan, ledger.read(site.ledger)
    return _written(site, order, before, ledger.Charge(
        federation=plan.federation, run=plan.run, round=plan.round, purpose="join", plan=order.digest,
        mechanisms=(mechanism,), delta_dp=site.policy.delta_dp, utc=audit.utc(site.clock()),
        campaign=(Lot(mechanism=mechanism, times=1),), terms=_terms(plan)))


def pays_apart(site: Site, offered: Offer) -> tuple[Side, ...]:
    """Which rows each mechanism is charged to; empty: all. A person may have rows to train on and rows held out."""
    apart = registry.are_apart(site.folder, site.settings.data) and not isinstance(offered.privacy, PersonPrivacy)
    return offered.rows if apart else ()


def partition_of(plan: Plan, before: ledger.Ledger) -> str | None:
    """The partition that pays; None: all rows do.

    Two ways to tell rows apart overlap (a week, a month), and a ledger takes partitions as disjoint. So if others than these
    were charged before, all rows pay, which is too much and never too little.
    """
    part = plan.asks.partition
    return part.in_ledger if part is not None and ledger.tells_apart(before, part.in_ledger) else None


def _terms(plan: Plan) -> str:
    """A digest of everything that determines a mechanism, except the rows and the clip norm. What a rule changes from round
    to round determines none.
    """
    agreed, privacy = plan.agreed, plan.agreed.privacy
    if not isinstance(privacy, NoPrivacy):
        privacy = privacy.model_copy(update={"clip_norm": 1.0})
    training = agreed.training
    if isinstance(training, LocalTraining):
        training = training.model_copy(update={"local_steps": training.paid, "covered": None, **(
            {} if training.rule is None else {"learning_rate": 1.0})})
    agreed_on = (privacy, training, agreed.evaluation, *(one for one in (
        agreed.groups, agreed.drift, agreed.combine, agreed.together) if one is not None))
    later = _LATER if agreed.clusters > 1 else _LATER | {"clusters"}
    return digest(rfc8785.dumps([one.model_dump(mode="json", exclude=later) for one in agreed_on]))


_LATER = {"rule", "fewest_steps", "covered"}
"""Keys that ledgers written before they were known have no digest of, and that determine no mechanism (nor does one
cluster)."""


def _written(site: Site, order: Order, before: ledger.Ledger, charge: ledger.Charge) -> ledger.Ledger:
    # Where nothing is noised, the policy allows it by name, and that ends every other promise.
    book = (ledger.charge(before, charge, *site.policy.bounds, _promised(order.plan),
                          max_epsilon_person=site.policy.max_epsilon_person,
                          max_epsilon_label=site.policy.max_epsilon_label, alone=_alone(site)) if charge.is_private
            else ledger.charge(before, charge, float("inf")))
    audit.record(
        site.folder,
        audit.Spent(utc=charge.utc, plan=order.digest, mechanisms=charge.mechanisms, ledger_head=book.head,
                    campaign=charge.campaign, rows=charge.rows),
        audit.Decided(utc=charge.utc, plan=order.digest, decision="carry out"))
    return book


def _alone(site: Site) -> ledger.Bound:
    """The most that the policy allows if nobody else's share of a sum's noise counts."""
    unit, bound = site.policy.alone
    return ledger.Bound(bound, site.policy.delta_dp, unit, None, "the site's policy (max_epsilon_alone) allows", alone=True)


def _promised(plan: Plan) -> ledger.Bound | None:
    """The highest cost of the run, as the plan promises. A site enforces it, even if its own policy would allow more."""
    privacy = plan.agreed.privacy
    return None if isinstance(privacy, NoPrivacy) else ledger.Bound(
        privacy.epsilon, privacy.delta_dp, privacy.unit, plan.run, "the plan promises")
