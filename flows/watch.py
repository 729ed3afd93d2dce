"""Shows what a round is doing: in the flow run's log, and in the progress file that the command line reads."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from prefect.logging import get_run_logger

from fedround.errors import FedroundError
from fedround.records import Plan
from fedround.spoken import how_many
from tasks.collected import Collected
from tasks.progress import Progress, stopped, write_progress
from tasks.reporting.record import Timing


class Watch:
    """What one round is doing, shown to whoever looks. An error that ends the round is shown, and raised further."""

    def __init__(self, folder: Path, run: str):
        self._folder = folder
        self._now = Progress(run=run, round=0, stage="plan")
        self._cohort, self._still = frozenset[str](), frozenset[str]()
        self._log = get_run_logger()
        self._began, self._asked = time.monotonic(), 0.0
        self._steps: list[tuple[str, float]] = []
        self._answered: dict[str, float] = {}
        self._fetched: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> Self:
        self._tell()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self._tell(stage="done", waiting=(), until=None)
            return
        self._tell(stage="failed", waiting=(), until=None, problem=self._in_words(error))
        self._log.error("%s", self._now.problem)

    def _in_words(self, error: BaseException) -> str:
        if isinstance(error, asyncio.CancelledError):
            return stopped(self._now, self._cohort)
        return str(error) if isinstance(error, FedroundError) else type(error).__name__

    @property
    def waited_for(self) -> set[str]:
        """The sites that were asked and have said nothing yet."""
        return set(self._now.waiting)

    @property
    def timing(self) -> Timing:
        """How long the steps that are over took, and each site to answer."""
        return Timing(steps=tuple(self._steps), answered=dict(self._answered), fetched=self._fetched)

    def over(self, step: str) -> None:
        """A step is over: it took the time since the step before."""
        now = time.monotonic()
        self._steps.append((step, now - self._began))
        self._began = now

    def plan(self, plan: Plan) -> None:
        """The plan is published; sites are being invited."""
        self.over("plan")
        self._asked = self._began
        self._cohort = frozenset(plan.answering)
        self._tell(stage=plan.asks.kind, round=plan.round, cohort=len(self._cohort), waiting=tuple(sorted(self._cohort)),
                   until=datetime.now(UTC) + timedelta(seconds=plan.deadline_s),
                   excluded=(*(f"'{out.site}' until round {out.until}: {out.reason}" for out in plan.excluded),
                             *(f"'{site}' was not chosen, or is not there now" for site in plan.unasked)))
        self._log.info("round %d: asking %s to %s, quorum %d, deadline %d s", plan.round,
                       how_many(len(plan.cohort), "site"), plan.asks.kind, plan.quorum, plan.deadline_s)
        if plan.tickets:
            self._log.info("round %d: still at work on earlier plans: %s", plan.round, ", ".join(
                f"'{ticket.site}' (round {ticket.round})" for ticket in plan.tickets))
        for excluded in self._now.excluded:
            self._log.warning("round %d: not asked: %s", plan.round, excluded)

    def answers(self, collected: Collected) -> None:
        """One more site has answered."""
        for site in collected.answered - self._answered.keys():
            self._answered[site] = time.monotonic() - self._asked
        self._fetched = {site: (one.seconds, one.calls) for site, one in collected.fetched.items()}
        self._tell(updates=len(collected.admitted), refused=len(collected.refused), rejected=len(collected.rejected),
                   waiting=tuple(sorted(self._cohort - collected.answered)))

    def still(self, sites: set[str]) -> None:
        """These have stopped moving: they are not waited for any longer, unless they move again before the round is over."""
        for site in sorted(sites - self._still):
            self._log.warning("round %d: '%s' gives no sign that its work moves", self._now.round, site)
        self._still = frozenset(sites)

    def stage(self, name: str) -> None:
        """The next step begins: nobody is waited for."""
        self._tell(stage=name, waiting=(), until=None)
        self._log.info("round %d: %s (%s, %d refused, %d not admitted, %d no answer)", self._now.round, name,
                       how_many(self._now.updates, "update"), self._now.refused, self._now.rejected,
                       self._now.cohort - self._now.updates - self._now.refused - self._now.rejected)

    def missed(self, problem: str) -> None:
        """Something that follows a commit could not be made."""
        self._log.warning("%s", problem)
        self._tell(problem=problem)

    def _tell(self, **changes: object) -> None:
        self._now = self._now.model_copy(update=changes)
        try:
            write_progress(self._folder, self._now)
        except OSError as error:            # it is for people, and the round is not
            self._log.warning("%s: what the round is doing cannot be shown (%s)", self._folder, error.strerror)


def a_sentence_is_enough(record: logging.LogRecord) -> bool:
    """A log filter: our own errors say what to do and lose their traceback. An unexpected error keeps it."""
    if record.exc_info and isinstance(record.exc_info[1], FedroundError):
        record.exc_info = None
    return True
