"""Is this folder older than what the site has sent? Then it was restored from a backup, and its ledger has forgotten.

The witnesses are the site itself and the commits: its own signed answers in the store that the outbox does not have, and what
the coordinator signed of its ledger and its updates. `site_workers.recover` makes such a folder good again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedround import layout
from fedround.errors import SetupError
from fedround.federation_log import handed_over, took_over
from fedround.privacy import ledger
from fedround.records import ANSWERS, Commit, Reason, Refusal, SiteAnswer
from fedround.signing import MAX_DOCUMENT_BYTES, envelope, unseal
from fedround.spoken import typed
from infra.documents import NOT_OURS
from infra.federation_log import read_log, signed_length
from site_workers import audit, outbox
from site_workers.authorise import Order, refuse
from site_workers.site import Site


@dataclass(frozen=True)
class SentBefore:
    """Something that this site's key signed, as it lies in the store."""

    key: str
    document: bytes
    answer: SiteAnswer


def refusal(site: Site, order: Order) -> Refusal | None:
    """A refusal if this folder is behind what the plan's parent says of its ledger, or has forgotten an answer to the round.

    One case is not noticed before the next start, which looks at everything (`require_newest`): the folder was restored while
    its process was running, and no commit of this run holds what it has forgotten.
    """
    plan, keys = order.plan, own_keys(site, order.plan.log.number)
    looked_at = (layout.answers(site.name, plan.run, plan.round, plan.asks.kind) if plan.agreed.combine is None
                 else layout.of_run(site.name, plan.run))       # what keys were used for is not told by one round
    if not _is_behind(site, order.parent, keys) and next(forgotten(site, keys, looked_at), None) is None:
        return None
    return refuse(site, order, Reason.ROLLBACK, "the site's folder is older than what it has sent: restored from a backup")


def require_newest(site: Site) -> None:
    """Raises SetupError, with what to do, if this folder does not know of every answer that the site has given."""
    if (found := list(forgotten(site, own_keys(site, signed_length(site.store, site.settings.coordinator))))) != []:
        raise SetupError(
            f"{site.folder} is older than what the site has sent: {len(found)} of its signed answers in the store are not in "
            f"its outbox, first '{found[0].key}'. It was restored from a backup; its ledger has forgotten what they cost. "
            f"Restore a newer copy; if there is none: 'fedround site recover {typed(site.folder)}'")


def own_keys(site: Site, log: int) -> frozenset[str]:
    """The site's key, and those before and after it in the federation log up to entry `log`: they share a ledger.

    One after it is the site's, too: a folder from before the site took its next key has forgotten what that one signed.
    """
    key, entries = site.identity.key, read_log(site.store, site.settings.coordinator, log)
    return frozenset({key, *handed_over(entries, key), *took_over(entries, key)})


def forgotten(site: Site, keys: frozenset[str], prefix: str | None = None) -> Iterator[SentBefore]:
    """The answers in the store that one of `keys` signed for what lies there, and that the outbox does not have.

    prefix: only those whose key begins so.
    """
    return (sent for sent in not_kept(site, keys, prefix) if not isinstance(sent.answer, Refusal))


def not_kept(site: Site, keys: frozenset[str], prefix: str | None = None) -> Iterator[SentBefore]:
    """The same, with refusals, which cost nothing."""
    for key in site.store.list(prefix or layout.site_prefix(site.name)):
        if _may_be_ours(site, key) and not outbox.has(site.safe, key) and (sent := _ours(site, keys, key)) is not None:
            yield sent


def _may_be_ours(site: Site, key: str) -> bool:
    """Whether this site would use such a name for an answer or a refusal. Objects with other names are not looked at."""
    said = layout.parse_answer(key) or layout.parse_refusal(key)
    return said is not None and said[0] == site.name


def _ours(site: Site, keys: frozenset[str], key: str) -> SentBefore | None:
    """The answer under `key`, if this site signed it: whoever owns the bucket can put and move anything there."""
    try:
        document = site.store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
        said = envelope(document, key)
        if said.key not in keys or said.kind not in ANSWERS:
            return None
        answer = unseal(document, ANSWERS[said.kind], said.key, key)
    except NOT_OURS:
        return None
    return SentBefore(key, document, answer) if answer.site == site.name and _belongs(answer, key) else None


def _belongs(answer: SiteAnswer, key: str) -> bool:
    """Whether an answer lies where its site put it."""
    where = answer.site, answer.run, answer.round, answer.attempt, answer.asked
    if isinstance(answer, Refusal):
        said = layout.parse_refusal(key)
        return said is not None and said[:-1] == where
    return key == layout.answer(*where)


def _is_behind(site: Site, commit: Commit, keys: frozenset[str]) -> bool:
    """Whether our ledger is behind the commit, which names its length and head: ours is shorter, or continued otherwise.

    What `site_workers.recover` has written again has other heads. The audit log knows how many charges that concerns.
    """
    heads = ledger.read(site.ledger).heads
    for known in commit.ledgers:
        if known.site != site.name or known.key not in keys:
            continue
        if known.charges >= len(heads):
            return True
        if heads[known.charges] != known.head and known.charges > audit.recovered(site.folder):
            return True
    return False
