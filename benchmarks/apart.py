"""What it is worth that rows to train on and rows held out pay apart: the banks before and after; fills docs/privacy.md.

    python -m benchmarks.apart [--seeds 5]

Every line is run with the same seeds both ways, simulated: sites as made without `site init --ledger`, and with it. Judged on
the public test set. Remembers finished runs in build/apart.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pages import Memory, fill, table
from benchmarks.utility import at_epsilon
from fedround.agreement import Agreement
from fedround.learning.examples import Examples
from fedround.rounds.campaign import mechanism_for
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site
from fedround_examples.banks.split import STORY

EPSILONS = (1.0, 2.0, 5.0)
SHOWN = (320, 1280, 3640)                   # rows of the smallest, a middling and the largest bank
DOCS = Path("docs")


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    epsilon: float
    counts: str
    settings: Agreement


def main() -> None:
    """Run what is not remembered, then write the table."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="The banks, before and after parallel composition.")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    memory, encoded = Memory(Path("build/apart.json")), STORY.encoded()
    lines = [line(memory, case, encoded.train, encoded.test, range(asked.seeds)) for case in cases(STORY.settings())]
    told = table(["epsilon", "counts", "noise at 320 / 1,280 / 3,640 rows", "the same, apart", "AUC", "AUC, apart",
                  "difference, seed by seed"], lines)
    fill(DOCS / "privacy.md", "apart", told)
    print(told)


def cases(agreed: Agreement) -> list[Case]:
    """The banks' settings at several epsilons. What is counted gets the same share of every budget; then as much noise as at
    epsilon 5, and no groups, where the counts cost most of a small budget.
    """
    found = []
    for epsilon in EPSILONS:
        louder = agreed.privacy.epsilon / epsilon
        found.append(Case(epsilon, "as agreed" if louder == 1 else f"{louder:g} times the agreed noise",
                          at_epsilon(agreed, epsilon)))
    two = agreed.privacy.model_copy(update={"epsilon": 2.0})
    return [*found, Case(2.0, "the agreed noise, no groups", agreed.model_copy(update={"privacy": two, "groups": None}))]


def line(memory: Memory, case: Case, rows: dict[str, Examples], test: Examples, seeds: Sequence[int]) -> list[str]:
    """A line of the table: noise and AUC, without and with `--ledger`."""
    def reached(seed: int, *, apart: bool) -> float:
        depends_on = [case.settings.model_dump(mode="json"), seed, apart]
        return float(memory.recall("auc", depends_on, lambda: run(case.settings, rows, test, seed, apart=apart)))

    both = [np.array([reached(seed, apart=apart) for seed in seeds]) for apart in (False, True)]
    noises = [" / ".join(f"{noise(case.settings, count, apart=apart):.3f}" for count in SHOWN) for apart in (False, True)]
    return [f"{case.epsilon:g}", case.counts, *noises, *(_mean_sd(one, 4) for one in both), _mean_sd(both[1] - both[0], 4)]


def run(settings: Agreement, rows: dict[str, Examples], test: Examples, seed: int, *, apart: bool) -> float:
    """The AUC of one simulated campaign."""
    sites = {name: Site(own) for name, own in rows.items()}
    rounds = settings.privacy.rounds
    result = simulate(settings, STORY.recipe(), sites, rounds=rounds, chance=Seeded(seed), stacked=True, test=test,
                      judge_every=rounds, apart=apart)
    return float(result.last.test.auc)


def noise(settings: Agreement, rows: int, *, apart: bool) -> float:
    """The noise multiplier of a bank with so many rows."""
    how = settings.privacy, settings.training, settings.evaluation, rows, settings.groups, settings.drift
    return float(mechanism_for(*how, apart=apart).noise_multiplier)


def _mean_sd(values: np.ndarray, digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


if __name__ == "__main__":
    main()
