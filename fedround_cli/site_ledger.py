"""fedround site ledger: what each charge cost, what is set aside, and what remains."""

from __future__ import annotations

import bisect
import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedround.spoken import how_many
from fedround_cli.folders import SiteFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from fedround.privacy.campaigns import Campaign
    from fedround.privacy.ledger import Ledger
    from fedround.privacy.spec import Mechanism
    from site_workers.policy import SitePolicy

MOST_SHOWN = 40
"""The most charges that the table shows; --json shows all of them."""

_MOST_ROUNDS = 1000


@command
def ledger(
    folder: SiteFolder,
    close: Annotated[str | None, typer.Option(
        metavar="RUN", help="End a run here for good, and give back what was set aside for it and not used.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what has been spent on this site's rows: what each charge cost, what is set aside, and what is left.

    When a campaign begins, its whole cost is set aside. That amount counts against the budget, not the part that was used. If
    a campaign will not go on, --close gives back a little less than it has left. The campaign can then never be continued at
    this site.
    """
    from fedround.privacy import ledger as book
    from infra.settings import SiteSettings, load_toml
    from site_workers.policy import SitePolicy

    settings, policy = load_toml(SiteSettings, folder / "site.toml"), load_toml(SitePolicy, folder / "policy.toml")
    read = book.read(settings.data.ledger_file(folder))
    if close is not None:
        read = _close(read, settings.federation, close, policy)
    if as_json:
        print_json(_as_json(read, policy))
    else:
        _show(read, policy)


def _close(read: Ledger, federation: str, run: str, policy: SitePolicy) -> Ledger:
    from fedround.errors import ContractError
    from fedround.privacy import ledger as book
    from fedround.privacy.entries import Closing
    from fedround.privacy.profile import upward
    from site_workers.audit import utc

    if not any(one.is_open and (one.federation, one.run) == (federation, run) for one in read.book.campaigns):
        raise ContractError(f"no campaign of run '{run}' of federation '{federation}' is open: see 'fedround site ledger'")
    before = book.held(read, policy.delta_dp)
    after = book.add(read, Closing(federation=federation, run=run, utc=utc(datetime.now(UTC))))
    out.print(f"run '{run}' is closed at this site; ε {upward(before, 4)} was set aside before, and "
              f"{upward(book.held(after, policy.delta_dp), 4)} is now. More comes back when the next campaign begins")
    return after


def _show(read: Ledger, policy: SitePolicy) -> None:
    from rich.table import Table

    from fedround.privacy import ledger as book
    from fedround.privacy.profile import in_words, profile, upward

    first = max(0, len(read.charges) - MOST_SHOWN)
    table = Table("when (UTC)", "run", "round", "asked", "costs ε", "total ε", title=f"data set '{read.dataset}'")
    for charge, cost, total in _priced(read, policy.delta_dp, first):
        table.add_row(charge.utc[:16].replace("T", " "), charge.run or "unknown", str(charge.round), charge.purpose,
                      upward(cost, 4), upward(total, 4))
    out.print(table)
    if first:
        out.print(f"{how_many(first, 'earlier charge')}: --json shows all")
    spent = book.spent(read, policy.delta_dp)
    out.print(f"spent ε {upward(spent, 4)} of {policy.max_epsilon:g} at δ {policy.delta_dp:g} for one record "
              f"(PLD accountant); ledger head {read.head[:16]}…")
    if policy.max_epsilon_person is not None:
        of_person = upward(book.spent(read, policy.delta_dp, unit="person"), 4)
        out.print(f"spent ε {of_person} of {policy.max_epsilon_person:g} at δ {policy.delta_dp:g} for all rows of one person")
    if policy.max_epsilon_site is not None:
        out.print(f"spent ε {upward(book.spent(read, policy.delta_dp, unit='site'), 4)} of {policy.max_epsilon_site:g} at δ "
                  f"{policy.delta_dp:g} for the site as a whole")
    if policy.max_epsilon_label is not None:
        of_label = upward(book.spent(read, policy.delta_dp, unit="label"), 4)
        out.print(f"spent ε {of_label} of {policy.max_epsilon_label:g} at δ {policy.delta_dp:g} for one label")
    if (alone := _alone(read, policy)) is not None:
        of = f" of {policy.alone[1]:g}" if policy.max_epsilon_alone is not None else ""
        out.say("if nobody else's share of the noise counted, it would be ε {}{}, {} with what is set aside",
                upward(alone[0], 4), of, upward(alone[1], 4))
    for line in _left_in_words(read, policy):
        out.print(line)
    if 0 < spent < math.inf:
        for line in in_words(profile(lambda delta: book.spent(read, delta), policy.delta_dp)):
            out.print(line, highlight=False)


def _alone(read: Ledger, policy: SitePolicy) -> tuple[float, float] | None:
    """What is spent and what is set aside if every other member told what it added; None if no noise is shared."""
    from fedround.privacy import ledger as book

    unit, delta_dp = policy.alone[0], policy.delta_dp
    spent, held = (what(read, delta_dp, unit=unit, alone=True) for what in (book.spent, book.held))
    return (spent, held) if held > book.held(read, delta_dp, unit=unit) else None


def _priced(read: Ledger, delta_dp: float, first: int) -> list[tuple[Any, float, float]]:
    """Each charge from `first` on, how much it added to what one record of its partition has spent, and the total after."""
    from dataclasses import replace

    from fedround.privacy import ledger as book
    from fedround.privacy.entries import Charge

    places = [place for place, entry in enumerate(read.entries) if isinstance(entry, Charge)][first:]

    def after(place: int, partition: str | None) -> float:
        return book.spent(replace(read, entries=read.entries[:place]), delta_dp, partition=partition)

    found = []
    for place in places:
        entry = read.entries[place]
        part = entry.partition if isinstance(entry, Charge) else None
        before, total = after(place, part), after(place + 1, part)
        found.append((entry, _difference(before, total), total))
    return found


def _difference(before: float, total: float) -> float:
    return total if math.isinf(total) else max(0.0, total - before)


def _left_in_words(read: Ledger, policy: SitePolicy) -> list[str]:
    """What is set aside and what is left: of the record that has spent most, and of one in a partition of its own."""
    from fedround.privacy import ledger as book
    from fedround.privacy.profile import upward

    def left(held: float) -> str:
        """Rounded down by as much as what is held is rounded up."""
        return f"{max(0.0, policy.max_epsilon - float(upward(held, 4))):.4f}"

    held, fresh = book.held(read, policy.delta_dp), book.a_new_partition(read)
    told = [f"set aside ε {upward(held, 4)}, left {left(held)}: {_room(read, policy)}"]
    if fresh is not None:
        anew = book.held(read, policy.delta_dp, partition=fresh)
        paid = {charge.partition for charge in read.charges} - {None}
        told.append(f"paid by {how_many(len(paid), 'partition')}; records of a new one have ε {left(anew)} left")
    return told


def _room(read: Ledger, policy: SitePolicy) -> str:
    """How many more rounds are possible: of the campaigns that are open, or of one more like the last."""
    training = [one for one in read.book.campaigns if _mechanisms(one)]
    if not training:
        return "no campaign has begun"
    running = [f"{how_many(_left(one), 'round')} of '{one.run}'" for one in training if one.is_open and _left(one)]
    if running:
        return f"room for {', '.join(running)}"
    last = training[-1]
    return f"room for {how_many(_fitting(read, policy, last), 'round')} more like those of '{last.run}', as a new run" + (
        "" if last.partition is None else ", on a new partition")


def _mechanisms(one: Campaign) -> list[Mechanism]:
    """Those of its training: neither counts, nor labels that were told to one other member."""
    from fedround.privacy.spec import GaussianCounts, RandomisedLabels

    return [lot.mechanism for lot in one.lots if not isinstance(lot.mechanism, GaussianCounts | RandomisedLabels)]


def _left(one: Campaign) -> int:
    training = _mechanisms(one)
    return min((_rounds(use[0], times - one.used[use]) for use, times in one.fixed.items() if use[0] in training), default=0)


def _rounds(mechanism: Mechanism, times: int) -> int:
    """How many rounds so many payments are good for at least: of a fixed order, a record is in some only."""
    from fedround.privacy.spec import DpFtrl

    if isinstance(mechanism, DpFtrl) and mechanism.rows is not None:
        return times * mechanism.rows // (mechanism.steps * mechanism.batch_size)
    return times


def _fitting(read: Ledger, policy: SitePolicy, like: Campaign) -> int:
    from fedround.privacy import ledger as book
    from fedround.privacy.entries import Charge, Lot
    from fedround.privacy.participation import times_paid
    from fedround.privacy.spec import GaussianCounts

    def too_many(rounds: int) -> bool:
        lots = tuple(Lot(mechanism=lot.mechanism, rows=lot.rows,
                         times=times_paid(lot.mechanism, rounds) + isinstance(lot.mechanism, GaussianCounts))
                     for lot in like.lots)
        charge = Charge(federation=like.federation, run="one-more", round=1, purpose="train", plan=None, rows=tuple(
            lot.rows for lot in lots), mechanisms=tuple(lot.mechanism for lot in lots), delta_dp=policy.delta_dp,
            utc="2000-01-01T00:00:00Z", campaign=lots,
            partition=None if like.partition is None else book.a_new_partition(read))
        after = book.with_entries(read, [charge])
        unit, bound = policy.alone
        return book.held(after, policy.delta_dp, unit=unit, alone=True) > bound or any(
            book.held(after, policy.delta_dp, unit=unit) > bound for unit, bound in policy.budgets.items())

    return bisect.bisect_left(range(1, _MOST_ROUNDS + 1), True, key=too_many)


def _as_json(read: Ledger, policy: SitePolicy) -> dict[str, Any]:
    from fedround.privacy import ledger as book
    from fedround.privacy.profile import profile

    of_site, of_person, of_label, spent = (
        book.spent(read, policy.delta_dp, unit=unit) for unit in ("site", "person", "label", "record"))
    alone = _alone(read, policy)
    told = None if math.isinf(spent) else profile(lambda delta: book.spent(read, delta), policy.delta_dp)
    return {"dataset": read.dataset, "head": read.head, "delta_dp": policy.delta_dp, "spent": spent,
            "set_aside": book.held(read, policy.delta_dp), "room": _room(read, policy),
            "spent_by_site": None if math.isinf(of_site) else of_site, "max_epsilon_site": policy.max_epsilon_site,
            "spent_by_person": None if math.isinf(of_person) else of_person, "max_epsilon_person": policy.max_epsilon_person,
            "spent_by_label": None if math.isinf(of_label) else of_label, "max_epsilon_label": policy.max_epsilon_label,
            "max_epsilon": policy.max_epsilon, "max_epsilon_alone": policy.max_epsilon_alone,
            "spent_alone": None if alone is None else alone[0], "set_aside_alone": None if alone is None else alone[1],
            "profile": None if told is None else asdict(told),
            "charges": [{**charge.model_dump(mode="json"), "costs": cost, "total": total}
                        for charge, cost, total in _priced(read, policy.delta_dp, 0)]}
