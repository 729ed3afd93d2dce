"""How a model decides, for people: sentences and lines of a table, on a page and on a terminal."""

from __future__ import annotations

from fedround.learning.tasks import in_words
from fedround.spoken import how_many
from tasks.reporting.contribution import added
from tasks.reporting.words import decimals
from validation.reliability import Explained, ThresholdChoice

HEAD_AT_SITES = ("column", "loss if replaced", "±")
HEAD = ("yes from", "yes", "recall", "false positives", "precision", "cost for 100 rows")


def said_of(found: Explained) -> str:
    """What was looked at."""
    calibrated = "" if found.reliability is None else (
        f" Its chances are off by {found.reliability.error:.3f} on average (expected calibration error, ten bins of equally "
        f"many rows{_slope(found.reliability.slope)}).")
    return (f"The model of round {found.round} on {found.rows:,} public rows.{calibrated} Columns: by how much the "
            f"{in_words(found.metric)} falls if a column's values change places between {found.judged_rows:,} rows (five "
            "times; ± one standard deviation). Of columns that say the same, each may seem of no use. SHAP: how far a column "
            f"pulls the score of a row, compared with other rows; {_rows(found)} rows.{_of_sites(found)}")


def _of_sites(found: Explained) -> str:
    if (told := found.at_sites) is None:
        return ""
    worth = "is hidden by the noise" if told.worth is None else f"is {told.worth:.4f}"
    return (f" At {how_many(told.sites, 'site')}, on rows that they hold out, with noise of {told.noise_std:g} at each, the "
            f"{in_words(found.metric)} {worth}. By how much it falls there if a column's values come from {told.public_rows} "
            "public rows; ±: in 95 of 100 repeats of the noise no farther than this. Which rows are held out, and which "
            "public row each got, is not in it.")


def told_by_sites(found: Explained) -> list[tuple[str, ...]]:
    """The lines of the table of columns at the sites."""
    if found.at_sites is None:
        return []
    return [(one.column, "hidden by the noise" if one.value is None else added(one.value),
             "" if one.margin is None else f"{one.margin:.4f}") for one in found.at_sites.drops]


def _slope(slope: float | None) -> str:
    return "" if slope is None else f"; slope {slope:.2f}, where 1 is as it says and less is too sure of itself"


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


def _line(one: ThresholdChoice) -> tuple[str, ...]:
    return (f"{one.threshold:.3f}", decimals(one.selected), decimals(one.recall), decimals(one.false_positives),
            decimals(one.precision), decimals(100 * one.cost, 2))
