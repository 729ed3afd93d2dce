"""A data set's privacy ledger: what every release from it cost, on the site's own disk.

A hash-chained file (`fedround.privacy.chain`): its first line names the data set, every other is one entry
(`fedround.privacy.entries`). It is the site's own, so the chain says that the file is as we wrote it, not that nobody rewrote
all of it. It stores mechanisms, not epsilons: a better accountant later reads the same facts.

It is a privacy filter: a campaign's first charge sets aside all that the campaign may use, and what is set aside counts
against the budget (`held`) from then on. The cost of later campaigns is bounded, however they were chosen
(`fedround.privacy.campaigns`, `envelope`).

`charge` returns only after its line is durable, and work begins only after `charge` has returned: a crash can leave a charge
for work that was not done (too much is safe), and never work without its charge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from fedround.errors import BudgetError, ContractError, LedgerError
from fedround.privacy import chain
from fedround.privacy.accounting import epsilon_of_batches
from fedround.privacy.campaigns import Book, batches, sort, views
from fedround.privacy.entries import Charge, Closing, Entry, Shared
from fedround.privacy.spec import Unit
from fedround.values import Name

__all__ = ["Bound", "Charge", "Ledger", "add", "charge", "create", "held", "read", "spent", "with_entries"]


class _Opening(chain.Line):
    format: Literal["fedround-ledger/1"] = "fedround-ledger/1"
    dataset: Name


class _Entry(chain.Line):
    charge: Entry


_KIND = chain.Kind(
    name="privacy ledger", opening=_Opening, entry=_Entry, content="charge", error=LedgerError,
    if_lost="make one with 'fedround site init', or restore it from your backup; never start an empty one for rows that were "
            "used before")


@dataclass(frozen=True)
class Ledger:
    """What the file at `path` said when it was read."""

    path: Path
    dataset: str
    entries: tuple[Entry, ...]
    heads: tuple[str, ...]
    """The digests of its lines: the first, before any entry, and then one for each."""

    @property
    def head(self) -> str:
        """The digest of the last line; it stands for the whole history."""
        return self.heads[-1]

    @property
    def charges(self) -> tuple[Charge, ...]:
        """The entries that are charges."""
        return tuple(entry for entry in self.entries if isinstance(entry, Charge))

    @cached_property
    def book(self) -> Book:
        """Its lines, sorted."""
        return sort(self.entries)


@dataclass(frozen=True)
class Bound:
    """A budget that may not be exceeded."""

    epsilon: float
    delta_dp: float
    unit: Unit
    run: str | None
    """None: over everything."""
    whose: str
    """Who said so, for the message."""
    alone: bool = False
    """Whether it bounds what is spent if nobody else's share of the noise counts (`units.alone`)."""


def create(path: Path, dataset: str) -> Ledger:
    """Open a ledger for the data set that the site calls `dataset`. Raises LedgerError if the file exists."""
    chain.create(_KIND, path, {"format": "fedround-ledger/1", "dataset": dataset})
    return read(path)


def read(path: Path) -> Ledger:
    """Read and verify a ledger. Raises SetupError if there is none, LedgerError if it is not as we wrote it."""
    return _ledger(path, chain.read(_KIND, path))


def charge(ledger: Ledger, charge: Charge, max_epsilon: float, max_epsilon_site: float | None = None,
           max_epsilon_per_run: float | None = None, promised: Bound | None = None, *,
           max_epsilon_person: float | None = None, max_epsilon_label: float | None = None,
           alone: Bound | None = None) -> Ledger:
    """Record `charge` before the work that it pays for; durable when this returns.

    The budget is the data set's: everything in the ledger counts, of every run and federation, with what is set aside. A
    charge draws on its run's campaign while that has room for it; otherwise `charge.campaign` is set aside as a whole. The
    same charge for the same plan (its time aside) is recorded once: a retry costs nothing. The same plan with other
    mechanisms is another release and is charged. Another process may have charged since `ledger` was read; that counts too.
    max_epsilon bounds what one record spends, max_epsilon_person what one person does, max_epsilon_site what the site as a
    whole does, and max_epsilon_label what one label does (None: nothing was promised for them). Each counts everything that
    ever left, whatever it was noised for (see `accounting`). max_epsilon_per_run bounds what one record spends in the
    charge's own run. promised: what the plan itself promises for its run. alone: what the policy allows if nobody else's
    noise counts.
    Raises BudgetError, and records nothing, if a total would exceed its bound; LedgerError if the file is not as we wrote it
    or does not continue `ledger`; PrivacyError if it cannot be written.
    """
    given: list[tuple[float | None, Unit, str | None]] = [
        (max_epsilon, "record", None), (max_epsilon_person, "person", None), (max_epsilon_site, "site", None),
        (max_epsilon_label, "label", None),
        (max_epsilon_per_run, "record", charge.run)]
    bounds = [Bound(bound, charge.delta_dp, unit, run, "the site's policy allows")
              for bound, unit, run in given if bound is not None]
    bounds += [bound for bound in (promised, alone) if bound is not None]
    for bound in bounds:
        if not bound.epsilon >= 0:                  # NaN too: nothing is greater than NaN, so it would allow everything
            raise ContractError(f"a budget is a number of at least 0, got max_epsilon {bound.epsilon}")
    with chain.appending(_KIND, ledger.path) as file:
        current = _continued(ledger, file)
        if charge.plan is not None and any(charge.is_of(earlier) for earlier in current.charges):
            file.settle()
            return current
        if charge.partition is not None and not tells_apart(current, charge.partition):
            raise LedgerError(f"{ledger.path}: another process has charged partitions of another kind since it was read, and "
                              "both kinds overlap; nothing was charged. Answer the same plan again: then all rows pay")
        home = current.book.room_for(charge) if charge.campaign else None
        entry = charge if home is None else charge.model_copy(update={"campaign": home.lots})
        after = _extended(current, entry, current.head)
        for bound in bounds:
            _check_bound(current, after, entry, bound)
        head = file.append(entry.model_dump(mode="json"))
    return _extended(current, entry, head)


