"""Every kind of task on real data: pooled, at single sites, in a federation with and without privacy; fills docs/tasks.md.

    python -m benchmarks.tasks                  # minutes of CPU time; remembered in build/tasks.json
    python -m benchmarks.tasks --only flchain

Each seed draws a quarter of the rows as the public test set and deals the others to sites of equal size, which hold out a
fifth. Every number is the task's headline on the test set. Privacy: the unit record, epsilon 5 at delta_dp 1e-5 over all
rounds; models, step lengths and clip norms were chosen by hand on the test rows of seed 100, which is used for nothing else.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.pages import Memory, fill, table
from benchmarks.tasks_cases import CASES, Case
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.agreement import Agreement
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples, joined
from fedround.learning.spec import LocalTraining
from fedround.privacy.spec import NoPrivacy, Privacy, RecordPrivacy
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.compare import alone, centralised
from fedround.simulation.partition import Iid, deal
from fedround.simulation.sites import Site

SEEDS, EPSILON, DELTA = (0, 1, 2, 3, 4), 5.0, 1e-5
COLUMNS = ("library, pooled", "pooled", "median site alone", "federation", f"federation, epsilon {EPSILON:g}")


def split(case: Case, seed: int) -> tuple[dict[str, Site], Examples]:
    """The sites and the test set of one seed."""
    rows = case.rows()
    order = np.random.default_rng(seed).permutation(len(rows))
    tested, others = rows.at(order[:len(rows) // 4]), rows.at(order[len(rows) // 4:])
    sites = {}
    for name, places in deal(Iid(), others, case.sites, seed, task=case.task).items():
        own = np.random.default_rng([seed, len(sites)]).permutation(places)
        sites[name] = Site(others.at(own[len(own) // 5:]), others.at(own[:len(own) // 5]))
    return sites, tested


def agreed(case: Case, training: LocalTraining, privacy: Privacy) -> Agreement:
    """The plainest terms."""
    return Agreement(name="tasks", quorum=case.sites, training=training, privacy=privacy,
                     aggregation=Aggregation(rule=WeightedMean()))


def reached(case: Case, column: str, seed: int) -> float | None:
    """One number of the table."""
    sites, tested = split(case, seed)
    without, chance = agreed(case, case.plain, NoPrivacy()), Seeded(seed)

    def worth(model: object) -> float:
        return case.task.worth(scores(case.recipe, model, tested))  # type: ignore[arg-type]

    match column:
        case "pooled":
            return worth(centralised(without, case.recipe, sites, case.rounds, chance, case.sites))
        case "median site alone":
            each = [worth(alone(without, case.recipe, site, case.rounds, chance)) for site in sites.values()]
            return float(np.median(each))
        case "federation":
            return worth(simulate(without, case.recipe, sites, rounds=case.rounds, chance=chance, stacked=True).model)
        case "library, pooled":
            everything = [rows for site in sites.values() for rows in (site.train, site.validation) if rows is not None]
            return None if case.oracle is None else case.oracle(joined(everything), tested)
    terms = agreed(case, case.private, RecordPrivacy(
        epsilon=EPSILON, delta_dp=DELTA, clip_norm=case.clip_norm, rounds=case.rounds))
    return worth(simulate(terms, case.recipe, sites, rounds=case.rounds, chance=chance, stacked=True).model)


def line(memory: Memory, name: str, case: Case) -> list[str]:
    """Means over seeds, each with its standard error."""
    cells, terms = [case.what], [case.rounds, case.sites, case.clip_norm, *(
        part.model_dump(mode="json") for part in (case.plain, case.private, case.task))]
    for column in COLUMNS:
        found = [memory.recall(f"{name}, {column}", [seed, *terms], partial(reached, case, column, seed)) for seed in SEEDS]
        if None in found:
            cells.append("–")
            continue
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        cells.append(f"{np.mean(found):.3f} ± {error:.3f}")
        print(name, column, cells[-1], flush=True)
    return cells


def main() -> None:
    """Run what is not remembered, then write the table."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Every kind of task on real data.")
    parser.add_argument("--only", choices=CASES)
    only = parser.parse_args().only
    memory = Memory(Path("build/tasks.json"))
    lines = [line(memory, name, case) for name, case in CASES.items() if only in (None, name)]
    text = table(["", *COLUMNS], lines)
    print(text)
    if only is None:
        fill(Path("docs/tasks.md"), "table", text)


if __name__ == "__main__":
    main()
