"""Keys for secure sums: which stand for a run, and the slot that the next sum uses.

An epoch is one set of keys: each member's, and the shares of their secrets that it dealt to the others. It stands while the
federation file is the same, everybody who offered keys has dealt shares, slots are left, and no member has said that it has
no part in it. `tasks.setting_up` asks for the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, get_args

from fedround import layout
from fedround.errors import NotFoundError, QuorumError
from fedround.records import Countersign, DealShares, Finding, OfferKeys, Placed, Plan, Reason, Refusal, Reveal, Slot
from fedround.signing import digest, envelope, unseal
from fedround.values import MAX_ATTEMPTS, AboutSum, Digest, OfRows, Purpose
from infra.documents import NOT_OURS, is_ours, read_document
from infra.history import findings, read_commit, read_finding, read_plan, read_plan_at
from tasks.coordinator import Coordinator
from tasks.documents import said_by

_PURPOSES: tuple[OfRows, ...] = get_args(OfRows)


@dataclass(frozen=True)
class EpochSoFar:
    """The newest epoch of a run, as far as it has come."""

    number: int = 0
    """Which one it is; 0: there was none."""
    offered: Placed | None = None
    """The finding that says who offered keys, if shares are still to be dealt."""
    dealt: Placed | None = None
    """The finding that says who dealt shares, if the epoch stands."""
    free: int = 0
    """The first slot that no plan has used."""


class Concluded(NamedTuple):
    """A question about keys, or a step between two members, and its finding."""

    finding: Finding
    plan: Plan
    placed: Placed

    @property
    def who(self) -> set[str]:
        """Who answered."""
        return {told.site for told in self.finding.answers}


def standing(coordinator: Coordinator, run: str) -> EpochSoFar:
    """The run's newest epoch."""
    keys = _newest(coordinator, run, "keys")
    if keys is None or not isinstance(keys.plan.asks, OfferKeys):
        return EpochSoFar()
    number, slots = keys.plan.asks.epoch, keys.plan.asks.slots
    if keys.plan.federation_digest != digest(coordinator.federation_document):
        return EpochSoFar(number)
    shares = _newest(coordinator, run, "shares")
    if shares is None or not isinstance(shares.plan.asks, DealShares) or shares.plan.asks.offered != keys.placed:
        return EpochSoFar(number, offered=keys.placed)
    last = _last_use(coordinator, run, shares.placed)
    free = 0 if last is None or last.asks.slot is None else last.asks.slot.number + 1
    if shares.who != keys.who or free >= slots or (last is not None and _somebody_has_no_part(coordinator, last)):
        return EpochSoFar(number)
    return EpochSoFar(number, dealt=shares.placed, free=free)


def slot_for(coordinator: Coordinator, run: str) -> Slot:
    """The first slot that is free. Raises QuorumError if no keys stand."""
    stands = standing(coordinator, run)
    if stands.dealt is None:
        raise QuorumError(f"run '{run}': no keys stand for a secure sum: too few members offered keys, or dealt shares, or "
                          "one of them has no part in those that there are. Run it again: new ones are set up first")
    return Slot(dealt=stands.dealt, number=stands.free)


def about_sum(coordinator: Coordinator, plan: Plan, named: Digest, purpose: AboutSum) -> tuple[Plan, Digest] | None:
    """The plan about the sum of the answers to this one, and its digest; None: there is none yet."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            found = read_plan_at(coordinator.store, plan.run, plan.continues, attempt, purpose, coordinator.key)
        except NotFoundError:
            return None
        if isinstance(found[0].asks, Countersign | Reveal) and found[0].asks.of == named:
            return found
    return None


def decided(coordinator: Coordinator, plan: Plan, named: Digest) -> frozenset[str] | None:
    """Whose answers to this plan are added up, if its members were asked about the sum already."""
    for purpose in get_args(AboutSum):
        if (found := about_sum(coordinator, plan, named, purpose)) is not None and isinstance(
                found[0].asks, Countersign | Reveal):
            return frozenset(told.site for told in found[0].asks.survivors)
    return None


def is_given_up(coordinator: Coordinator, plan: Plan, named: Digest) -> bool:
    """Whether a sum of these answers was signed or revealed by too few: its slot is used up, and the sum lost."""
    return any(_is_given_up(coordinator, plan, named, purpose) for purpose in get_args(AboutSum))


def _is_given_up(coordinator: Coordinator, plan: Plan, named: Digest, purpose: AboutSum) -> bool:
    found = about_sum(coordinator, plan, named, purpose)
    return found is not None and is_ours(lambda: read_finding(
        coordinator.store, plan.run, found[0].round, found[0].attempt, purpose, coordinator.key))


def _newest(coordinator: Coordinator, run: str, purpose: Purpose) -> Concluded | None:
    return next(newest_first(coordinator, run, purpose), None)


def newest_first(coordinator: Coordinator, run: str, purpose: Purpose) -> Iterator[Concluded]:
    """The questions of a run that were concluded, the newest first; what is not ours is left out."""
    key = coordinator.key
    for number, attempt in reversed([*findings(coordinator.store, run, purpose)]):
        try:
            finding = read_finding(coordinator.store, run, number, attempt, purpose, key)
            named = read_document(coordinator.store, layout.finding(run, number, attempt, purpose), digest)
            plan = read_plan(coordinator.store, finding, key, purpose)
        except NOT_OURS:
            continue
        yield Concluded(finding, plan, Placed(round=number, attempt=attempt, digest=named))


def _last_use(coordinator: Coordinator, run: str, dealt: Placed) -> Plan | None:
    """The plan that uses the last slot of an epoch: slots are used in their order, so it is the newest of its purpose."""
    found = [plan for purpose in _PURPOSES if (plan := _newest_plan(coordinator, run, purpose)) is not None
             and plan.asks.slot is not None and plan.asks.slot.dealt == dealt]
    return max(found, key=lambda plan: -1 if plan.asks.slot is None else plan.asks.slot.number, default=None)


def _newest_plan(coordinator: Coordinator, run: str, purpose: OfRows) -> Plan | None:
    places = (layout.parse_plan(key) for key in coordinator.store.list(layout.questions(run, purpose)))
    for number, attempt in sorted(((place[1], place[2]) for place in places if place is not None), reverse=True):
        try:
            return read_plan_at(coordinator.store, run, number, attempt, purpose, coordinator.key)[0]
        except NOT_OURS:
            continue
    return None


def _somebody_has_no_part(coordinator: Coordinator, plan: Plan) -> bool:
    """Whether a member refused this plan because it has no part in its keys: it would have one in the next."""
    try:
        said = (read_commit(coordinator.store, plan.run, plan.round, coordinator.key).commit if plan.asks.makes_model
                else read_finding(coordinator.store, plan.run, plan.round, plan.attempt, plan.asks.kind,
                                  coordinator.key))
        return any(no.reason is Reason.KEYS for no in said.refusals)
    except NotFoundError:
        return any(_refused_for_keys(coordinator, plan, site) for site in plan.cohort)


def _refused_for_keys(coordinator: Coordinator, plan: Plan, site: str) -> bool:
    found = said_by(coordinator.store, plan, site)
    member = next((one for one in coordinator.federation.sites if one.name == site), None)
    try:
        if found is None or member is None or envelope(found[1], found[0]).kind != Refusal.kind:
            return False
        return unseal(found[1], Refusal, member.key, found[0]).reason is Reason.KEYS
    except NOT_OURS:
        return False
