"""What a ledger's lines cost together: campaigns, each fixed before anything of it left, and the rows they touch.

A campaign's first charge says all that it may use (`Charge.campaign`); later charges of the run draw on that as long as it
lasts. So a campaign is one batch of mechanisms that were fixed beforehand, whatever base models came in between, and the
campaigns after the first are batches that were chosen later (`accounting.epsilon_of_batches`). Lines of versions that wrote
no campaign draw on their run's, if one has room for them; the others count as one batch before all.

Rows stand in parts: of each partition (the rows of one week, say) those to train on and those held out. A record pays only
for the uses of its own part: for all other uses it is not among the data (parallel composition; McSherry 2009, theorem 4).
Parts of which the site has seen a common row are one. A charge to no partition, or to all rows of one, is paid by all rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fedround.privacy.accounting import Batch
from fedround.privacy.entries import Charge, Closing, Entry, Lot, Part, Shared, Use
from fedround.privacy.spec import GaussianCounts, Mechanism


@dataclass
class Campaign:
    """The mechanisms that were set aside together, and how much of them was used."""

    federation: str
    run: str | None
    partition: str | None
    lots: tuple[Lot, ...]
    terms: str | None = None
    settled: Counter[Use] = field(default_factory=Counter)
    """What was used before the site's rows changed."""
    used: Counter[Use] = field(default_factory=Counter)
    rounds: int = 0
    """Charges to train that drew on it."""
    is_open: bool = True

    def __post_init__(self) -> None:
        self.now = _total(self.lots)

    @property
    def fixed(self) -> Counter[Use]:
        """All of it."""
        return self.settled + self.now if self.settled else self.now

    @property
    def spent(self) -> Counter[Use]:
        """All that was used."""
        return self.settled + self.used if self.settled else self.used

    @property
    def trains(self) -> bool:
        """Whether there is more in it than counts."""
        return any(not isinstance(lot.mechanism, GaussianCounts) for lot in self.lots)

    def has_room(self, charge: Charge) -> bool:
        """Whether this charge can draw on it."""
        return (self.is_open and (self.federation, self.run, self.partition)
                == (charge.federation, charge.run, charge.partition)
                and self.used + Counter(charge.uses()) <= self.now)

    def is_continued_by(self, charge: Charge) -> bool:
        """Whether the campaign continues with this charge because the site's rows have changed."""
        return (self.is_open and self.trains and self.terms is not None and (
            self.federation, self.run, self.partition, self.terms) == (
            charge.federation, charge.run, charge.partition, charge.terms))

    def go_on(self, lots: tuple[Lot, ...]) -> None:
        """With these instead of what is left."""
        self.settled, self.used, self.lots, self.now = self.spent, Counter(), lots, _total(lots)

    def draw(self, charge: Charge) -> None:
        """Use what the charge uses."""
        self.used += Counter(charge.uses())
        self.rounds += charge.purpose == "train"


def _total(lots: Iterable[Lot]) -> Counter[Use]:
    total: Counter[Use] = Counter()
    for lot in lots:
        total[lot.use] += lot.times
    return total


@dataclass(frozen=True)
class Book:
    """A ledger's lines, sorted."""

    before: tuple[Charge, ...]
    """Charges without a campaign."""
    campaigns: tuple[Campaign, ...]
    """In the order in which they began."""
    shared: tuple[Shared, ...]

    def room_for(self, charge: Charge) -> Campaign | None:
        """The campaign on which this charge draws; None: it begins one."""
        return next((one for one in reversed(self.campaigns) if one.has_room(charge)), None)


def sort(entries: Iterable[Entry]) -> Book:
    """Which lines belong together."""
    campaigns, old, shared = list[Campaign](), list[Charge](), list[Shared]()
    for entry in entries:
        if isinstance(entry, Shared):
            shared.append(entry)
        elif isinstance(entry, Closing):
            _close([one for one in campaigns if (one.federation, one.run) == (entry.federation, entry.run)])
        elif entry.campaign == ():
            old.append(entry)
        else:
            _draw(campaigns, entry)
    before = []
    for charge in old:
        if (home := next((one for one in campaigns if one.has_room(charge)), None)) is None:
            before.append(charge)
        else:
            home.draw(charge)
    return Book(tuple(before), tuple(campaigns), tuple(shared))


