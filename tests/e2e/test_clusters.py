"""Sites of two kinds live: real servers and four site processes; two of the sites mean the opposite by their labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.e2e.conftest import Federation
from tests.e2e.founding import with_members

pytestmark = pytest.mark.stack

SITES, REVERSED, ROUNDS = ("ash", "birch", "cedar", "elm"), ("cedar", "elm"), 3


@pytest.fixture(scope="module")
def four(short_folder: Path, rows_are_judged_here: None) -> Iterator[Federation]:
    """Two models to choose from."""
    with with_members(short_folder / "clusters", SITES, quorum=3, deadline_s=900, optimizer={"name": "fedavg"},
                      evaluation={"bins": 10, "noise_std": 1.0, "clusters": 2},
                      privacy={"unit": "record", "epsilon": 60.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": ROUNDS},
                      training={"local_steps": 20, "batch_size": 100, "learning_rate": 0.5}) as federation:
        for name in REVERSED:
            for path in (federation.machine.home / "data" / name).glob("*.parquet"):
                frame = pd.read_parquet(path)
                frame.assign(y=1 - frame["y"]).to_parquet(path)
        federation.start_processes()
        yield federation


def test_sites_find_their_kind_and_every_choice_is_proven(four: Federation, run: str):
    ended = four.ended(four.start("federated-training", run=run, rounds=ROUNDS))
    assert ended.state.is_completed(), ended.state.message
    record = four.record(run, ROUNDS)
    chosen = {row["site"]: row["cluster"] for row in record["sites"]}
    assert chosen["ash"] == chosen["birch"] != chosen["cedar"] == chosen["elm"]
    assert all(row["note"] == f"chose model {row['cluster']} of 2" for row in record["sites"])
    assert "for each of 2 models that sites choose among" in record["aggregation"]
    page = (four.machine.coordinator / "reports" / run / f"{ROUNDS:05d}.html").read_text()
    assert page.count("chose model 0 of 2") == page.count("chose model 1 of 2") == 2
    assert record["at_sites"]["auc"] > 0.75, "each of the model of its kind; one model for all is a coin"
    for name in SITES:
        target = four.machine.home / f"{name}.safetensors"
        four.works("site", "model", four.machine.site(name), "--out", target, "--json")
        assert target.exists()
    proven = four.works("verify", run, "--as", four.machine.coordinator, "--recompute", "--json")
    assert [one["recomputed"] for one in json.loads(proven)["rounds"]] == [False, *[True] * ROUNDS]
