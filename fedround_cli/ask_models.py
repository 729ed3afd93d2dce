"""Regressions of `fedround ask` that take several rounds: each step is a measurement of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedround_cli.ask_shown import show_answers, show_expected
from fedround_cli.asked import found_or_asked, request_of

if TYPE_CHECKING:
    from fedround.analytics.estimates import Table
    from fedround.analytics.newton import Stepwise
    from fedround.records import Finding
    from fedround.statistics import Release, Statistic
    from tasks.ask import MeasurementRequest
    from tasks.coordinator import Coordinator


@dataclass(frozen=True)
class Regression:
    """A model, and how it is asked for."""

    start: Stepwise
    steps: int
    run: str
    asker: str | None
    quorum: int | None
    deadline_s: int | None

    def request(self, statistic: Statistic) -> MeasurementRequest:
        """One step."""
        return request_of(self.run, self.quorum, self.deadline_s, (statistic,), self.asker)


class _NotAsked(Exception):     # noqa: N818 - no error: the end of what is known
    """Nobody has been asked for this step yet."""


def ask_model(coordinator: Coordinator, asked: Regression, page: Path | None, *, each: bool, as_json: bool) -> None:
    """Ask step by step, and show what all sites say together; with `each`, what one more step would make of each site's own
    sums.
    """
    from fedround.analytics.newton import fit

    findings: list[Finding] = []

    def ask_once(statistic: Statistic) -> Release:
        findings.append(found_or_asked(coordinator, asked.request(statistic), asked.run, as_json=True))
        return findings[-1].totals[0]

    tables = list(fit(asked.start, asked.steps, ask_once))

    def read(releases: Sequence[Release]) -> list[Table]:
        (release,) = releases
        if release == findings[-1].totals[0]:
            return tables
        return list(fit(asked.start.model_copy(update={"at": getattr(release.statistic, "at")}), 1, lambda _: release))  # noqa: B009

    show_answers(coordinator, read, findings[-1], page, each=each, as_json=as_json)


def preview_model(coordinator: Coordinator, asked: Regression, records: int | None, *, as_json: bool) -> None:
    """What all rounds would cost that are not known yet, and about how exact it would be."""
    from fedround.analytics.likely import expected
    from fedround.analytics.newton import fit
    from tasks.ask import known
    from tasks.questions import preview

    waiting = asked.steps

    def known_one(statistic: Statistic) -> Release:
        nonlocal waiting
        if (finding := known(coordinator, asked.request(statistic))) is None:
            raise _NotAsked
        waiting -= 1
        return finding.totals[0]

    with suppress(_NotAsked):
        fit(asked.start, asked.steps, known_one)
    told = preview(coordinator, asked.run, [(asked.start,)] * waiting)
    tables = () if records is None else expected(asked.start, asked.steps, len(coordinator.federation.sites), records)
    show_expected(told, asked.steps, tables, asked.start.noise_std, as_json=as_json)
