"""A measurement of drift in words, for the artifact in Prefect and for a terminal."""

from __future__ import annotations

from fedround.drift.judge import Drift, Shift
from tasks.reporting.markdown import code, table
from tasks.reporting.words import decimals

HEAD = ("column", "sites", "verdict", "distance", "usual", "without noise")


def lines(drift: Drift) -> list[tuple[str, ...]]:
    """A line for each column over all sites, and for each site that has changed or that differs from the others."""
    told = [*drift.whole, *(shift for shift in drift.shifts if shift.site is not None and shift.drifted)]
    return [(shift.column, shift.site or "all", verdict(drift, shift), decimals(shift.distance), decimals(shift.usual),
             decimals(shift.estimate)) for shift in told]


def verdict(drift: Drift, shift: Shift) -> str:
    """What came of one comparison."""
    if shift.beside == "others":
        return "differs from the others" if shift.drifted else "like the others"
    return f"changed, since {shift.since}" if shift.drifted else f"as in {drift.first}"


def in_a_sentence(drift: Drift) -> str:
    """What matters most."""
    apart = sorted({shift.site for shift in drift.at_sites if shift.drifted and shift.site is not None})
    sites = f"{len(apart)} of {len(drift.sites)} sites differ from the others"
    if not drift.whole:
        return f"first measurement, after {drift.when}: {sites}"
    changed = sorted({shift.column for shift in drift.over_time if shift.drifted})
    return f"{', '.join(changed) or 'nothing'} changed since {drift.first}; {sites}"


def render_drift(drift: Drift) -> str:
    """A section of the round's artifact."""
    rows = [[code(column), code(site), *others] for column, site, *others in lines(drift)]
    return f"### Drift, measured after {drift.when}\n\n" + (table(HEAD, rows) if rows else in_a_sentence(drift))
