"""How a model decides, for people: sentences and lines of a table, on a page and on a terminal."""

from __future__ import annotations

from fedround.learning.tasks import Metrics
from tasks.reporting.words import decimals
from validation.reliability import Choice, Explained

HEAD = ("yes from", "yes", "recall", "false positives", "precision", "cost for 100 rows")


def said_of(found: Explained) -> str:
    """What was looked at."""
    return (f"The model of round {found.round} on {found.rows:,} public rows. Its chances are off by "
            f"{found.reliability.error:.3f} on average (expected calibration error, ten bins of equally many rows). Columns: "
            f"by how much the {Metrics.words[found.metric]} falls if a column's values change places between "
            f"{found.judged_rows:,} rows (five times; ± one standard deviation). Of columns that say the same, each may seem "
            f"of no use. SHAP: how far a column pulls the chance of a row, compared with other rows; {_rows(found)} rows.")


def _rows(found: Explained) -> int:
    return len(found.pulls[0].values) if found.pulls else 0


def chosen(found: Explained) -> list[tuple[str, ...]]:
    """The lines of the table of thresholds; the last is the cheapest."""
    if found.choices is None:
        return []
    return [_line(one) for one in (*found.choices.shown, found.choices.best)]


def of_costs(found: Explained) -> str:
    """What the costs are, and where the cheapest threshold would be."""
    if found.choices is None:
        return "Thresholds are for two classes."
    return (f"A missed row costs {found.choices.missed:g} false alarms. The last line is the cheapest threshold on these "
            f"rows; if chances were what they say, it would be {found.choices.if_calibrated:.3f}. It was chosen on the rows "
            "that judge it: elsewhere it costs a little more.")


def _line(one: Choice) -> tuple[str, ...]:
    return (f"{one.threshold:.3f}", decimals(one.selected), decimals(one.recall), decimals(one.false_positives),
            decimals(one.precision), decimals(100 * one.cost, 2))
