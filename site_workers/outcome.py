"""The result of a site's work on one flow run. It holds only what the API may know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Ending(StrEnum):
    """How the work ended."""

    ANSWERED = "answered"
    """An answer lies in the store: an update, an evaluation, or a refusal."""
    STOPPED = "stopped"
    """Somebody asked for the end before there was an answer."""
    FAILED = "failed"
    """There is no answer; the reason stays at the site."""


@dataclass(frozen=True)
class Outcome:
    """How the work ended, and one fixed sentence about it. Nothing in it comes from rows, from a model or from a file."""

    ending: Ending
    message: str


STOPPED = Outcome(Ending.STOPPED, "stopped by request")


def failed(error: Exception) -> Outcome:
    """The work raised `error`. Its text may name files or values, so only its type leaves."""
    return Outcome(Ending.FAILED, f"the site could not answer ({type(error).__name__}); its operator sees why")
