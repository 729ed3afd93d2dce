"""Tables of accuracies, rules by attacks, as Markdown and as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Accuracies in percent: rules by attacks, those of the literature first, then those that know the defence."""

    title: str
    known: tuple[str, ...]
    adaptive: tuple[str, ...]
    cells: Mapping[str, Mapping[str, Floats]]
    """[rule][attack], of each seed. What was not measured is not there."""

    def worst(self, rule: str, attacks: tuple[str, ...]) -> float:
        """The lowest of these cells, each the mean over the seeds; not a number if one was not measured."""
        cells = self.cells[rule]
        return min(float(cells[attack].mean()) for attack in attacks) if cells.keys() >= set(attacks) else math.nan

    def spread(self, rule: str) -> float:
        """The largest standard deviation over the seeds in one of the rule's cells; 0 of a single seed."""
        return max(float(found_S.std(ddof=1)) if len(found_S) > 1 else 0.0 for found_S in self.cells[rule].values())

    def ranked(self) -> list[str]:
        """Rules, the one that keeps most under its worst attack first; last those that did not meet all attacks."""
        def place(rule: str) -> tuple[bool, float]:
            overall = self.worst(rule, self.known + self.adaptive)
            return math.isnan(overall), -(self.worst(rule, self.known) if math.isnan(overall) else overall)

        return sorted(self.cells, key=place)

    def columns(self) -> list[tuple[str, tuple[str, ...]]]:
        """Each column's head and the attacks whose minimum it shows."""
        parts = [part for part in (self.known, self.adaptive) if part]
        return [column for part in parts for column in [*((attack, (attack,)) for attack in part), ("worst", part)]]


def markdown(table: Table) -> str:
    """A heading and a table; the lowest cell of each row's two parts is repeated under "worst". "±" is the row's `spread`."""
    columns = table.columns()
    lines = [f"### {table.title}", "", "| rule | " + " | ".join(_words(head) for head, _ in columns) + " | ± |",
             "|---|" + "--:|" * (len(columns) + 1)]
    for rule in table.ranked():
        values = [_cell(table.worst(rule, attacks), heavy=head == "worst") for head, attacks in columns]
        lines.append(f"| {rule} | " + " | ".join(values) + f" | {table.spread(rule):.1f} |")
    return "\n".join(lines)


def _cell(value: float, *, heavy: bool) -> str:
    return "" if math.isnan(value) else f"**{value:.1f}**" if heavy else f"{value:.1f}"


def heat_map(table: Table, path: Path) -> None:
    """The table as a picture; the columns "worst" are framed."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    columns, rules = table.columns(), table.ranked()
    values = np.array([[table.worst(rule, attacks) for _, attacks in columns] for rule in rules])
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": table.title, "font.size": 9, "font.family": "sans-serif",
                         "font.sans-serif": ["DejaVu Sans"]}):      # every text repeats the whole list
        figure, axes = plt.subplots(figsize=(2.1 + 0.56 * len(columns), 1.5 + 0.28 * len(rules)))
        axes.imshow(values, cmap="RdYlBu", vmin=10, vmax=95, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            heavy = "bold" if columns[column][0] == "worst" else "normal"
            ink = "black" if 25 < value < 85 else "white"
            if not math.isnan(value):
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontweight=heavy, color=ink)
        for column, (head, _) in enumerate(columns):
            if head == "worst":
                axes.add_patch(Rectangle((column - 0.5, -0.5), 1, len(rules), fill=False, linewidth=2))
        axes.set_xticks(range(len(columns)), [_words(head) for head, _ in columns], rotation=40, ha="left",
                        rotation_mode="anchor")
        axes.set_yticks(range(len(rules)), rules)
        axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
        axes.set_xlabel(f"test accuracy in percent, {table.title}")
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def _words(name: str) -> str:
    return name.replace("_", " ")
