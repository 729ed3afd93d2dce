"""An example as a real federation on one machine: every bank gets its folder, keys, policy, ledger and work pool."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

from fedround_examples.story import SHORT_ROUNDS, Story, write
from flows.one_machine import Founding, OneMachine, SiteToMake

WATCHED = 1.0
"""What a bank's ledger allows beyond the campaign for a watch by partitions, which is a run of its own."""


def set_up(story: Story, machine: OneMachine, data: Path, rounds: int, epsilon: float) -> None:
    """Split the clients into `data`, then set up the federation; its servers must run.

    Every bank's budget is `epsilon` for the whole campaign of `rounds` rounds, and its policy allows no more, except for a
    watch that is a run of its own. If that is less than the settings say, counts get louder by as much. A bank's weight is
    its number of clients.
    """
    short, here = story.folder / "demo.toml", story.folder
    settings = tomllib.loads((short if rounds <= SHORT_ROUNDS and short.exists() else here / "settings.toml").read_text())
    louder = max(1.0, settings["privacy"]["epsilon"] / epsilon)
    settings["privacy"] |= {"epsilon": epsilon, "rounds": rounds}
    watched = here / "drift.toml"
    if watched.exists() and rounds > 1:
        settings["drift"] = {"every": rounds // 2, **tomllib.loads(watched.read_text())}    # the second can be compared
    for counts in (settings.get("evaluation", {}), *settings.get("groups", {}).get("watched", ()), settings.get("drift", {})):
        if "noise_std" in counts and "partitions" not in counts:        # a watch by partitions is paid by itself
            counts["noise_std"] *= louder
    parts = story.split()
    write(parts, data)
    members = [SiteToMake(bank.name, data / bank.name / "train.parquet", data / bank.name / "validation.parquet",
                          float(len(bank.train) + len(bank.validation)), len(bank.train)) for bank in parts.banks]
    machine.set_up(Founding(settings, here / "recipe.py", here / "contract.json", data / "public_test.parquet"), members,
                   max_epsilon=epsilon + WATCHED * ("partitions" in settings.get("drift", {})), measures="drift" in settings,
                   delta_dp=settings["privacy"]["delta_dp"], min_rows=20)
    for name in ("card.toml", "promotion.toml"):
        if (here / name).exists():
            shutil.copyfile(here / name, machine.coordinator / name)
