"""Federations on real servers, for tests that need one of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.one_machine import Founding, OneMachine, SiteToMake
from infra.settings import load_toml, save_toml
from infra.stack import LocalStack
from site_workers.policy import SitePolicy
from tests.e2e.conftest import HOLDING, Federation, on_servers, own_settings
from tests.small_federation import CONTRACT, RECIPE, rows, settings


@contextmanager
def with_members(home: Path, sites: tuple[str, ...], *, recipe: str = RECIPE, rows_agreed: int | None = None,
                 measures: bool = False, **changes: Any) -> Iterator[Federation]:
    """Sites with 200 rows to train on and 100 held out, set up on servers of their own. No process of a member runs yet.

    rows_agreed, measures: as `Member.rows` and `OneMachine.set_up`. changes: of what was agreed.
    """
    stack = LocalStack(home)
    info = stack.start(lambda _: None)
    machine, agreed = OneMachine(stack.home), stack.home / "agreed"
    agreed.mkdir()
    (agreed / "recipe.py").write_text(recipe)
    (agreed / "contract.json").write_text(json.dumps(CONTRACT))
    rows(400, 99).to_parquet(agreed / "test.parquet")
    members = []
    for seed, name in enumerate(sites):
        data = stack.home / "data" / name
        data.mkdir(parents=True)
        rows(200, seed).to_parquet(data / "train.parquet")
        rows(100, 50 + seed).to_parquet(data / "validation.parquet")
        members.append(SiteToMake(name, data / "train.parquet", data / "validation.parquet", 200.0, rows_agreed))
    said = settings(**{"deadline_s": 120, "privacy": {
        "unit": "record", "epsilon": 20.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 12}, **changes})
    try:
        with on_servers(machine, info.api_url) as federation:
            with own_settings(federation.api_url):
                machine.set_up(Founding(said, agreed / "recipe.py", agreed / "contract.json", agreed / "test.parquet"),
                               members, max_epsilon=900.0, delta_dp=1e-5, min_rows=50, measures=measures)
            yield federation
    finally:
        stack.stop()


@contextmanager
def adding(home: Path, sites: tuple[str, ...], combine: dict[str, object]) -> Iterator[Federation]:
    """Sites whose numbers are added up so. All processes run."""
    with with_members(
            home, sites, recipe=HOLDING, rows_agreed=200, measures=True,
            quorum=len(sites) - combine["dropouts"], deadline_s=300, aggregation=None,
            training={"name": "union_step", "batch_size": 50 * len(sites), "learning_rate": 0.5},
            combine={"name": "secure_sum", **combine}) as federation:
        for name in sites:
            path = federation.machine.site(name) / "policy.toml"
            policy = load_toml(SitePolicy, path)
            save_toml(policy.model_copy(update={"max_epsilon_alone": 900.0, "statistics": (
                *policy.statistics, "moments")}), path, "alone, too")
        federation.start_processes()
        yield federation
