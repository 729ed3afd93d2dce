"""What the sites answered, read from the store, judged, and spooled to local disk."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

from fedround import layout
from fedround.errors import SignatureError, StoreDeniedError, StoreUnavailableError, TooSlowError
from fedround.federation import Federation
from fedround.federation_log import Logged
from fedround.records import Commit, CommittedRefusal, Plan, Refusal, Rejection, SiteAnswer
from fedround.signing import MAX_DOCUMENT_BYTES, digest
from infra.documents import NOT_OURS
from infra.federation_log import read_log
from infra.stores import Metered, Patience, Traffic, judged
from tasks import ledgers
from tasks.collected import Admitted, Collected, Heard, Refused, Rejected
from tasks.coordinator import Coordinator
from tasks.documents import said_by
from tasks.plan import Planned
from tasks.rows import file_of, row_of
from tasks.sighted import shown
from tasks.spool import Workplace
from validation.material import check_form
from validation.updates import read_answer

_UNFORESEEN = (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What a mistake in the code that judges an answer raises.

Errors of the store, of the disk and of memory are not among them: no member causes those.
"""

UNREADABLE = (StoreUnavailableError, StoreDeniedError)
"""What reading raises if an object is there and the store does not give it out."""

POLL_S, MAX_POLL_S = 0.3, 2.0     # asked often at first: most rounds are short; then less and less
MOST_SHARES = 8
"""One site's answer may take an eighth of the time that is left, and more if fewer sites are waited for."""

_logger = logging.getLogger("fedround.coordinator")


def is_enough(plan: Plan, collected: Collected) -> bool:
    """Whether nobody else is waited for, as the plan has it."""
    return plan.enough is not None and len(collected.admitted) >= plan.enough


def last_look_s(plan: Plan) -> float:
    """How many seconds reading may go on after the deadline, in all: as many as the sites had, and at least ten."""
    return max(10.0, plan.deadline_s)


async def _nobody(among: set[str]) -> set[str]:
    return set()


async def collect(
    coordinator: Coordinator,
    planned: Planned,
    finished: Callable[[set[str]], Awaitable[set[str]]],
    progress: Callable[[Collected], None],
    patience: Patience | None = None,
    enough: Callable[[Collected], bool] = lambda _: False,
    at_first_s: float | None = None,
    still: Callable[[set[str]], Awaitable[set[str]]] = _nobody,
) -> Collected:
    """Wait until every site has ended its flow run, or enough have, or the deadline is over; read each answer when its site
    has ended. It is over before the deadline if all who are waited for have stopped moving.

    `finished` tells which of some sites have ended, or have an answer in the store. The answer itself is only what lies in
    the store. At the deadline the store is asked once more about every site, so an answer whose signal was lost still counts.
    If an answer cannot be read although the store answers otherwise, it is tried again until then, and is missing after that.
    The other sites do not wait for it.
    patience: for all of it, however slow the store is; at first the deadline and `last_look_s`. enough: when nobody else is
    to be waited for. at_first_s: how long the first pauses between two looks are; None: `POLL_S`. still: who of some sites
    has stopped moving.
    Raises ChainError or TrustError if the federation log is damaged, StoreError if the store is down: no site's fault.
    """
    patience = patience or Patience(planned.plan.deadline_s + last_look_s(planned.plan))
    coordinator = coordinator.within(patience)
    collected, log = Collected(), _log(coordinator, planned)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + planned.plan.deadline_s
    short = POLL_S if at_first_s is None else at_first_s
    majority = shown(coordinator.store, coordinator.key, planned, coordinator.federation)
    waiting, pause, traffic = set(planned.plan.answering), short, defaultdict[str, Traffic](Traffic)
    goes_on, idle = bool(waiting), set[str]()
    while goes_on:
        late = loop.time() >= deadline
        ended = set() if late else await finished(set(waiting))
        if not late and not ended:
            idle = await still(set(waiting))
            late = idle == waiting
        ended = set(waiting) if late else ended
        before = len(waiting)
        for site in sorted(ended):
            try:
                heard = _heard(_for_one(coordinator, patience, len(waiting), traffic[site]), planned, site, log)
            except UNREADABLE as error:
                _note_unreadable(coordinator, planned, site, error)
                if not late:
                    continue
                heard = None
            collected = collected.hearing(site, heard).having_fetched(site, traffic[site])
            waiting.discard(site)
            progress(collected)
        closes = is_enough(planned.plan, collected) and majority.lacks(collected.admitted) == 0
        goes_on = bool(waiting) and not closes and not enough(collected)
        if goes_on:
            await asyncio.sleep(pause)
            pause = short if len(waiting) < before else min(pause * 1.2, MAX_POLL_S)
    missing = set(planned.plan.answering) - collected.answered
    return replace(collected, missing=tuple(sorted(missing)), idle=frozenset(idle & missing))


async def have_answered(coordinator: Coordinator, planned: Planned, among: set[str]) -> set[str]:
    """The sites of `among` whose answer, or refusal, lies in the store, as far as it can be asked now."""
    def look(site: str) -> bool:
        plan = planned.of(site).plan
        where = site, plan.run, plan.round, plan.attempt, plan.asks.kind
        try:
            return any(coordinator.store.head(key) is not None for key in (
                layout.answer(*where), *([layout.refusal(*where, 1)] if site in planned.earlier else [])))
        except UNREADABLE:
            return False

    there = await asyncio.gather(*(asyncio.to_thread(look, site) for site in sorted(among)))
    return {site for site, has in zip(sorted(among), there, strict=True) if has}


