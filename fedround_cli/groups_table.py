"""Groups, rates and gaps on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedround.spoken import how_many
from fedround_cli.output import out

if TYPE_CHECKING:
    from fedround.fairness_of_groups import GroupFairness, Interval, Measure

_RATES = ("selection", "recall", "precision")
"""What fits beside each other; the card and the page have all."""


def show_groups(found: GroupFairness, measure: Measure) -> None:
    """The groups, and the gaps by one measure with their intervals."""
    from rich.table import Table

    from tasks.reporting.groups import TITLES, drawn, records_in_words

    table = Table("group", "records", *_RATES,
                  title=f"decisions of round {found.round} about held-out rows, by noised counts of "
                        f"{how_many(len(found.sites), 'site')}")
    for one in found.rates:
        if one.selection is not None:
            rates = [_narrow(getattr(one, rate)) for rate in _RATES]
            table.add_row(f"{one.attribute}: {one.group}", records_in_words(one), *rates)
    out.print(table)
    out.say("gaps in {}:", TITLES[measure])
    for gap in found.gaps:
        if gap.measure == measure:
            out.say("  [dim]{}[/] {} {}, {} < {}", drawn(gap), gap, gap.attribute, *gap.groups)
    if found.silent:
        out.say("[dim]too few records to say everything of: {}[/]", ", ".join(found.silent))


def _narrow(found: Interval | None) -> str:
    return "too few" if found is None else f"{found.value:.3f} ± {max(found.high - found.value, found.value - found.low):.3f}"
