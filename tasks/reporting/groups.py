"""Groups, gaps and their intervals for people: in a model's card, in the Prefect UI and on a terminal."""

from __future__ import annotations

from fedround.fairness_of_groups import COMPARES, Gap, GroupFairness, GroupRates, Interval, Measure, Rated
from fedround.spoken import how_many
from tasks.reporting.markdown import code, table

TITLES: dict[Measure, str] = {
    "demographic_parity": "demographic parity (who gets a yes)", "equalised_odds": "equalised odds (recall, false positives)",
    "equal_opportunity": "equal opportunity (recall)", "predictive_parity": "predictive parity (precision)"}
TOO_FEW = "too few"
RATES: tuple[Rated, ...] = ("selection", "recall", "false_positives", "precision")
_WIDTH = 25


def render_groups(found: GroupFairness, before: GroupFairness | None = None) -> str:
    """Markdown. before: what was counted of the model in production, where there is one."""
    rates = [[code(one.attribute), code(one.group), records_in_words(one), *(rate_in_words(one, name) for name in RATES)]
             for one in found.rates]
    gaps = [gap_in_words(one, before) for one in found.gaps]
    return "\n\n".join([
        said_of(found), table(["attribute", "group", "records", *(name.replace("_", " ") for name in RATES)], rates),
        table(["measure", "attribute", "lowest, highest", "gap", "", *([] if before is None else ["in production"])], gaps),
        *sites_in_words(found)]) + "\n"


def said_of(found: GroupFairness) -> str:
    """How to read the tables."""
    own = "" if found.own is None else f", or by {code(found.own.of.column)}: " + ", ".join(
        f"{code(group)} {at:g}" for group, at in zip(found.own.of.labels, found.own.at, strict=True))
    return (f"Decisions of the model of round {found.round} about held-out rows of {how_many(len(found.sites), 'site')}: yes "
            f"from a chance of {found.threshold:g} on{own}. From noised counts. The intervals hold in "
            f"{100 * found.confidence:g} of 100 cases, each rate's alone and all gaps' of a measure together; they count the "
            f"noise, and that other people might have been held out. Of fewer than about {found.smallest} records nothing is "
            f"said ({TOO_FEW}), and such a group is in no gap.")


def records_in_words(one: GroupRates) -> str:
    """About how many records the group has. Of a small group the count would be of its noise."""
    return TOO_FEW if one.selection is None else f"{one.records:,.0f}"


def rate_in_words(one: GroupRates, name: Rated) -> str:
    """One cell of the table of groups."""
    found: Interval | None = getattr(one, name)
    return TOO_FEW if found is None else str(found)


def gap_in_words(one: Gap, before: GroupFairness | None = None) -> list[str]:
    """One line of the table of gaps."""
    line = [TITLES[one.measure], code(one.attribute), " < ".join(code(group) for group in one.groups), str(one),
            code(drawn(one))]
    if before is None:
        return line
    earlier = next((gap for gap in before.gaps if (gap.measure, gap.attribute) == (one.measure, one.attribute)), None)
    return [*line, "not measured" if earlier is None else str(earlier)]


def drawn(one: Interval) -> str:
    """The interval as a picture of 25 characters, from 0 to 0.5: what is larger lies at its end."""
    low, middle, high = (min(_WIDTH - 1, round(end * 2 * (_WIDTH - 1))) for end in (one.low, one.value, one.high))
    return "".join("●" if place == middle else "─" if low <= place <= high else "·" for place in range(_WIDTH))


def sites_in_words(found: GroupFairness) -> list[str]:
    """The site that is surely worst by each measure, and the one with the lowest recall."""
    said = []
    for measure in COMPARES:
        if (worst := found.worst_site(measure)) is not None:
            site, gap = worst
            said.append(f"{TITLES[measure]}: {code(site)}, {code(gap.attribute)} {gap}")
    told = [site for site in found.sites if site.recall is not None]
    if told:
        lowest = min(told, key=lambda site: site.recall.high if site.recall is not None else 1.0)
        said.append(f"recall: {code(lowest.site)}, {lowest.recall}")
    if not said:
        return ["At no site are there enough records to compare groups there."]
    return ["Worst site by each measure:\n\n" + "\n".join(f"* {line}" for line in said)]
