"""What the sites answered, read from the store, judged, and spooled to local disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from fedround import layout
from fedround.aggregation.rows import Row
from fedround.errors import ContractError, NotFoundError, TrustError
from fedround.signing import MAX_DOCUMENT_BYTES, digest
from fedround.records import CommittedRefusal, EvaluationAnswer, Refusal, Rejection, Update
from infra.federation_log import read_log
from tasks import ledgers
from tasks.coordinator import Coordinator
from tasks.plan import Planned
from tasks.rows import row_of
from validation.updates import read_answer

POLL_S, MAX_POLL_S = 0.3, 2.0     # asked often at first: most rounds are short; then less and less


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
    def updates(self) -> dict[str, Update]:
        """The admitted updates, by site."""
        return {site: admitted.answer for site, admitted in self.admitted.items() if isinstance(admitted.answer, Update)}

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


def _read(coordinator: Coordinator, planned: Planned, site: str, into: Collected) -> None:
    plan = planned.plan
    if (document := _document(coordinator, planned, site)) is None:
        return
    try:
        answer = read_answer(document, plan, planned.digest, coordinator.federation.site(site),
                             coordinator.federation.revoked)
        if isinstance(answer, Refusal):
            into.refused[site] = answer, CommittedRefusal(site=site, answer=digest(document), reason=answer.reason)
        else:
            log = read_log(coordinator.store, coordinator.identity.key, plan.log.number)
            ledgers.check(planned, answer, coordinator.federation.site(site), log)
            row = row_of(coordinator, planned, answer, coordinator.federation.site(site).weight) if isinstance(
                answer, Update) else None
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
