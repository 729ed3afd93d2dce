"""A measurement that a command asks for, or finds already answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fedround.errors import FedroundError
from fedround_cli.output import out
from fedround_cli.requests import checked

if TYPE_CHECKING:
    from fedround.records import Finding
    from fedround.statistics import Statistic
    from tasks.ask import MeasurementRequest
    from tasks.coordinator import Coordinator


def request_of(run: str, quorum: int | None, deadline_s: int | None, statistics: tuple[Statistic, ...],
             asker: str | None) -> MeasurementRequest:
    """The question as it is asked of the sites. Raises FedroundError that names the option."""
    from tasks.ask import MeasurementRequest

    return checked(MeasurementRequest, {
        "run": run, "quorum": quorum, "deadline_s": deadline_s, "statistics": statistics, "asker": asker})


def found_or_asked(coordinator: Coordinator, request: MeasurementRequest, run: str, *, as_json: bool) -> Finding:
    """The answer that is there; or ask for it."""
    from fedround_cli.campaign import show_campaign
    from tasks.ask import known

    finding = known(coordinator, request)
    if finding is None:
        asyncio.run(show_campaign(coordinator, "federated-measurement", request.model_dump(mode="json", exclude_none=True),
                                  quiet=as_json))
        finding = known(coordinator, request)
    elif not as_json:
        out.print("[dim]this was asked before: nobody is asked, or charged, again[/]")
    if finding is None:
        raise FedroundError(f"the measurement ended and run '{run}' has no result of it: was another one asked meanwhile? "
                            "'fedround ask --show' lists what there is")
    return finding