def add(ledger: Ledger, entry: Closing | Shared) -> Ledger:
    """Write down what costs nothing by itself; durable when this returns. Raises as `charge`, but no BudgetError."""
    with chain.appending(_KIND, ledger.path) as file:
        current = _continued(ledger, file)
        head = file.append(entry.model_dump(mode="json"))
    return _extended(current, entry, head)


def tells_apart(ledger: Ledger, partition: str) -> bool:
    """Whether this partition overlaps with no other that was charged: all are told apart in the same way, which their names'
    last part stands for.
    """
    kind = partition.rpartition("-")[2]
    return all(charge.partition is None or charge.partition.rpartition("-")[2] == kind for charge in ledger.charges)


def a_new_partition(ledger: Ledger) -> str | None:
    """The name of a partition to which nothing was charged; None: this ledger tells no rows apart."""
    known = {charge.partition for charge in ledger.charges if charge.partition is not None}
    return f"new-{min(known).rpartition('-')[2]}" if known else None


def with_entries(ledger: Ledger, entries: Iterable[Entry]) -> Ledger:
    """The ledger as it would be with these entries added; nothing is written."""
    return replace(ledger, entries=(*ledger.entries, *entries))


def spent(ledger: Ledger, delta_dp: float, run: str | None = None, unit: Unit = "record",
          partition: str | None = None, *, alone: bool = False) -> float:
    """Epsilon of one unit at `delta_dp` of what was released, of all charges or of those of one run; rounded up, infinite if
    anything left without noise for that unit. Of a record: of the one that has spent most, in this partition or in any. Of a
    person: all of it, since a person may have rows in every partition, to train on and held out.

    Noise that is shared counts as a whole: the others add theirs. alone: as if each of them told what it added.
    """
    return _most(ledger, delta_dp, run, unit, partition, whole=False, alone=alone)


def held(ledger: Ledger, delta_dp: float, run: str | None = None, unit: Unit = "record",
         partition: str | None = None, *, alone: bool = False) -> float:
    """The same, plus what is set aside for campaigns and not yet used: this counts against a budget."""
    return _most(ledger, delta_dp, run, unit, partition, whole=True, alone=alone)


def _most(ledger: Ledger, delta_dp: float, run: str | None, unit: Unit, partition: str | None, *, whole: bool,
          alone: bool) -> float:
    book = ledger.book
    told = {tuple(one.alone() if alone else one for one in batches(book, view, run, whole=whole))
            for view in (views(book, partition) if unit == "record" else [None])}
    return max(epsilon_of_batches(asked, delta_dp, unit) for asked in told)


def _check_bound(before: Ledger, after: Ledger, charge: Charge, bound: Bound) -> None:
    if math.isinf(bound.epsilon):
        return

    def cost(ledger: Ledger) -> float:
        return held(ledger, bound.delta_dp, bound.run, bound.unit, alone=bound.alone)

    if cost(after) > bound.epsilon:
        raise BudgetError(
            f"data set '{before.dataset}': round {charge.round} of run '{charge.run}' would bring the epsilon of a "
            f"{bound.unit} {'' if bound.run is None else 'in this run '}"
            f"{'as if nobody else added noise ' if bound.alone else ''}from {cost(before):.6f} to {cost(after):.6f} at "
            f"delta_dp {bound.delta_dp}, and {bound.whose} {bound.epsilon:g}; nothing was charged")


def _continued(ledger: Ledger, file: chain.Appender[_Opening, _Entry]) -> Ledger:
    current = _ledger(ledger.path, file.chain)
    if current.entries[:len(ledger.entries)] != ledger.entries or current.dataset != ledger.dataset:
        raise LedgerError(f"{ledger.path} does not continue what was read from it before: restore the newest copy")
    return current


def _extended(ledger: Ledger, entry: Entry, head: str) -> Ledger:
    return Ledger(ledger.path, ledger.dataset, (*ledger.entries, entry), (*ledger.heads, head))


def _ledger(path: Path, found: chain.Chain[_Opening, _Entry]) -> Ledger:
    heads = (found.opening.sha256, *(entry.sha256 for entry in found.entries))
    return _sorted_once(path, found.opening.dataset, _Lines(heads, tuple(entry.charge for entry in found.entries)))


@dataclass(frozen=True)
class _Lines:
    """What a file said. The digests stand for it: each was compared with its line."""

    heads: tuple[str, ...]
    entries: tuple[Entry, ...] = field(compare=False)


@lru_cache(maxsize=2)
def _sorted_once(path: Path, dataset: str, lines: _Lines) -> Ledger:
    """The same value for the same lines: a round reads its ledger several times, and sorts it once for each of its lines."""
    return Ledger(path, dataset, lines.entries, lines.heads)
