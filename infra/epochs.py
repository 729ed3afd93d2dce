"""An epoch of keys for secure sums, as the others' signed words give it: read by sites, by the coordinator and by auditors.

The coordinator hands on what each site said (`layout.relayed`): sites cannot read each other's. Nothing is believed of it but
what the site signed with the key that the federation file names, in answer to the very plan that the finding names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from fedround import layout
from fedround.errors import ChainError, TrustError
from fedround.federation import Federation
from fedround.records import Answer, Countersign, DealShares, Finding, OfferKeys, Placed, Plan, Reveal, Told
from fedround.secure_sums.dealing import Dealt
from fedround.secure_sums.keys import Keys
from fedround.sightings import is_sighting
from fedround.signing import digest, unseal
from fedround.spoken import how_many
from fedround.values import Digest, Purpose
from infra.documents import read_named
from infra.history import read_plan_at
from infra.stores import ObjectStore

T = TypeVar("T")

MOST_ANSWERS = 1 << 26
"""Bytes of all signed answers to one plan."""


@dataclass(frozen=True)
class Offered:
    """Who offered which keys."""

    epoch: Digest
    """Of the plan that asked for them: it names the epoch."""
    slots: int
    roster: Mapping[str, Keys]


@dataclass(frozen=True)
class Epoch:
    """Keys, and the shares that were dealt of their secrets."""

    dealt_at: Placed
    offered: Offered
    dealt: Mapping[str, Dealt]

    @property
    def is_whole(self) -> bool:
        """Whether everybody who offered keys dealt shares: otherwise no sum can be read, and new keys are needed."""
        return self.dealt.keys() == self.offered.roster.keys()


def read_offered(store: ObjectStore, coordinator: str, members: Federation, run: str, agreed: Digest,
                 placed: Placed) -> Offered:
    """The keys that a finding of the run names.

    members, agreed: the federation file, and its digest: keys are made anew when it changes.

    coordinator: its public key.
    Raises TrustError or ChainError for what does not hold, ContractError for what are no keys.
    """
    asked, finding = concluded(store, coordinator, run, agreed, placed, "keys")
    slots = asked.asks.slots if isinstance(asked.asks, OfferKeys) else 0

    def keys_of(body: bytes, source: str) -> Keys:
        found = Keys.from_bytes(body, source)
        if len(found.slots) != slots:
            raise TrustError(f"{source}: has {how_many(len(found.slots), 'slot')}, asked were {slots}")
        return found

    return Offered(finding.plan, slots, {told.site: relayed(store, members, asked, finding.plan, told, keys_of)
                                         for told in finding.answers})


def read_epoch(store: ObjectStore, coordinator: str, members: Federation, run: str, agreed: Digest,
               placed: Placed) -> Epoch:
    """Keys and shares, from the finding of the question to deal shares. Raises as `read_offered`."""
    asked, finding = concluded(store, coordinator, run, agreed, placed, "shares")
    if not isinstance(asked.asks, DealShares):
        raise TrustError(f"shares of run '{run}': the finding is of another question")
    offered = read_offered(store, coordinator, members, run, agreed, asked.asks.offered)
    if strangers := {told.site for told in finding.answers} - offered.roster.keys():
        raise TrustError(f"shares of epoch {offered.epoch[:16]}: dealt by {', '.join(sorted(strangers))}, without keys")
    dealt = {told.site: relayed(store, members, asked, finding.plan, told, Dealt.from_bytes) for told in finding.answers}
    return Epoch(placed, offered, dealt)


def who_dealt(store: ObjectStore, coordinator: str, run: str, agreed: Digest, placed: Placed) -> frozenset[str]:
    """Who dealt shares, by the finding that a plan's slot names; what they dealt is not read. Raises as `read_offered`."""
    return frozenset(told.site for told in concluded(store, coordinator, run, agreed, placed, "shares")[1].answers)


known_epoch = functools.lru_cache(maxsize=4)(read_epoch)
"""The same, and what this process has read is not read again: an epoch is named by content. An auditor reads it anew."""


def relayed(store: ObjectStore, members: Federation, asked: Plan, named: Digest, told: Told,
            read: Callable[[bytes, str], T]) -> T:
    """What one site said to a plan about keys, whose digest is `named`, as handed on: what `read` makes of its file."""
    source = f"answer of '{told.site}' about {asked.asks.kind} of run '{asked.run}'"
    answer = relayed_answer(store, members, asked, named, told, source)
    if answer.material is None:
        raise TrustError(f"{source}: it carries nothing")
    sha256 = answer.material.sha256
    return read(read_named(store, layout.relayed(asked.run, sha256), sha256, source, by="answer",
                           max_bytes=answer.material.size_bytes), source)


