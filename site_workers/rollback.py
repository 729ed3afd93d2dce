"""Is this folder older than what the site has sent? Then it was restored from a backup, and its ledger has forgotten.

The witness is the site itself: its own signed answers in the store, and in the commits. One that the outbox does not have was
sent by a later copy of this folder, whose charges are not in this copy's ledger.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedround import layout
from fedround.errors import ContractError, SetupError, TrustError
from fedround.signing import MAX_DOCUMENT_BYTES, unseal
from fedround.types import EvaluationAnswer, Reason, Refusal, Update
from site_workers import outbox
from site_workers.authorise import Order, refuse
from site_workers.site import Site


def refusal(site: Site, order: Order) -> Refusal | None:
    """A refusal, if this folder does not know of an answer that the site has given in the plan's run."""
    if next(forgotten(site, order.plan.run), None) is None and not _forgotten_by_commit(site, order):
        return None
    return refuse(site, order, Reason.ROLLBACK, "the site's folder is older than what it has sent: restored from a backup")


def require_newest(site: Site) -> None:
    """Raises SetupError, with what to do, if this folder does not know of every answer that the site has given."""
    if (found := list(forgotten(site))) != []:
        raise SetupError(
            f"{site.folder} is older than what the site has sent: {len(found)} of its signed answers in the store are not in "
            f"its outbox, first '{found[0]}'. It was restored from a backup, and its ledger has forgotten what they cost. "
            "Restore a newer copy; if there is none, see 'Back up' in docs/operating.md")


def forgotten(site: Site, run: str | None = None) -> Iterator[str]:
    """The keys of answers in the store, signed by this site's key, that its outbox does not have."""
    prefix = layout.site_prefix(site.name) + ("" if run is None else f"{run}/")
    for key in site.store.list(prefix):
        if key.endswith("/answer.json") and not outbox.has(site.folder, key) and _is_ours(site, key):
            yield key


def _is_ours(site: Site, key: str) -> bool:
    """Whoever owns the bucket can put there what he likes; and a key that was replaced signed for another folder."""
    document = site.store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
    for kind, body in (("update", Update), ("evaluation", EvaluationAnswer)):
        try:
            return unseal(kind, document, body, site.identity.key, key).site == site.name
        except (TrustError, ContractError):
            continue
    return False


def _forgotten_by_commit(site: Site, order: Order) -> bool:
    """The plan's parent holds an update that this site's key signed for, and there is none for that round here."""
    commit = order.parent
    ours = any(ledger.site == site.name and ledger.key == site.identity.key for ledger in commit.ledgers)
    return (ours and any(update.site == site.name for update in commit.updates)
            and next(outbox.answers(site.folder, commit.run, "train", commit.round), None) is None)
