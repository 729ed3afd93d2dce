"""What the sites answered, read from the store, judged, and spooled to local disk."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedround import layout
from fedround.aggregation.engine import Row
from fedround.errors import ContractError, NotFoundError, StoreError, TrustError
from fedround.signing import MAX_DOCUMENT_BYTES, digest
from fedround.types import CommittedRefusal, EvaluationAnswer, Refusal, Rejection, Update
from tasks.coordinator import Coordinator
from tasks.plan import Planned
from validation.updates import check_payload, read_answer

POLL_S, MAX_POLL_S = 0.3, 2.0     # asked often at first: most rounds are short; then less and less
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class Admitted:
    """An answer that may be used: its signed document, the digest of it, and for an update the spooled row."""

    answer: Update | EvaluationAnswer
    digest: str
    row: Row | None


@dataclass(frozen=True)
class Collected:
    """Every site of the cohort is in exactly one of the four."""

    admitted: dict[str, Admitted] = field(default_factory=dict)
    refused: dict[str, tuple[Refusal, CommittedRefusal]] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def answered(self) -> set[str]:
        """The sites that have said something."""
        return self.admitted.keys() | self.refused.keys() | self.rejected.keys()


async def collect(
    coordinator: Coordinator,
    planned: Planned,
    finished: Callable[[set[str]], Awaitable[set[str]]],
    progress: Callable[[Collected], None],
) -> Collected:
    """Wait until every site has ended its flow run or the deadline is over; read each answer when its site has ended.

    `finished` tells which of some sites have ended; the answer itself is only what lies in the store. At the deadline the
    store is asked once more about everybody, so an answer whose signal was lost still counts.
    """
    collected = Collected()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + planned.plan.deadline_s
    cohort, looked, pause = set(planned.plan.cohort), set[str](), POLL_S
    while looked < cohort:
        late = loop.time() >= deadline
        ended = cohort - looked if late else await finished(cohort - looked)
        for site in sorted(ended):
            _read(coordinator, planned, site, collected)
            progress(collected)
        looked |= ended
        if looked < cohort:
            await asyncio.sleep(pause)
            pause = POLL_S if ended else min(pause * 1.2, MAX_POLL_S)
    return replace(collected, missing=tuple(sorted(cohort - collected.answered)))


def take_late(coordinator: Coordinator, planned: Planned, collected: Collected) -> Collected:
    """Look once more for those who had not answered at the deadline: some were just sending."""
    for site in collected.missing:
        _read(coordinator, planned, site, collected)
    return replace(collected, missing=tuple(site for site in collected.missing if site not in collected.answered))


def read_again(coordinator: Coordinator, planned: Planned, missing: tuple[str, ...]) -> Collected:
    """What the sites of a committed round said, those excepted that were late then."""
    collected = Collected(missing=missing)
    for site in sorted(set(planned.plan.cohort) - set(missing)):
        _read(coordinator, planned, site, collected)
    return collected


def clear_spool(coordinator: Coordinator, planned: Planned) -> None:
    """Drop the spooled rows of a round that is committed."""
    shutil.rmtree(_spool(coordinator, planned), ignore_errors=True)


def _read(coordinator: Coordinator, planned: Planned, site: str, into: Collected) -> None:
    plan = planned.plan
    if (document := _document(coordinator, planned, site)) is None:
        return
    try:
        answer = read_answer(document, plan, planned.digest, coordinator.federation.site(site))
        if isinstance(answer, Refusal):
            into.refused[site] = answer, CommittedRefusal(site=site, answer=digest(document), reason=answer.reason)
        else:
            row = _spool_row(coordinator, planned, answer) if isinstance(answer, Update) else None
            into.admitted[site] = Admitted(answer, digest(document), row)
    except (TrustError, ContractError, NotFoundError) as error:
        into.rejected[site] = Rejection(site=site, reason=str(error)[:300])


def _document(coordinator: Coordinator, planned: Planned, site: str) -> bytes | None:
    """What the site said: its answer, or without one its last refusal."""
    plan = planned.plan
    where = site, plan.run, plan.round, plan.attempt, plan.purpose
    try:
        return coordinator.store.get(layout.answer(*where), max_bytes=MAX_DOCUMENT_BYTES)
    except NotFoundError:
        keys = list(coordinator.store.list(layout.refusals(*where)))
        return coordinator.store.get(keys[-1], max_bytes=MAX_DOCUMENT_BYTES) if keys else None


def _spool_row(coordinator: Coordinator, planned: Planned, update: Update) -> Row:
    """Bring a payload to local disk in chunks, check it there, and describe it as a row of the aggregation."""
    plan = planned.plan
    path = _spool(coordinator, planned) / f"{update.site}.safetensors"
    if not (path.exists() and _sha256(path) == update.payload.sha256):
        _download(coordinator, layout.delta(update.site, plan.run, plan.round, plan.attempt),
                  update.payload.size_bytes, path)
    offset = check_payload(path, update, plan)
    return Row(update.site, coordinator.federation.site(update.site).weight, path, offset)


def _download(coordinator: Coordinator, key: str, size_bytes: int, path: Path) -> None:
    """In chunks, and never much more than what was announced."""
    written = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while written <= size_bytes:
                chunk = coordinator.store.get_range(key, written, _CHUNK_BYTES)
                written += file.write(chunk)
                if len(chunk) < _CHUNK_BYTES:
                    break
    except OSError as error:
        raise StoreError(f"cannot spool updates to {path.parent}: {error.strerror}; make room and run the round again; "
                         "nothing is lost") from None
    if written != size_bytes:
        raise ContractError(f"'{key}' has {'more than ' if written > size_bytes else ''}{min(written, size_bytes)} bytes, "
                            f"its manifest says {size_bytes}")


def _spool(coordinator: Coordinator, planned: Planned) -> Path:
    return coordinator.folder / "spool" / planned.digest[:32]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