def _draw(campaigns: list[Campaign], charge: Charge) -> None:
    """On the campaign that the line names, or on a new one. A run trains one way at a time: the way before is over."""
    home = next((one for one in reversed(campaigns) if one.lots == charge.campaign and one.has_room(charge)), None)
    if home is None and (home := next((one for one in campaigns if one.is_continued_by(charge)), None)) is not None:
        home.go_on(charge.campaign)
    if home is None:
        home = Campaign(charge.federation, charge.run, charge.partition, charge.campaign, charge.terms)
        if home.trains:
            _close([one for one in campaigns if one.trains and (one.federation, one.run, one.partition)
                    == (charge.federation, charge.run, charge.partition)])
        campaigns.append(home)
    home.draw(charge)


def _close(campaigns: list[Campaign]) -> None:
    for one in campaigns:
        one.is_open = False


# -- whose price -------------------------------------------------------------------------------------------------------

View = frozenset[Part] | None
"""The parts that a record may be in, which pay together; None: all parts."""


def views(book: Book, partition: str | None = None) -> list[frozenset[Part]]:
    """One for each group of rows that may pay for different charges than the others; only those with rows of this partition,
    if one is named, whether anything was charged to it or not.
    """
    named = {name for name in (*(one.partition for one in book.before), *(one.partition for one in book.campaigns), partition)
             if name is not None}
    sides: tuple[Literal["train", "validation"], ...] = ("train", "validation")
    parts = [Part(partition=name, rows=rows) for name in [*sorted(named), None][:max(1, len(named))] for rows in sides]
    found = _groups(parts, [said for entry in book.shared for said in _within(entry, sorted(named))])
    return [one for one in found if partition is None or any(part.partition == partition for part in one)]


def _sides(view: View, partition: str | None) -> frozenset[str]:
    """Of which rows of this partition a record of the view may be."""
    if view is None:
        return frozenset(("train", "validation", "all"))
    sides = {part.rows for part in view if partition is None or part.partition in (None, partition)}
    return frozenset((*sides, "all") if sides else ())


def _within(entry: Shared, named: Sequence[str]) -> list[frozenset[Part]]:
    """Which parts a line joins. If it names no partition, a row was seen on both sides. It is the same row there, so it is in
    one partition, whichever that is.
    """
    if not named or any(part.partition is not None for part in entry.shared):
        return [frozenset(entry.shared)]
    return [frozenset(part.model_copy(update={"partition": name}) for part in entry.shared) for name in named]


def _groups(parts: Sequence[Part], shared: Iterable[frozenset[Part]]) -> list[frozenset[Part]]:
    groups = [frozenset([part]) for part in parts]
    for said in shared:
        touched = [group for group in groups if group & said]
        groups = [group for group in groups if not group & said] + [said.union(*touched)]
    return groups


def batches(book: Book, view: View, run: str | None = None, *, whole: bool = False) -> list[Batch]:
    """What a record pays for, in the accountant's order.

    run: only charges of this run, and of unknown runs unless they were recorded before this run began. whole: with what is
    set aside and not yet used; otherwise only what was used.
    """
    began = next((place for place, one in enumerate(book.campaigns) if one.run == run), len(book.campaigns))
    of_run = book.campaigns if run is None else [
        one for place, one in enumerate(book.campaigns) if one.run == run or (one.run is None and place > began)]
    first = [mechanism for charge in book.before if run is None or charge.run in (None, run)
             for mechanism, rows in charge.uses() if rows in _sides(view, charge.partition)]
    found = [Batch(tuple(Counter(first).items()))] if first else []
    for one in of_run:
        if (sides := _sides(view, one.partition)) and (seen := _seen(sides, one.fixed if whole else one.spent)):
            found.append(Batch(seen, () if one.is_open or not whole else _seen(sides, one.fixed - one.spent)))
    return found


def _seen(sides: frozenset[str], uses: Counter[Use]) -> tuple[tuple[Mechanism, int], ...]:
    total: Counter[Mechanism] = Counter()
    for (mechanism, rows), times in uses.items():
        if rows in sides:
            total[mechanism] += times
    return tuple(total.items())
