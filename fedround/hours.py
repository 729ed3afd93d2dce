"""When somebody can be asked: hours of the day, by the clock on a wall, and days on which nobody is there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, model_validator

from fedround.values import Value

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
DayOfYear = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class Hours(Value):
    """The hours from `start` to `end`, by local time in `time_zone`.

    If `end` is not later than `start`, they last until `end` of the next day. `days` are the days on which they start.
    """

    time_zone: str
    start: TimeOfDay
    end: TimeOfDay
    days: Annotated[tuple[Day, ...], Field(min_length=1)] = WEEK

    @model_validator(mode="after")
    def _check_zone(self) -> Self:
        _zone(self.time_zone)
        return self

    def open(self, now: datetime) -> bool:
        """Whether it is within them now. now: with its time zone, whichever that is."""
        local = now.astimezone(ZoneInfo(self.time_zone))
        time, today = f"{local:%H:%M}", WEEK[local.weekday()] in self.days
        if self.start < self.end:
            return today and self.start <= time < self.end
        yesterday = WEEK[(local - timedelta(days=1)).weekday()] in self.days
        return (today and time >= self.start) or (yesterday and time < self.end)

    def __str__(self) -> str:
        days = "" if set(self.days) == set(WEEK) else f" on {', '.join(self.days)}"
        return f"from {self.start} to {self.end} {self.time_zone}{days}"


class Closed(Value):
    """Whole days on which a member is not asked, the first and the last included, by local time in `time_zone`."""

    first: DayOfYear
    last: DayOfYear
    time_zone: str = "UTC"

    @model_validator(mode="after")
    def _check_days(self) -> Self:
        _zone(self.time_zone)
        if date.fromisoformat(self.last) < date.fromisoformat(self.first):
            raise ValueError(f"closed from {self.first} to {self.last}: the last day is before the first")
        return self

    def holds(self, now: datetime) -> bool:
        """Whether it is one of these days now."""
        return self.first <= f"{now.astimezone(ZoneInfo(self.time_zone)):%Y-%m-%d}" <= self.last


def is_there(hours: Hours | None, closed: Iterable[Closed], at: datetime) -> bool:
    """Whether somebody with these hours (None: all) and closed days can be asked then. at: with its time zone."""
    return (hours is None or hours.open(at)) and not any(days.holds(at) for days in closed)


def _zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):     # not known; a path; a folder
        raise ValueError(f"time_zone '{name}' is not known: expected a name like 'Europe/Berlin'") from None
