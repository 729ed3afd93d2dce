"""The site's audit log: what was asked, what was decided, what was spent, what left. For the operator and the auditor.

audit.jsonl in the site's folder is append-only and hash-chained (`fedround.privacy.chain`), has mode 0600 and never leaves.
Every line is on the disk before the thing that it reports happens: "asked" before the ledger is charged, "left" before the
first byte goes. So a crash can leave a line about something that did not happen, and never the reverse. `verify` compares the
log with the ledger and the outbox, and so notices lines that were cut off its end. It cannot notice somebody who rewrites all
three.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fedround.errors import AuditError
from fedround.privacy import chain, ledger
from fedround.privacy.entries import Charge, Lot, Rows
from fedround.privacy.spec import Mechanism
from fedround.values import LARGEST_WHOLE, Attempt, Digest, Name, PublicKey, Purpose, Round, Value
from infra.settings import SiteSettings, load_toml
from site_workers import outbox
from site_workers.safe import Safe

_UTC = "%Y-%m-%dT%H:%M:%SZ"


class _Event(Value):
    utc: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class _AboutPlan(_Event):
    plan: Digest


class Started(_Event):
    """A process of the site began to serve, under this policy file."""

    what: Literal["started"] = "started"
    policy: Digest
    version: str


class Approved(_Event):
    """The operator approved a file."""

    what: Literal["approved"] = "approved"
    kind: Literal["recipe", "contract"]
    file: Digest


class Withdrawn(_Event):
    """The operator took an approval back."""

    what: Literal["withdrawn"] = "withdrawn"
    kind: Literal["recipe", "contract"]
    file: Digest


class Asked(_AboutPlan):
    """Somebody who reaches the API named a plan. The coordinator `by` has signed that plan for this site."""

    what: Literal["asked"] = "asked"
    federation: Name
    run: Name
    round: Round
    attempt: Attempt
    purpose: Purpose
    by: PublicKey


class TurnedAway(_Event):
    """Somebody who reaches the API asked for something that does not hold. The site did nothing and answered nothing."""

    what: Literal["turned away"] = "turned away"
    problem: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,60}$")]
    """The kind of error; the sentence is in the site's log."""
    run: Name | None = None
    round: Round | None = None


class Decided(_AboutPlan):
    """What the site will do about a plan: "carry out", "send again", or the reason code of a refusal."""

    what: Literal["decided"] = "decided"
    decision: Annotated[str, StringConstraints(max_length=40)]


class Spent(_AboutPlan):
    """What was charged to the ledger for a plan, and where the ledger ended then."""

    what: Literal["spent"] = "spent"
    mechanisms: tuple[Mechanism, ...]
    ledger_head: Digest
    campaign: tuple[Lot, ...] = ()
    """What was to be set aside, if it was the first of its campaign."""
    rows: tuple[Rows, ...] = ()


Told = Literal["how many ids", "which ids both have", "randomised labels", "scores"]


class Disclosed(_AboutPlan):
    """What one other member is about to learn of single customers. But for the labels no epsilon is about it."""

    what: Literal["disclosed"] = "disclosed"
    peer: Name
    purpose: Name
    told: Told
    count: Annotated[int, Field(ge=0, le=LARGEST_WHOLE)]
    """Of how many customers; of "which ids both have": so many ids the peer may try."""


class Left(_Event):
    """An object is about to be uploaded. Sent again, it is written again."""

    what: Literal["left"] = "left"
    plan: Digest | None
    """None: the new key of a rotation, which no plan asked for."""
    kind: Annotated[str, StringConstraints(max_length=40)]
    key: str
    sha256: Digest
    size_bytes: Annotated[int, Field(ge=0, le=LARGEST_WHOLE)]


class Recovered(_Event):
    """A charge that the ledger had forgotten is about to be written into it again (`site_workers.recover`)."""

    what: Literal["recovered"] = "recovered"
    plan: Digest | None
    """None: which plan it was is no longer known."""
    mechanisms: tuple[Mechanism, ...]
    charges: Annotated[int, Field(ge=1, le=LARGEST_WHOLE)]
    """How many the ledger then has."""


class Found(_Event):
    """An answer that the log does not know to have left: the log replaces a lost one, or is an older copy from a backup."""

    what: Literal["found"] = "found"
    key: str
    sha256: Digest


Event = Started | Approved | Withdrawn | Asked | TurnedAway | Decided | Spent | Disclosed | Left | Recovered | Found


class _Opening(chain.Line):
    format: Literal["fedround-audit/1"] = "fedround-audit/1"
    site: Name
    utc: str
    charges: Annotated[int, Field(ge=0, le=LARGEST_WHOLE)]
    """How many charges the ledger had when the log began."""


class _Entry(chain.Line):
    event: Annotated[Event, Field(discriminator="what")]


_KIND = chain.Kind(
    name="audit log", opening=_Opening, entry=_Entry, content="event", error=AuditError,
    if_lost="restore it from your backup; if there is none, begin a new one with 'fedround site audit --begin'")


def utc(now: datetime) -> str:
    """A time as the log writes it."""
    return now.strftime(_UTC)


