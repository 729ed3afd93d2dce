"""Groups, rates and gaps on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedround_cli.output import out

if TYPE_CHECKING:
    from fedround.fairness_of_groups import GroupFairness, Measure


def show_groups(found: GroupFairness, measure: Measure) -> None:
    """The groups, and the gaps by one measure with their intervals."""
    from rich.table import Table

    from tasks.reporting.groups import RATES, TITLES, drawn, rate_in_words, records_in_words

    table = Table("attribute", "group", "records", *(name.replace("_", " ") for name in RATES),
                  title=f"decisions of round {found.round} about held-out rows, by noised counts of {len(found.sites)} sites")
    for one in found.rates:
        if one.selection is not None:
            table.add_row(one.attribute, one.group, records_in_words(one), *(rate_in_words(one, name) for name in RATES))
    out.print(table)
    for gap in found.gaps:
        if gap.measure == measure:
            out.say("gap in {}, {}: {}  [dim]{}[/]  {} < {}", TITLES[measure], gap.attribute, gap, drawn(gap), *gap.groups)
    if found.silent:
        out.say("[dim]too few records to say everything of: {}[/]", ", ".join(found.silent))
