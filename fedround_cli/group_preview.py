"""What comparing groups will cost, and how wide the intervals will be, before a campaign runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedround_cli.output import out

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fedround.statistics import Groups
    from validation.group_error import Expected

_HELD_OUT = 0.25
"""Rows held out for each row to train on, as in the examples."""
_LABEL_1, _SELECTED, _RECALLED = 0.2, 0.3, 0.5
"""What is assumed of labels and decisions: how many have label 1, get a yes, and get a yes among label 1."""


@dataclass(frozen=True)
class Line:
    """One attribute."""

    attribute: str
    noise_std: float
    selection: float
    """Half the expected 95 % interval of the largest gap in who gets a yes."""
    recall: float
    better_noise_std: float
    """With which the widest interval of recall is narrowest, for the same epsilon."""
    better_selection: float
    better_recall: float


@dataclass(frozen=True)
class Preview:
    """One comparison of groups."""

    epsilon: float
    """Of one comparison alone, at a site."""
    held_out: int
    lines: tuple[Line, ...]


def preview(groups: Groups, delta_dp: float, rows: Mapping[str, int], public: Path | None) -> Preview:
    """rows: to train on, by site. public: a file that tells how large groups are; None: equally large.

    Raises ContractError or SetupError for a file without the watched columns.
    """
    from fedround.privacy.accounting import epsilon
    from validation.group_error import quietest

    held_out, sites = _HELD_OUT * sum(rows.values()), len(rows)
    sizes = {one.of.column: _shares(groups, place, public) * held_out for place, one in enumerate(groups.watched)}
    stds = [one.noise_std for one in groups.watched]
    selection = [_expected(name, people_G, sites, label_1=False) for name, people_G in sizes.items()]
    recall = [_expected(name, people_G, sites, label_1=True) for name, people_G in sizes.items()]
    better = [round(std, 2) for std in quietest(recall, stds)]
    return Preview(epsilon(groups.mechanisms, delta_dp), round(held_out), tuple(
        Line(name, std, chosen.half_width(std), found.half_width(std), best, chosen.half_width(best), found.half_width(best))
        for name, std, best, chosen, found in zip(sizes, stds, better, selection, recall, strict=True)))


def _expected(attribute: str, people_G: npt.NDArray[np.float64], sites: int, *, label_1: bool) -> Expected:
    from validation.group_error import Expected

    return (Expected(attribute, people_G * _LABEL_1, _RECALLED, 1, sites) if label_1
            else Expected(attribute, people_G, _SELECTED, 2, sites))


def _shares(groups: Groups, place: int, public: Path | None) -> npt.NDArray[np.float64]:
    """How large each group is, (G,); records in none of the named groups aside."""
    import numpy as np

    from fedround.errors import ContractError
    from validation.encoding import columns

    of = groups.watched[place].of
    named = len(of.labels) - 1
    if public is None:
        return np.full(named, 1 / named)
    found = columns([public], [of.column])
    if of.column not in found:
        raise ContractError(f"{public} has no column '{of.column}', which the federation watches")
    group_N = of.group(found[of.column])
    return np.bincount(group_N, minlength=named + 1)[:named] / max(len(group_N), 1)


def show(found: Preview) -> None:
    """As a table."""
    from rich.table import Table

    from fedround.privacy.profile import upward

    told = ("gap in selection", "gap in recall")
    table = Table("attribute", "noise", *told, "better noise", *told,
                  title=f"groups, compared before a promotion on about {found.held_out:,} held-out rows: ε "
                        f"{upward(found.epsilon, 4)} at each site, set aside within the campaign's")
    for one in found.lines:
        table.add_row(one.attribute, f"{one.noise_std:g}", f"± {one.selection:.3f}", f"± {one.recall:.3f}",
                      f"{one.better_noise_std:g}", f"± {one.better_selection:.3f}", f"± {one.better_recall:.3f}")
    out.print(table)
    out.print(f"[dim]expected 95 % intervals of the largest gap, if {_LABEL_1:.0%} have label 1, {_SELECTED:.0%} get a yes, "
              f"and {_RECALLED:.0%} of those with label 1. Better noise: the same ε, and the widest interval of recall is as "
              "narrow as can be[/]")
