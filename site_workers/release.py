"""The one door out of a site: nothing else in this package writes to the store (a test says so).

What may leave is what `SiteAnswer` can hold, signed, and the one file that an answer describes. Everything is in the
outbox, and named in the audit log, before its first byte leaves.
"""

from __future__ import annotations

import logging

from fedround import layout
from fedround.errors import ConflictError, PrivacyError
from fedround.federation_log import Rotation
from fedround.privacy.ledger import Ledger
from fedround.records import Answer, Plan, Refusal, SiteAnswer
from fedround.signing import digest, seal
from infra.stores import Metered, Traffic, publish
from site_workers import audit, outbox
from site_workers.outbox import Entry
from site_workers.site import Site

log = logging.getLogger("fedround.site")


def release(site: Site, plan: Plan, answer: SiteAnswer, payload: bytes | None = None, book: Ledger | None = None) -> None:
    """Sign, keep, then upload: payload first, answer last.

    book: the ledger that was charged for the answer.
    Raises PrivacyError, and keeps and sends nothing, if the ledger holds no charge for this plan and these mechanisms: what
    leaves is what was paid for. Raises StoreError if the store does not take it. The answer then stays in the outbox, and
    `resend` sends the same bytes.
    """
    if isinstance(answer, Answer) and (plan.asks.is_of_rows or answer.mechanisms):
        paid = {(charge.plan, charge.mechanisms) for charge in (book.charges if book is not None else ())}
        if (answer.plan, answer.mechanisms) not in paid:
            raise PrivacyError(f"round {answer.round} of run '{answer.run}': the answer is noised otherwise than the ledger "
                               "was charged for; nothing leaves")
    sealed = seal(answer, site.identity)
    if isinstance(answer, Refusal):
        outbox.write_refusal(site.safe, plan, sealed)
        for waiting in outbox.unsent_refusals(site.safe, plan):       # who reads them stops at the first that is missing
            send(site, waiting)
    else:
        send(site, outbox.write(site.safe, plan, sealed, payload))


def hand_over(site: Site, rotation: Rotation) -> None:
    """Publish which key follows the old one, signed by the old one: two public keys and no more."""
    sealed, key = seal(rotation, site.identity), layout.rotation(site.name, rotation.new)
    audit.record(site.folder, audit.Left(utc=audit.utc(site.clock()), plan=None, kind="rotation", key=key,
                                         sha256=digest(sealed), size_bytes=len(sealed)))
    publish(site.store, key, sealed)


def send(site: Site, entry: Entry) -> None:
    """Upload an entry of the outbox. What is there already is left as it is, and a large payload whose sending was cut goes
    on where it was. Raises ConflictError for other bytes.
    """
    if entry.sent:
        return
    audit.record(site.folder, *audit.leaving(entry, site.clock()))
    store = Metered(site.store, traffic := Traffic())
    said, payload = entry.body.payload, entry.payload
    if entry.payload_key is not None and said is not None and payload is not None:
        publish(store, entry.payload_key, payload, sha256=said.sha256, journal=entry.journal)
    publish(store, entry.answer_key, entry.answer)
    entry.mark_sent()
    log.info("sent %s: %d bytes, %.1f s of waiting for the store, %d round trips", entry.answer_key, traffic.sent_bytes,
             traffic.seconds, traffic.calls)


def resend(site: Site) -> int:
    """Send what an earlier process could not; returns how many answers.

    Whoever owns the bucket can lay something else in an answer's place. Then that answer stays here, and the others leave.
    """
    outbox.drop_what_has_arrived(site.safe)
    sent = 0
    for entry in list(outbox.unsent(site.safe)):
        try:
            send(site, entry)
        except ConflictError as error:
            log.error("%s; this answer stays in the outbox: ask the coordinator who wrote that", error)
        else:
            sent += 1
    return sent
