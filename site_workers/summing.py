"""A site's part in secure sums: its keys, the shares that it deals, the mask on its answer, and what it reveals.

What does not hold is raised (TrustError): then nothing leaves. What only this site can mend, or only new keys can, is a
signed refusal. `once` remembers what may never be done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fedround import codec
from fedround.errors import ContractError, ToleranceError, TrustError
from fedround.records import Countersign, DealShares, Masked, OfferKeys, Reason, Refusal, Reveal
from fedround.rounds import summed
from fedround.rounds.offer import Offer
from fedround.rounds.site import Float64
from fedround.secure_sums.dealing import check_deal, deal
from fedround.secure_sums.groups import groups_of
from fedround.secure_sums.keys import offer
from fedround.secure_sums.masking import mask
from fedround.secure_sums.revealing import check_survivors, reveal
from fedround.secure_sums.spec import SecureSum
from fedround.signing import digest
from fedround.spoken import how_many
from infra.epochs import Epoch, check_answers, check_countersigned, known_epoch, read_offered
from site_workers import once, outbox
from site_workers.authorise import Order, refuse
from site_workers.site import Site

T = TypeVar("T")

@dataclass(frozen=True)
class Keys:
    """The keys that mask the answer to one plan."""

    epoch: Epoch
    slot: int
    how: SecureSum


def material(site: Site, order: Order) -> bytes | Refusal:
    """What the site says to a plan about keys: its own, or the shares that it deals to those who offered some."""
    how, asks = _agreed(order), order.plan.asks
    if isinstance(asks, OfferKeys):
        return offer(site.noise_secret, bytes.fromhex(order.digest), asks.slots).to_bytes()
    if not isinstance(asks, DealShares):
        raise TrustError(f"{_source(order)}: a sum is answered for by the flow run that has answered, and by no other")
    found = read_offered(site.store, site.settings.coordinator, order.federation, order.plan.run,
                         order.plan.federation_digest, asks.offered)
    if site.name not in found.roster:
        return _without_keys(site, order, "this site offered no keys for it")
    if (len(found.roster), found.slots) != (asks.members, asks.slots):
        raise TrustError(f"{_source(order)}: says of the keys that were offered what is not so")
    if len(found.roster) < how.least(len(order.federation.sites)):
        raise TrustError(f"{_source(order)}: {how_many(len(found.roster), 'member')} offered keys, and a sum is of "
                         f"{how.least(len(order.federation.sites))} at least")
    once.promise(site.folder, found.epoch, once.SHARES, order.digest, _source(order))
    return _true(order, lambda: deal(
        site.noise_secret, bytes.fromhex(found.epoch), site.name, found.roster, how.threshold)).to_bytes()


def keys_of(site: Site, order: Order) -> Keys | Refusal | None:
    """The keys that mask the answer to this plan, and to no other from now on; None: its answer is not masked.

    A refusal if this site has no part in them, or if what a member dealt to it is wrong: that names the member.
    """
    asks, how = order.plan.asks, order.plan.agreed.combine
    if (asks.slot is None) != (how is None):
        raise TrustError(f"{_source(order)}: the terms and the question disagree on whether answers are masked")
    if asks.slot is None or how is None:
        return None
    epoch = known_epoch(site.store, site.settings.coordinator, order.federation, order.plan.run,
                        order.plan.federation_digest, asks.slot.dealt)
    named = epoch.offered.epoch
    if site.name not in epoch.dealt:
        return _without_keys(site, order, "this site has no part in these keys")
    if once.is_closed(site.folder, named) or not once.is_kept(site.folder, named, once.SHARES):
        return _without_keys(site, order, "this site's folder was recovered since these keys were made")
    if not epoch.is_whole or asks.slot.number >= epoch.offered.slots:
        raise TrustError(f"{_source(order)}: names keys of which not everybody dealt shares, or a slot that there is not")
    if not once.is_kept(site.folder, named, once.DEALT):
        try:
            for dealer in sorted(epoch.dealt):
                check_deal(site.noise_secret, bytes.fromhex(named), site.name, epoch.offered.roster, dealer,
                           epoch.dealt[dealer], how.threshold)
        except ContractError as complaint:
            return _without_keys(site, order, str(complaint))
    once.promise(site.folder, named, once.DEALT, asks.slot.dealt.digest, _source(order))
    once.promise(site.folder, named, once.plan_of(asks.slot.number), order.digest, _source(order))
    return Keys(epoch, asks.slot.number, how)


def masked(site: Site, order: Order, keys: Keys, offered: Offer, summand_S: Float64) -> tuple[Masked, bytes]:
    """What the site adds to the sum, under all its masks: what the answer says of it, and its bytes.

    Raises TrustError if the slot has masked other numbers: those masks would fall out of the difference.
    """
    plan, mechanisms = order.plan, offered.mechanisms
    parts = summed.layout(plan.asks, plan.agreed, codec.coordinates(plan.sent), mechanisms)
    epoch, roster = bytes.fromhex(keys.epoch.offered.epoch), keys.epoch.offered.roster
    group = next(one for one in groups_of(epoch, roster, keys.slot, keys.how.groups) if site.name in one)
    hidden_S = mask(summed.in_ring(parts, summand_S), site.noise_secret, epoch, site.name, roster, keys.slot,
                    bytes.fromhex(order.digest), group)
    body = hidden_S.astype("<u4").tobytes()
    payload = codec.payload_of(body)
    once.promise(site.folder, keys.epoch.offered.epoch, once.masked_by(keys.slot), payload.sha256, _source(order))
    return Masked(payload=payload, length=len(hidden_S), mechanisms=mechanisms), body


def countersigned(site: Site, order: Order, keys: Keys, asked: Order) -> None:
    """From now on, `asked` names the answers to `order` that are added up, and this site reveals nothing for others.

    Raises TrustError, and nothing is to be signed, as `revealed`.
    """
    source = _source(asked)
    if not keys.how.is_signed:
        raise TrustError(f"{source}: in this federation nobody signs who is in a sum")
    _check_sum(site, order, keys, asked)
    once.promise(site.folder, keys.epoch.offered.epoch, once.signed_by(keys.slot), asked.digest, source)


def revealed(site: Site, order: Order, keys: Keys, asked: Order) -> bytes:
    """The shares that take the masks off the sum of the answers that `asked` names; they are answers to `order`.

    Raises TrustError, and reveals nothing, for any other sum than the one that was agreed: without this site, over too few,
    over answers to another plan, for a slot for which shares of another sum were revealed; and, where members sign who is in
    a sum, for one for which too few have signed, or this site another.
    """
    epoch, source = keys.epoch, _source(asked)
    survivors, dropped = _check_sum(site, order, keys, asked)
    listed = check_countersigned(site.store, site.settings.coordinator, order.federation, asked.plan, source)
    if listed is not None:
        once.promise(site.folder, epoch.offered.epoch, once.signed_by(keys.slot), listed, source)
    once.promise(site.folder, epoch.offered.epoch, once.reveal_of(keys.slot), asked.digest, source)
    return _true(asked, lambda: reveal(
        site.noise_secret, bytes.fromhex(epoch.offered.epoch), site.name, epoch.offered.roster, epoch.dealt, keys.slot,
        survivors, dropped, keys.how.threshold)).to_bytes()


def _check_sum(site: Site, order: Order, keys: Keys, asked: Order) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Whether `asked` is about the sum of answers to `order`, as agreed; who is in it, and who dropped out."""
    asks, epoch, source = asked.plan.asks, keys.epoch, _source(asked)
    if not isinstance(asks, Countersign | Reveal) or asks.of != order.digest:
        raise TrustError(f"{source}: is about another plan than this site has answered here")
    if asked.plan.federation_digest != order.plan.federation_digest:
        raise TrustError(f"{source}: names another federation file than the plan whose answers are added up")
    survivors = tuple(told.site for told in asks.survivors)
    _true(asked, lambda: check_survivors(keys.how, len(order.federation.sites), site.name, epoch.offered.roster, survivors,
                                         asks.dropped))
    check_answers(site.store, order.federation, order.plan, order.digest, asks, source)
    mine = outbox.find(site.safe, order.plan)
    if mine is None or digest(mine.answer) not in {told.answer for told in asks.survivors if told.site == site.name}:
        raise TrustError(f"{source}: names another answer of this site than the one that it gave")
    return survivors, asks.dropped


def _agreed(order: Order) -> SecureSum:
    if (how := order.plan.agreed.combine) is None:
        raise TrustError(f"{_source(order)}: this federation has agreed on no secure sums")
    return how


def _true(order: Order, done: Callable[[], T]) -> T:
    """What does not hold in what others said is no reason to answer anything."""
    try:
        return done()
    except (ContractError, ToleranceError) as error:
        raise TrustError(f"{_source(order)}: {error}") from None


def _without_keys(site: Site, order: Order, why: str) -> Refusal:
    return refuse(site, order, Reason.KEYS, f"{why}: new keys are needed"[:300])


def _source(order: Order) -> str:
    return f"{order.plan.asks.kind} plan of round {order.plan.round} of run '{order.plan.run}'"