def begin(safe: Safe, site: str, now: datetime, book: Path) -> None:
    """Begin a site's log. Its first event counts what its ledger and its outbox hold already.

    Raises AuditError if there is a log.
    """
    charges = len(ledger.read(book).entries) if book.exists() else 0
    chain.create(_KIND, _path(safe.folder), {"format": "fedround-audit/1", "site": site, "utc": utc(now), "charges": charges})
    record(safe.folder, *_found(outbox.entries(safe), now))


def recovered(folder: Path) -> int:
    """How many charges the ledger had when `recover` last wrote to it; 0: it never did."""
    return max((event.charges for event in read(folder) if isinstance(event, Recovered)), default=0)


def find_again(safe: Safe, now: datetime) -> None:
    """Record the answers that the outbox says have left, and the log does not."""
    logged = _logged(read(safe.folder))
    record(safe.folder, *(found for found in _found((entry for entry in outbox.entries(safe) if entry.sent), now)
                     if (found.key, found.sha256) not in logged))


def record(folder: Path, *events: Event) -> None:
    """Write events down, durably when this returns. Raises SetupError without a log, AuditError if its last line is not
    ours, PrivacyError if it cannot be written: then nothing may go on.
    """
    if events:
        chain.append(_KIND, _path(folder), *(event.model_dump(mode="json") for event in events))


def read(folder: Path) -> tuple[Event, ...]:
    """All events. Raises AuditError if any byte or line was altered, removed from the middle, or moved."""
    return tuple(entry.event for entry in chain.read(_KIND, _path(folder)).entries)


def leaving(entry: outbox.Entry, now: datetime) -> list[Left]:
    """What leaves when this entry of the outbox is uploaded: the tensors, and then the answer that commits to them."""
    return [Left(utc=utc(now), plan=entry.body.plan, kind=kind, key=key, sha256=sha256, size_bytes=size)
            for kind, key, sha256, size in _objects(entry)]


def _found(entries: Iterable[outbox.Entry], now: datetime) -> Iterator[Found]:
    return (Found(utc=utc(now), key=key, sha256=sha256) for entry in entries for _, key, sha256, _ in _objects(entry))


def _logged(events: Iterable[Event]) -> set[tuple[str, str]]:
    """Keys and digests of the answers and tensors that the log says have left."""
    return {(event.key, event.sha256) for event in events
            if isinstance(event, Found) or (isinstance(event, Left) and event.plan is not None)}


def _objects(entry: outbox.Entry) -> Iterator[tuple[str, str, str, int]]:
    answer = entry.answer
    if entry.payload_key is not None and (said := entry.body.payload) is not None:
        yield "file" if entry.body.update is None else "tensors", entry.payload_key, said.sha256, said.size_bytes
    yield entry.kind, entry.answer_key, hashlib.sha256(answer).hexdigest(), len(answer)


def verify(safe: Safe) -> tuple[Event, ...]:
    """All events of a log that agrees with the ledger and the outbox beside it.

    Raises AuditError, or LedgerError, with the first thing that does not agree and what to do.
    """
    folder = safe.folder
    log = chain.read(_KIND, _path(folder))
    events = tuple(entry.event for entry in log.entries)
    for problem in (*_against_the_ledger(folder, log.opening.charges, events), *_against_the_outbox(safe, events)):
        raise AuditError(f"{_path(folder)}: {problem}; restore this folder's newest backup, audit log, ledger and outbox "
                         "together, or find out who changed them. Until then, do not serve")
    return events


def _against_the_ledger(folder: Path, before: int, events: tuple[Event, ...]) -> Iterator[str]:
    settings = load_toml(SiteSettings, folder / "site.toml")
    book = ledger.read(settings.data.ledger_file(folder))
    heads, charges = set(book.heads), book.charges
    lines = book.entries
    asked = {event.plan for event in events if isinstance(event, Asked | Recovered)}
    again = {(charge.plan, charge.mechanisms) for charge in charges}
    recovered = max((number for number, event in enumerate(events) if isinstance(event, Recovered)), default=0)
    for charge in lines[before:]:
        if isinstance(charge, Charge) and charge.plan not in asked and charge.federation == settings.federation:
            yield (f"the ledger was charged for round {charge.round} of run '{charge.run}', and the log does not know that "
                   "anybody asked: its last lines are missing")
    for number, event in enumerate(events):
        if isinstance(event, Spent) and event.ledger_head not in heads and not (
                number < recovered and (event.plan, event.mechanisms) in again):
            yield f"the ledger no longer holds what was spent on {event.utc}: it was cut, or is an older copy"
        if isinstance(event, Recovered) and len(lines) < event.charges:
            yield f"the ledger no longer holds what was recovered on {event.utc}: it was cut, or is an older copy"
    if len(lines) < before:
        yield "the ledger has fewer charges than when the log began: it was cut, or is an older copy"


def _against_the_outbox(safe: Safe, events: tuple[Event, ...]) -> Iterator[str]:
    logged = _logged(events)
    kept = set()
    for entry in outbox.entries(safe):
        for _, key, sha256, _ in _objects(entry):
            kept.add((key, sha256))
            if entry.sent and (key, sha256) not in logged:
                yield f"the outbox says that '{key}' has left, and the log does not: its last lines are missing"
    for key, _ in sorted(logged - kept):
        yield f"the log says that '{key}' has left, and the outbox no longer holds that answer"


def _path(folder: Path) -> Path:
    return folder / "audit.jsonl"
