"""Members that a rehearsal makes up, where numbers are added up under masks: they offer keys and deal shares, and no more.

They live in the rehearsal's folder, under the others' names, with keys and secrets that are drawn for it. For one sum.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fedround import __version__, codec, layout
from fedround.errors import ContractError
from fedround.records import Answer, DealShares, OfferKeys, Placed
from fedround.secure_sums.dealing import deal
from fedround.secure_sums.keys import Roster, offer
from fedround.sightings import sign_sighting
from fedround.signing import Identity, digest, seal
from infra.documents import read_document
from infra.epochs import read_offered
from infra.history import Committed
from site_workers import round as site_round
from site_workers.site import Site
from tasks.ask import conclude
from tasks.collect import take_late
from tasks.collected import Collected
from tasks.coordinator import Coordinator
from tasks.plan import Planned, compose, publish_plan
from tasks.requests import RoundRequest


@dataclass(frozen=True)
class MadeUpMember:
    """One of the others, made up."""

    identity: Identity
    noise_secret: bytes


Others = Mapping[str, MadeUpMember]


def made_up(names: Collection[str]) -> Others:
    """Anew, from the operating system."""
    return {name: MadeUpMember(Identity.generate(), secrets.token_bytes(32)) for name in names}


def set_up(coordinator: Coordinator, head: Committed, stand_in: Site, others: Others) -> None:
    """Keys of all, and shares of them, for one sum: the site's as it would make them, with the others made up.

    Raises ContractError if the site refuses to take part in keys.
    """
    request, members = RoundRequest(run=head.commit.run), coordinator.federation.sites
    asked = publish_plan(coordinator, head, compose(coordinator, head, request, OfferKeys(epoch=1, slots=1)))
    epoch = bytes.fromhex(asked.digest)
    offered = _concluded(coordinator, asked, stand_in, {
        name: offer(other.noise_secret, epoch, 1).to_bytes() for name, other in others.items()}, others)
    roster = _roster(coordinator, asked, offered)
    if (how := coordinator.federation.combine) is None:
        raise ContractError("these terms add nothing up, so that nobody needs keys")
    asked = publish_plan(coordinator, head, compose(coordinator, head, request, DealShares(
        offered=offered, members=len(members), slots=1)))
    _concluded(coordinator, asked, stand_in, {
        name: deal(other.noise_secret, epoch, name, roster, how.threshold).to_bytes() for name, other in others.items()},
        others)


def _roster(coordinator: Coordinator, asked: Planned, offered: Placed) -> Roster:
    plan = asked.plan
    return read_offered(coordinator.store, coordinator.key, coordinator.federation, plan.run,
                        plan.federation_digest, offered).roster


def _concluded(coordinator: Coordinator, asked: Planned, stand_in: Site, bodies: Mapping[str, bytes],
               others: Others) -> Placed:
    """Let all answer a question about keys; its finding."""
    plan = asked.plan
    for name, body in bodies.items():
        _say(coordinator, asked, name, others[name].identity, body)
    site_round.answer(stand_in, site_round.SiteRequest(
        run=plan.run, round=plan.round, attempt=plan.attempt, purpose=plan.asks.kind), lambda: False)
    collected = take_late(coordinator, asked, Collected(missing=plan.cohort))
    if (no := collected.refused.get(stand_in.name)) is not None:
        raise ContractError(f"this site takes no part in keys for sums ({no.refusal.reason}: {no.refusal.detail})")
    conclude(coordinator, asked, collected)
    return Placed(round=plan.round, attempt=plan.attempt, digest=read_document(
        coordinator.store, layout.finding(plan.run, plan.round, plan.attempt, plan.asks.kind), digest))


def _say(coordinator: Coordinator, asked: Planned, name: str, identity: Identity, body: bytes) -> None:
    plan = asked.plan
    where = name, plan.run, plan.round, plan.attempt, plan.asks.kind
    answer = Answer(
        federation=plan.federation, run=plan.run, round=plan.round, attempt=plan.attempt, site=name, plan=asked.digest,
        asked=plan.asks.kind, log=plan.log, tool_version=__version__, charges=0, ledger_head="0" * 64,
        sighting=sign_sighting(plan, asked.digest, name, identity), material=codec.payload_of(body))
    coordinator.store.put_once(layout.payload(*where), body)
    coordinator.store.put_once(layout.answer(*where), seal(answer, identity))
