"""What the sites answered, read from the store, judged, and spooled to local disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from fedround import layout
from fedround.aggregation.rows import Row
from fedround.errors import NotFoundError
from fedround.federation_log import Logged
from fedround.records import Answer, CommittedRefusal, Refusal, Rejection
from fedround.signing import MAX_DOCUMENT_BYTES, digest
from fedround.values import Purpose
from infra.federation_log import read_log
from infra.history import NOT_OURS
from tasks import ledgers
from tasks.coordinator import Coordinator
from tasks.plan import Planned
from tasks.rows import row_of
from validation.updates import read_answer

_MOST_REFUSALS = 100
"""Of one plan that are looked at. A site gives one each time that somebody asks it again."""

_UNFORESEEN = (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What a mistake in the code that judges an answer raises. Not the store's errors, the disk's, or those of memory: they are
no member's.
"""

Asked = tuple[str, str, int, int, Purpose]
"""Site, run, round, attempt and purpose, as a store key names them."""

POLL_S, MAX_POLL_S = 0.3, 2.0     # asked often at first: most rounds are short; then less and less

T = TypeVar("T")

_logger = logging.getLogger("fedround.coordinator")


@dataclass(frozen=True)
class Admitted:
    """An answer that may be used: the digest of its signed document, and for an update the spooled row."""

    answer: Answer
    digest: str
    row: Row | None


@dataclass(frozen=True)
class Refused:
    """A site's "no", and what a commit says of it."""

    refusal: Refusal
    committed: CommittedRefusal


Heard = Admitted | Refused | Rejection
"""What became of what a site said."""


def _none() -> Mapping[str, T]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Collected:
    """Every site of the cohort is in exactly one of the four. Nobody can change it: what is heard later makes another one."""

    admitted: Mapping[str, Admitted] = field(default_factory=_none)
    refused: Mapping[str, Refused] = field(default_factory=_none)
    rejected: Mapping[str, Rejection] = field(default_factory=_none)
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("admitted", "refused", "rejected"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def answers(self) -> Mapping[str, Answer]:
        """What was admitted, by site, in their order."""
        return {site: admitted.answer for site, admitted in sorted(self.admitted.items())}

    @property
    def answered(self) -> frozenset[str]:
        """The sites that have said something."""
        return frozenset(self.admitted.keys() | self.refused.keys() | self.rejected.keys())

    def hearing(self, site: str, heard: Heard | None) -> Collected:
        """With what became of one site's answer; None: it has said nothing."""
        match heard:
            case Admitted():
                return replace(self, admitted={**self.admitted, site: heard})
            case Refused():
                return replace(self, refused={**self.refused, site: heard})
            case Rejection():
                return replace(self, rejected={**self.rejected, site: heard})
            case None:
                return self


async def collect(
    coordinator: Coordinator,
    planned: Planned,
    finished: Callable[[set[str]], Awaitable[set[str]]],
    progress: Callable[[Collected], None],
) -> Collected:
    """Wait until every site has ended its flow run or the deadline is over; read each answer when its site has ended.

    `finished` tells which of some sites have ended; the answer itself is only what lies in the store. At the deadline the
    store is asked once more about everybody, so an answer whose signal was lost still counts.
    Raises ChainError or TrustError if the federation log is damaged: that is no site's fault.
    """
    collected, log = Collected(), _log(coordinator, planned)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + planned.plan.deadline_s
    cohort, looked, pause = set(planned.plan.cohort), set[str](), POLL_S
    while looked < cohort:
        late = loop.time() >= deadline
        ended = cohort - looked if late else await finished(cohort - looked)
        for site in sorted(ended):
            collected = collected.hearing(site, _read(coordinator, planned, site, log))
            progress(collected)
        looked |= ended
        if looked < cohort:
            await asyncio.sleep(pause)
            pause = POLL_S if ended else min(pause * 1.2, MAX_POLL_S)
    return replace(collected, missing=tuple(sorted(cohort - collected.answered)))


def take_late(coordinator: Coordinator, planned: Planned, collected: Collected) -> Collected:
    """Look once more for those who had not answered at the deadline: some were just sending."""
    log, late = _log(coordinator, planned), collected.missing
    for site in late:
        collected = collected.hearing(site, _read(coordinator, planned, site, log))
    return replace(collected, missing=tuple(site for site in late if site not in collected.answered))


def read_again(coordinator: Coordinator, planned: Planned, missing: tuple[str, ...]) -> Collected:
    """What the sites of a committed round said, those excepted that were late then."""
    collected, log = Collected(missing=missing), _log(coordinator, planned)
    for site in sorted(set(planned.plan.cohort) - set(missing)):
        collected = collected.hearing(site, _read(coordinator, planned, site, log))
    return collected


def _log(coordinator: Coordinator, planned: Planned) -> Sequence[Logged]:
    return read_log(coordinator.store, coordinator.identity.key, planned.plan.log.number)


def _read(coordinator: Coordinator, planned: Planned, site: str, log: Sequence[Logged]) -> Heard | None:
    member = coordinator.federation.site(site)
    try:
        if (document := _document(coordinator, planned, site)) is None:
            return None
        answer = read_answer(document, planned.plan, planned.digest, member, coordinator.federation.revoked)
        if isinstance(answer, Refusal):
            return Refused(answer, CommittedRefusal(site=site, answer=digest(document), reason=answer.reason))
        ledgers.check(planned.parent.commit, answer, member, log)
        row = None if answer.update is None else row_of(coordinator, planned, site, answer.update, member.weight)
        return Admitted(answer, digest(document), row)
    except NOT_OURS as error:
        return Rejection(site=site, reason=str(error)[:300])
    except _UNFORESEEN as error:        # a mistake of ours, which one member must not use against the others
        _logger.exception("site '%s': its answer cannot be judged", site)
        return Rejection(site=site, reason=f"site '{site}' round {planned.plan.round}: its answer cannot be judged "
                                           f"({type(error).__name__}); the coordinator's log says where")


def _document(coordinator: Coordinator, planned: Planned, site: str) -> bytes | None:
    """What the site said: its answer, or without one its last refusal."""
    plan = planned.plan
    where = site, plan.run, plan.round, plan.attempt, plan.asks.kind
    try:
        return coordinator.store.get(layout.answer(*where), max_bytes=MAX_DOCUMENT_BYTES)
    except NotFoundError:
        count = _refusals(coordinator, where)
        return None if count == 0 else coordinator.store.get(layout.refusal(*where, count), max_bytes=MAX_DOCUMENT_BYTES)


def _refusals(coordinator: Coordinator, where: Asked) -> int:
    """How many refusals lie there, counted from the first: asked one by one, so that nothing else that the site has put
    there, however much and however named, is looked at.
    """
    count = 0
    while count < _MOST_REFUSALS and coordinator.store.head(layout.refusal(*where, count + 1)) is not None:
        count += 1
    return count
