"""How long the sites' ledgers are, as the sites said. A ledger only grows: a shorter one was restored from a backup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedround.errors import TrustError
from fedround.federation import Federation, SiteEntry
from fedround.federation_log import Logged, handed_over
from fedround.records import Answer, Commit, SiteLedger
from fedround.spoken import how_many


def keys_of(member: SiteEntry, log: Sequence[Logged]) -> frozenset[str]:
    """The member's key, and its earlier keys that handed over to it: they share a ledger."""
    return frozenset({member.key, *handed_over(log, member.key)})


def check(parent: Commit, answer: Answer, member: SiteEntry, log: Sequence[Logged]) -> None:
    """Raises TrustError if the site's ledger is not longer than the run's history says it was.

    Every answer about rows is charged, so the ledger of a later one is longer. The history holds only the ledger's length and
    digest. That the earlier lines are unchanged is checked by the site itself (`site_workers.rollback`).
    """
    known = {ledger.site: ledger for ledger in parent.ledgers}.get(member.name)
    least = 0 if known is None else known.charges + (answer.mechanisms != ())
    if known is not None and known.key in keys_of(member, log) and answer.charges < least:
        raise TrustError(f"site '{member.name}' round {answer.round}: its ledger has {how_many(answer.charges, 'charge')}, "
                         f"and had {known.charges} in an earlier round: restored from a backup, it has forgotten what was "
                         "spent")


def after(parent: Commit, federation: Federation, answers: Mapping[str, Answer]) -> tuple[SiteLedger, ...]:
    """What the commit says of the ledgers: the parent's entries, updated by this round's answers."""
    known = {ledger.site: ledger for ledger in parent.ledgers}
    for site, answer in answers.items():
        known[site] = SiteLedger(site=site, key=federation.site(site).key, charges=answer.charges, head=answer.ledger_head)
    return tuple(ledger for _, ledger in sorted(known.items()))
