"""`fedround simulate`: how long sites take, when the campaign takes place, and who took part in it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from fedround.spoken import how_many

if TYPE_CHECKING:
    from rich.table import Table

    from fedround.rounds.participation import Participation
    from fedround.simulation.asking import Calendar
    from fedround.simulation.result import Result

MOST_SHOWN = 20


def seconds_of(said: str | None, names: Iterable[str]) -> dict[str, float] | None:
    """`60,120,600`: what the sites, in order of names, take for a plan, over and over. Raises ContractError for other
    words.
    """
    from fedround.errors import ContractError

    if said is None:
        return None
    try:
        numbers = [float(word) for word in said.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < 1e9 for number in numbers):
        raise ContractError("--seconds: expected numbers above 0 with commas between them, such as 60,120,600")
    return {name: numbers[place % len(numbers)] for place, name in enumerate(sorted(names))}


def calendar_of(begins: str | None, every_s: float | None) -> Calendar | None:
    """When rounds begin. Raises ContractError for what is no time with its zone."""
    from fedround.errors import ContractError
    from fedround.simulation.asking import Calendar

    if begins is None:
        if every_s is not None:
            raise ContractError("--every has no effect without --begins: say when the campaign begins")
        return None
    try:
        at = datetime.fromisoformat(begins)
    except ValueError:
        at = datetime.min       # noqa: DTZ901 - refused below
    if at.tzinfo is None:
        raise ContractError("--begins: expected a time with its zone, such as 2026-12-01T18:00+01:00")
    return Calendar(at, every_s or 0.0)


def table_of(found: Participation) -> Table:
    """Who took part; of many those that were asked least and most."""
    from rich.table import Table

    table = Table("site", "agreed share", "share in the models", "asked", "answered", "used", title="Who took part")
    parts = found.parts
    if len(parts) > MOST_SHOWN:
        by_asked = sorted(parts, key=lambda part: part.asked)
        parts = (*by_asked[:MOST_SHOWN // 2], *by_asked[-MOST_SHOWN // 2:])
    for part in parts:
        table.add_row(part.site, f"{part.agreed:.1%}", f"{part.weight:.1%}", f"{part.asked} / {part.rounds}",
                      str(part.answered), str(part.used))
    return table


def paid_for_nothing(result: Result) -> str | None:
    """What lateness and used-up promises cost; None: nothing."""
    lost, refused = (sum(len(getattr(one, kind)) for one in result.rounds) for kind in ("lost", "refused"))
    words = [*([f"{how_many(lost, 'update', 'was', 'were')} paid for and came too late"] if lost else []),
             *([f"{refused} times a site was asked whose promise was used up"] if refused else [])]
    return "; ".join(words) or None