def relayed_answer(store: ObjectStore, members: Federation, asked: Plan, named: Digest, told: Told, source: str) -> Answer:
    """One site's signed answer to a plan, as it was handed on. Raises TrustError if it is to another plan, or of another
    site.
    """
    document = read_named(store, layout.relayed(asked.run, told.answer), told.answer, source, by="history")
    return answer_in(document, members, asked, named, told, source)


def check_answers(store: ObjectStore, members: Federation, asked: Plan, named: Digest, about: Countersign | Reveal,
                  source: str) -> None:
    """The signed answers of all whose answers are added up, in one object: a line each. Raises as `relayed_answer`."""
    body = read_named(store, layout.relayed(asked.run, about.handed_on), about.handed_on, source, by="plan",
                      max_bytes=MOST_ANSWERS)
    documents = body.split(b"\n")
    if [digest(document) for document in documents] != [told.answer for told in about.survivors]:
        raise TrustError(f"{source}: the answers that were handed on are others than those that it names")
    for document, told in zip(documents, about.survivors, strict=True):
        answer_in(document, members, asked, named, told, f"{source}, '{told.site}'")


def check_countersigned(store: ObjectStore, coordinator: str, members: Federation, reveal: Plan,
                        source: str) -> Digest | None:
    """Whether enough members have signed that these answers are added up, where the terms say so; names the plan that they
    signed. None: the terms ask for no signatures.

    Raises TrustError for what nobody signed, too few did, or where none was to be signed; ChainError for another plan.
    """
    how, asks = reveal.agreed.combine, reveal.asks
    if how is None or not isinstance(asks, Reveal) or how.is_signed != (asks.countersigned is not None):
        raise TrustError(f"{source}: the terms and the question disagree on whether members sign who is in a sum")
    if (said := asks.countersigned) is None:
        return None
    plan, named = read_plan_at(store, reveal.run, said.asked.round, said.asked.attempt, "countersign", coordinator)
    if named != said.asked.digest:
        raise ChainError(f"{source}: names another plan to sign who is in the sum than the one that lies there")
    if not isinstance(plan.asks, Countersign) or plan.asks.whose != asks.whose:
        raise TrustError(f"{source}: asks for another sum than members have signed")
    signers = {one.site for one in said.by}
    if len(signers) != len(said.by) or not signers <= set(plan.cohort):
        raise TrustError(f"{source}: counts signatures of who is in the sum twice, or of others than its members")
    for one in said.by:
        if not is_sighting(plan, named, one.site, members.site(one.site).key, one.sighting):
            raise TrustError(f"{source}: '{one.site}' did not sign who is in the sum")
    if len(signers) < how.threshold:
        raise TrustError(f"{source}: {how_many(len(signers), 'member')} signed who is in the sum, {how.threshold} must")
    return named


def answer_in(document: bytes, members: Federation, asked: Plan, named: Digest, told: Told, source: str) -> Answer:
    """One site's signed answer to a plan. Raises TrustError if it is to another plan, or of another site."""
    answer = unseal(document, Answer, members.site(told.site).key, source)
    if (answer.site, answer.plan, answer.asked) != (told.site, named, asked.asks.kind):
        raise TrustError(f"{source}: it is to another plan, or of another site")
    return answer


def concluded(store: ObjectStore, coordinator: str, run: str, agreed: Digest, placed: Placed,
           purpose: Purpose) -> tuple[Plan, Finding]:
    """A plan about keys, or of a step between two members, and its finding that `placed` names."""
    source = f"{purpose} of run '{run}'"
    key = layout.finding(run, placed.round, placed.attempt, purpose)
    finding = unseal(read_named(store, key, placed.digest, source, by="plan"), Finding, coordinator, source)
    asked, named = read_plan_at(store, run, placed.round, placed.attempt, purpose, coordinator)
    if named != finding.plan:
        raise ChainError(f"{source}: the finding is of another plan than the one that lies there")
    if asked.federation_digest != agreed:
        raise TrustError(f"{source}: made under another federation file; all begins anew when the members change")
    return asked, finding