def take_late(coordinator: Coordinator, planned: Planned, collected: Collected) -> Collected:
    """Look once more for sites that had not answered at the deadline: some may just have been sending."""
    patience, late = Patience(last_look_s(planned.plan)), collected.missing
    log = _log(coordinator, planned)
    for place, site in enumerate(late):
        try:
            heard = _heard(_for_one(coordinator, patience, len(late) - place, traffic := Traffic()), planned, site, log)
        except UNREADABLE as error:
            _note_unreadable(coordinator, planned, site, error)
            heard = None
        collected = collected.hearing(site, heard).having_fetched(site, traffic)
    return replace(collected, missing=tuple(site for site in late if site not in collected.answered))


def _for_one(coordinator: Coordinator, patience: Patience, waiting: int, traffic: Traffic) -> Coordinator:
    """The coordinator with a share of the time for one site: a site whose answer comes slowly leaves time for the others.

    traffic: where it is counted.
    """
    shared = coordinator.within(patience.share(min(waiting, MOST_SHARES)))
    return replace(shared, store=Metered(shared.store, traffic))


def _note_unreadable(coordinator: Coordinator, planned: Planned, site: str, error: Exception) -> None:
    """Log the error, and raise it if the store does not give back our own plan either.

    Then the store is down, and no site's answer is missing.
    """
    _logger.warning("site '%s', %s: its answer cannot be read: %s", site, planned.in_words, error)
    if not isinstance(error, TooSlowError):
        plan = planned.plan
        coordinator.store.get(layout.plan(plan.run, plan.round, plan.attempt, plan.asks.kind))


def read_again(coordinator: Coordinator, planned: Planned, missing: tuple[str, ...]) -> Collected:
    """What the sites of a committed round said, without those that were late then."""
    collected, log = Collected(missing=missing), _log(coordinator, planned)
    for site in sorted(set(planned.plan.answering) - set(missing)):
        collected = collected.hearing(site, admit(coordinator, coordinator.federation, planned, site, log, masked=False,
                                                     updates=not planned.plan.by_region))
    return collected


def with_part(dealt: Collection[str], plan: Plan, collected: Collected) -> Collected:
    """The same, where an answer under keys in which its site has no part is rejected: no mask would come off it.

    dealt: who dealt shares of these keys.
    """
    strangers = sorted(collected.admitted.keys() - {*dealt})
    return replace(
        collected, admitted={site: one for site, one in collected.admitted.items() if site in dealt},
        rejected={**collected.rejected, **{site: Rejection(site=site, reason=(
            f"site '{site}' round {plan.round}: answered under keys in which it has no part")) for site in strangers}})


def as_committed(collected: Collected, commit: Commit) -> Collected:
    """The same, where whoever the commit rejected counts as rejected: a region may not have counted an answer."""
    rejected = {no.site: no for no in commit.rejected}
    admitted = {site: one for site, one in collected.admitted.items() if site not in rejected}
    return replace(collected, admitted=admitted, rejected={**collected.rejected, **rejected})


def _heard(coordinator: Coordinator, planned: Planned, site: str, log: Sequence[Logged]) -> Heard | None:
    """Where regional coordinators add up what sites sent, only the answer itself is read here."""
    here = not planned.plan.by_region
    return admit(coordinator, coordinator.federation, planned, site, log, masked=here, updates=here)


def _log(coordinator: Coordinator, planned: Planned) -> Sequence[Logged]:
    return read_log(coordinator.store, coordinator.key, planned.plan.log.number)


class _SilentError(Exception):
    """A site has said nothing."""


def admit(workplace: Workplace, members: Federation, planned: Planned, site: str, log: Sequence[Logged], *,
          masked: bool = True, updates: bool = True) -> Heard | None:
    """What one member has said to a plan, judged; None: nothing. Regional coordinators judge by the same.

    members: the federation file that holds for the plan. log: up to the entry that the plan names. masked, updates: whether a
    masked vector, or an update's numbers, are brought to this disk, too.
    Raises what the store raises if it does not give out what is there.
    """
    member, asked = members.site(site), planned.of(site)

    found = list[str]()

    def read() -> bytes:                # what is read again is not looked for again: refusals may be many
        if found:
            return workplace.store.get(found[0], max_bytes=MAX_DOCUMENT_BYTES)
        if (said := said_by(workplace.store, asked.plan, site)) is None:
            raise _SilentError
        found.append(said[0])
        return said[1]

    def judge(document: bytes) -> tuple[SiteAnswer, bytes]:
        return read_answer(document, asked.plan, asked.digest, member, members.revoked), document

    try:
        answer, document = judged(read, judge, f"the answer of site '{site}'")
        if isinstance(answer, Refusal):
            return Refused(answer, CommittedRefusal(site=site, answer=digest(document), reason=answer.reason))
        ledgers.check(planned.parent.commit, answer, member, log)
        if answer.update is not None:
            row = row_of(workplace, planned, site, answer.update, member.weight) if updates else None
            return Admitted(answer, document, row)
        wanted = answer.payload if masked or answer.material is not None else None
        file = None if wanted is None else file_of(workplace, planned, site, wanted)
        if file is not None and answer.material is not None:
            check_form(planned.plan, file.read_bytes(), f"site '{site}' round {planned.plan.round}")
        return Admitted(answer, document, None, file)
    except _SilentError:
        return None
    except NOT_OURS as error:
        return Rejected(Rejection(site=site, reason=str(error)[:300]), is_forged=isinstance(error, SignatureError))
    except _UNFORESEEN as error:        # a mistake of ours, which one member must not use against the others
        _logger.exception("site '%s': its answer cannot be judged", site)
        return Rejected(Rejection(site=site, reason=(
            f"site '{site}' round {planned.plan.round}: its answer cannot be judged ({type(error).__name__}); the "
            "coordinator's log says where")), is_forged=False)
