"""The banks as a real federation on one machine: every bank gets its folder, keys, policy, ledger and work pool."""

from __future__ import annotations

import tomllib
from pathlib import Path

from examples.banks.split import CLIENTS, HERE, split
from examples.story import write
from flows.one_machine import Agreement, Member, OneMachine

SHORT_ROUNDS = 12       # up to here larger steps do better


def set_up(machine: OneMachine, data: Path, rounds: int, epsilon: float) -> None:
    """Split the clients into `data`, then set up the federation; its servers must run.

    Every bank's budget is `epsilon` for the whole campaign of `rounds` rounds, and its policy allows no more.
    """
    settings = tomllib.loads((HERE / ("demo.toml" if rounds <= SHORT_ROUNDS else "settings.toml")).read_text())
    settings["privacy"] |= {"epsilon": epsilon, "rounds": rounds}
    parts = split()
    write(parts, data)
    members = [Member(bank.name, data / bank.name / "train.parquet", data / bank.name / "validation.parquet",
                      float(CLIENTS[bank.name][0])) for bank in parts.banks]
    machine.set_up(Agreement(settings, HERE / "recipe.py", HERE / "contract.json", data / "public_test.parquet"), members,
                   max_epsilon=epsilon, delta_dp=settings["privacy"]["delta_dp"])
