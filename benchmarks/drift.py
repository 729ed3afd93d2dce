"""Drift in weekly rounds over twelve banks, on the car-loan data: when it is found, and how often nothing is taken for it.

    python -m benchmarks.drift [--seeds 20] [--controls 40]     # half an hour of CPU time; fills docs/drift.md

Each bank counts its loans of a week, noised as at a site; only these loans pay. A seed is the sites' noise. In a control the
loans from before the change are dealt to the weeks at random: nothing drifts. Remembers what was run in build/drift.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.pages import Memory, fill, table
from fedround.drift.judge import Drift, DriftAsked, Told, judge
from fedround.drift.spec import DriftWatch, Watched
from fedround.privacy.accounting import epsilon
from fedround.privacy.noise import stream
from fedround.statistics import release, total
from fedround.statistics.partitions import Partitions
from fedround_examples.carloan.split import CARS, CHANGE, SALARIES, SOURCE, SOURCE_SHA256
from fedround_examples.story import read_source

REFERENCE, LAST_WEEK = 8, "2019-w16"
WATCH = DriftWatch(
    columns=(
        Watched(column="car_value", edges=(15_000.0, 20_000.0, 30_000.0, 45_000.0, 60_000.0)),
        Watched(column="debt_to_income_ratio", edges=(0.4, 0.5, 0.6, 0.65, 0.7)),
        Watched(column="loan_length", edges=(8.0, 12.0, 16.0, 19.0, 21.0)),
        Watched(column="driver_tenure", edges=(2.0, 4.0, 5.0, 6.0)),
        Watched(column="salary_range", values=tuple(SALARIES)),
        Watched(column="size_of_downpayment", values=("0%", "10%", "20%", "30%", "40%")),
        Watched(column="repaid_loan_on_prev_car", values=(0, 1))),
    noise_std=10.0, reference=REFERENCE, measurements=65,
    partitions=Partitions(column="timestamp", by="week"))


@dataclass(frozen=True)
class Rows:
    """A bank's loans of one week, as a site counts in them."""

    frame: pd.DataFrame

    def column(self, name: str) -> npt.NDArray[Any]:
        """As `Evidence`."""
        values = self.frame[name]
        return values.to_numpy() if values.dtype.kind in "biuf" else np.array(values.astype(str).tolist(), dtype=object)

    def scores(self) -> Any:
        """As `Evidence`: nobody asks."""
        raise NotImplementedError


Weeks = Mapping[str, Mapping[str, Rows]]
"""For each week, in order, each bank's loans."""


def main() -> None:
    """Run what is not remembered, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--controls", type=int, default=40)
    asked = parser.parse_args()
    memory, loans = Memory(Path("build/drift.json")), read_loans()
    drifting = [memory.recall("drifting", {"seed": seed}, partial(campaign, loans, seed)) for seed in range(asked.seeds)]
    calm = [memory.recall("control", {"seed": seed}, partial(control, loans, seed)) for seed in range(asked.controls)]
    text = shown(drifting, calm)
    fill(Path("docs/drift.md"), "carloan", text)
    print(text)


def read_loans() -> pd.DataFrame:
    """All loans, with their bank and week."""
    loans = read_source(SOURCE, SOURCE_SHA256)
    assert WATCH.partitions is not None
    days = loans["timestamp"].dt.date
    known = {day: WATCH.partitions.name_of(day) for day in set(days)}
    owner = loans["salary_range"].astype(str).map(SALARIES) + "-" + pd.cut(
        loans["car_value"], [0, *CARS.values()], labels=list(CARS)).astype(str)
    return loans.assign(week=days.map(known), bank=owner)


def dealt(loans: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The loans from before the change, dealt to their weeks at random; 65 weeks."""
    early = loans[loans["timestamp"] < CHANGE]
    return early.assign(week=np.random.default_rng([seed, 1]).permutation(early["week"].to_numpy()))


def by_week(loans: pd.DataFrame) -> dict[str, dict[str, Rows]]:
    """Each week's loans of each bank."""
    weeks = sorted(week for week in loans["week"].unique() if week <= LAST_WEEK)
    banks = sorted(loans["bank"].unique())
    parts = dict(iter(loans.groupby(["week", "bank"])))
    return {week: {bank: Rows(parts.get((week, bank), loans.iloc[:0])) for bank in banks} for week in weeks}


def control(loans: pd.DataFrame, seed: int) -> dict[str, list[list[Any]]]:
    """The alarms where nothing drifts."""
    return campaign(dealt(loans, seed), seed)


def campaign(loans: pd.DataFrame, seed: int) -> dict[str, list[list[Any]]]:
    """The alarms of a whole watch: for each week with any, the columns and sites (None: all together)."""
    found: dict[str, list[list[Any]]] = {}
    for drift in judged(by_week(loans), seed):
        if drift.is_alarm:
            found[drift.when] = [[shift.column, shift.site] for shift in drift.over_time if shift.drifted]
    return found


def judged(weeks: Weeks, seed: int) -> Iterator[Drift]:
    """What the coordinator says week by week."""
    told, before = dict[str, Told](), None
    for number, (week, banks) in enumerate(weeks.items()):
        told[week] = {bank: counted(rows, f"{seed}/{week}/{bank}") for bank, rows in banks.items()}
        first = [*told.values()][:REFERENCE]
        about = DriftAsked(watch=WATCH, round=0, when=week, first="the first weeks", level=WATCH.level(0),
                           seed=1000 * seed + number)
        before = judge(about, None if number < REFERENCE else together(first), told[week], before)
        yield before


def counted(rows: Rows, name: str) -> tuple[Any, ...]:
    """What a site releases."""
    return tuple(release(statistic, rows, stream(bytes(32), f"{name}/{statistic.columns[0]}".encode()))
                 for statistic in WATCH.statistics)


def together(told: Sequence[Told]) -> Told:
    """Several weeks as one."""
    return {bank: tuple(total(of_one) for of_one in zip(*(one[bank] for one in told), strict=True)) for bank in told[0]}


def shown(drifting: Sequence[Mapping[str, Any]], calm: Sequence[Mapping[str, Any]]) -> str:
    """The table, and what a loan pays."""
    begins = WATCH.partitions.name_of(CHANGE) if WATCH.partitions is not None else ""
    early = sum(any(week < str(begins) for week in alarms) for alarms in drifting)
    after = [sorted(week for week in alarms if week >= str(begins)) for alarms in drifting]
    at_once = sum(weeks[:1] == [begins] for weeks in after)
    in_two = sum(bool(weeks) and weeks[0] <= "2019-w14" for weeks in after)
    columns = sorted({column for alarms in drifting for found in alarms.values() for column, site in found if site is None})
    false = sum(bool(alarms) for alarms in calm)
    found = table(["twelve banks, 1,156 loans a week together, noise 10 on each count", "watches"], [
            ["found in the week in which the columns change (2019-w13, on its last day)", f"{at_once} of {len(drifting)}"],
            ["… at the latest one week later", f"{in_two} of {len(drifting)}"],
            ["watches with any alarm in the 64 weeks before", f"{early} of {len(drifting)}"],
            ["controls without drift, 65 weeks each: watches with any alarm", f"{false} of {len(calm)}"]])
    named = ", ".join(f"`{column}`" for column in columns)
    return (f"{found}\n\nFound over all banks together: {named}. A loan pays once, for its own week: "
            f"ε = {epsilon(WATCH.once, 1e-5):.2f} at δ = 1e-5.")


if __name__ == "__main__":
    main()
