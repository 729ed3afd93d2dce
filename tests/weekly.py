"""A small federation whose rows have dates, and that trains each week on the week before."""

from __future__ import annotations

import datetime
from pathlib import Path

import pandas as pd

from tests import small_federation
from tests.small_federation import SmallFederation, settings

MONDAY = datetime.date(2026, 1, 5)
"""The first day of 2026-w02."""


def name(week: int) -> str:
    """Of the partition; 1 is the first week with rows."""
    year, number, _ = (MONDAY + datetime.timedelta(weeks=week - 1)).isocalendar()
    return f"{year}-w{number:02d}"


def rows(weeks: range, count: int, seed: int) -> pd.DataFrame:
    """`count` rows of each week, on all its days, in no order."""
    days = [MONDAY + datetime.timedelta(weeks=week - 1, days=row % 7) for week in weeks for row in range(count)]
    frame = small_federation.rows(len(days), seed).assign(day=pd.to_datetime(days))
    return frame.sample(frac=1.0, random_state=seed, ignore_index=True)


def make(root: Path, weeks: int, *, apart: bool = True, **changes: object) -> SmallFederation:
    """Three sites with 80 rows of each week to train on and 20 held out; rounds enough for two a campaign."""
    federation = small_federation.make(root, apart=apart, **{
        "privacy": {**settings()["privacy"], "rounds": 2}, "partitions": {"column": "day", "by": "week"}, **changes})
    for seed, site in enumerate(federation.names):
        fill(federation, site, range(1, weeks + 1), seed)
    return federation


def fill(federation: SmallFederation, site: str, weeks: range, seed: int) -> None:
    """Give a site rows of these weeks, instead of those that it has."""
    data = federation.root / "data" / site
    rows(weeks, 80, seed).to_parquet(data / "train.parquet")
    rows(weeks, 20, 50 + seed).to_parquet(data / "validation.parquet")
