"""How differently a model decides about groups of people: rates, gaps between groups, and the intervals of both.

Not to be confused with `fedround.aggregation.fairness`, where sites are treated alike.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fedround.statistics import Thresholds
from fedround.values import MAX_NUMBER, Name, Value

Rated = Literal["selection", "recall", "false_positives", "precision"]
"""Of a group: the share that gets a yes; of those with label 1; of those with label 0; the share of label 1 among a yes."""
RATED: tuple[Rated, ...] = ("selection", "recall", "false_positives", "precision")

Measure = Literal["demographic_parity", "equalised_odds", "equal_opportunity", "predictive_parity"]
"""What may not differ between groups: selection; recall and false positives; recall; precision."""
COMPARES: dict[Measure, tuple[Rated, ...]] = {
    "demographic_parity": ("selection",), "equalised_odds": ("recall", "false_positives"),
    "equal_opportunity": ("recall",), "predictive_parity": ("precision",)}

Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, StringConstraints(max_length=200)]


class Interval(Value):
    """A share, and the interval that holds the true one in `GroupFairness.confidence` of cases."""

    value: Share
    low: Share
    high: Share

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class GroupRates(Value):
    """One group. A rate is None if too few records are behind it."""

    attribute: Text
    group: Text
    records: Annotated[float, Field(ge=0, le=1e13)]
    """About how many; from noised counts."""
    selection: Interval | None
    recall: Interval | None
    false_positives: Interval | None
    precision: Interval | None


class Gap(Interval):
    """The largest difference of a measure's rates between two groups of an attribute."""

    measure: Measure
    attribute: Text
    groups: tuple[Text, Text]
    """The one with the lowest, and the one with the highest rate."""


class SiteFairness(Value):
    """The same at one site; its counts are few, so its intervals are wide. An attribute without a gap has too few records."""

    site: Name
    recall: Interval | None
    precision: Interval | None
    gaps: tuple[Gap, ...]


class GroupFairness(Value):
    """What noised counts of held-out rows say about a model's decisions."""

    round: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    """Whose model."""
    threshold: Share
    own: Thresholds | None = None
    """Instead of `threshold`, for the groups of one attribute."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Of each rate alone, and of all gaps of a measure together."""
    smallest: Annotated[int, Field(ge=1)]
    """Of fewer records nothing is said."""
    sites: tuple[SiteFairness, ...]
    rates: tuple[GroupRates, ...]
    gaps: tuple[Gap, ...]

    def gap(self, measure: Measure) -> Interval | None:
        """The largest over all attributes; None: too few records to compare any two groups."""
        found = [one for one in self.gaps if one.measure == measure]
        if not found:
            return None
        return Interval(value=max(one.value for one in found), low=max(one.low for one in found),
                        high=max(one.high for one in found))

    def numbers(self) -> dict[str, float]:
        """The largest gap by each measure, with its interval: one name for each, wherever numbers are told."""
        gaps = {measure: self.gap(measure) for measure in COMPARES}
        return {f"gap_{measure}{end}": value for measure, gap in gaps.items() if gap is not None
                for end, value in (("", gap.value), ("_low", gap.low), ("_high", gap.high)) if value is not None}

    def worst(self, measure: Measure) -> Gap | None:
        """The gap with the largest value."""
        return max((one for one in self.gaps if one.measure == measure), key=lambda one: one.value, default=None)

    def worst_site(self, measure: Measure) -> tuple[str, Gap] | None:
        """The site whose largest gap is surely the largest: by the lower end of its interval, then by its value."""
        found = [(site.site, one) for site in self.sites for one in site.gaps if one.measure == measure]
        return max(found, key=lambda pair: (pair[1].low, pair[1].value), default=None)

    @property
    def silent(self) -> tuple[str, ...]:
        """The groups of which too few records were counted for at least one rate."""
        return tuple(f"{one.attribute} {one.group}" for one in self.rates
                     if None in (one.selection, one.recall, one.false_positives, one.precision))
