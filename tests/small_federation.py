"""A whole federation without Prefect: real folders, keys, ledgers and a real store in one directory, three small sites."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fedround.types import Commit, Purpose
from infra.settings import CoordinatorSettings, DataSettings, DirectorySettings
from site_workers import round as site_round
from site_workers.enrol import create_site
from site_workers.site import Site, open_site
from tasks.aggregate import aggregate
from tasks.collect import Collected, collect
from tasks.coordinator import Coordinator, open_coordinator
from tasks.history import Committed
from tasks.membership import add_member, create_coordinator, make_invitation
from tasks.plan import Planned, RoundRequest, plan_round
from tasks.publish import publish

RECIPE = '''"""Two numbers, one logit."""
import numpy as np
from torch import nn

from fedround.learning.recipe import Examples

NAME = "tiny"


def encode(rows):
    return Examples(rows[["x1", "x2"]].to_numpy(np.float32), rows["y"].to_numpy(np.int64))


def build_model():
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
'''
CONTRACT = {"name": "tiny", "checks": [
    {"id": "x1_in_range", "type": "expect_column_values_to_be_between",
     "kwargs": {"column": "x1", "min_value": -10, "max_value": 10}},
    {"id": "label_is_binary", "type": "expect_column_values_to_be_in_set", "kwargs": {"column": "y", "value_set": [0, 1]}},
]}
NAMES = ("north", "east", "south")


def settings(**changes: object) -> dict:
    """The agreed settings, with changes."""
    return {
        "name": "small", "quorum": 2, "deadline_s": 60,
        "training": {"local_steps": 3, "batch_size": 32, "learning_rate": 0.5},
        "privacy": {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3},
        "evaluation": {"bins": 10, "noise_std": 5.0},
        "rule": {"name": "weighted_mean"}, "optimizer": {"name": "fedavg", "learning_rate": 1.0, "momentum": 0.5},
        **changes}


def rows(count: int, seed: int) -> pd.DataFrame:
    """Two numbers and a label that they explain in part."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 2))
    return pd.DataFrame({"x1": x[:, 0].clip(-9, 9), "x2": x[:, 1],
                         "y": (x[:, 0] - x[:, 1] + generator.normal(size=count) > 0).astype(int)})


@dataclass
class SmallFederation:
    """The folders of everybody, below one."""

    root: Path

    @property
    def coordinator(self) -> Coordinator:
        """Opened anew, as a process that has just started would."""
        return open_coordinator(self.root / "coordinator")

    def site(self, name: str) -> Site:
        """Opened anew."""
        return open_site(self.root / name)

    def plan(self, run: str = "spring", **changes: object) -> Planned:
        """The next round's plan, published."""
        return plan_round(self.coordinator, RoundRequest(run=run, **changes))

    def answer(self, name: str, planned: Planned) -> str:
        """One site answers a plan, in a fresh process as far as memory goes."""
        plan = planned.plan
        return site_round.answer(self.site(name), site_round.SiteRequest(
            run=plan.run, round=plan.round, attempt=plan.attempt, purpose=Purpose(plan.purpose)), lambda: False)

    def collect(self, planned: Planned, coordinator: Coordinator | None = None,
                order: tuple[str, ...] | None = None) -> Collected:
        """What is in the store for this plan; nobody is waited for. order: the one in which the sites say "done"."""
        waiting = [set(planned.plan.cohort)] if order is None else [set(order[:n + 1]) for n in range(len(order))]

        async def finished(among: set[str]) -> set[str]:
            return among & (waiting.pop(0) if len(waiting) > 1 else waiting[0])

        return asyncio.run(collect(coordinator or self.coordinator, planned, finished, lambda _: None))

    def commit(self, planned: Planned, coordinator: Coordinator | None = None,
               order: tuple[str, ...] | None = None) -> Committed:
        """Aggregate and publish what is there."""
        coordinator = coordinator or self.coordinator
        collected = self.collect(planned, coordinator, order)
        return publish(coordinator, planned, collected, aggregate(coordinator, planned, collected))

    def round(self, run: str = "spring", sites: tuple[str, ...] = NAMES) -> Commit:
        """One whole round."""
        planned = self.plan(run)
        for name in sites:
            self.answer(name, planned)
        return self.commit(planned).commit


def make(root: Path, *, max_epsilon: float = 8.0, allow_no_privacy: bool = False, **changes: object) -> SmallFederation:
    """A federation of three sites with 300, 200 and 150 rows."""
    (root / "agreed").mkdir(parents=True)
    (root / "agreed" / "recipe.py").write_text(RECIPE)
    (root / "agreed" / "contract.json").write_text(json.dumps(CONTRACT))
    rows(400, 99).to_parquet(root / "agreed" / "test.parquet")
    folder = root / "coordinator"
    create_coordinator(
        folder, settings(**changes),
        CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json", test_set="test.parquet",
                            api_url="http://127.0.0.1:9/api", store=DirectorySettings(path="../store")),
        root / "agreed" / "recipe.py", root / "agreed" / "contract.json", None, root / "agreed" / "test.parquet")
    for seed, (name, count) in enumerate(zip(NAMES, (300, 200, 150), strict=True)):
        data = root / "data" / name
        data.mkdir(parents=True)
        rows(count, seed).to_parquet(data / "train.parquet")
        rows(80, 50 + seed).to_parquet(data / "validation.parquet")
        key = create_site(
            root / name, make_invitation(folder, name, None),
            DataSettings(dataset="people", train=str(data / "train.parquet"), validation=str(data / "validation.parquet")),
            max_epsilon=max_epsilon, delta_dp=1e-5, allow_no_privacy=allow_no_privacy, min_rows=50)
        add_member(folder, name, key, float(count))
    return SmallFederation(root)
