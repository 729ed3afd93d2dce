"""Methods of transfer between sites that differ, each against its rivals over paired seeds; fills docs/transfer.md.

    python -m benchmarks.transfer        # ten minutes of CPU time; remembered in build/transfer.json

What is offered runs in the simulator, whose bytes are a live federation's; what is only judged, in `benchmarks.many_sites`.
Every method has the same steps, 30 rounds of 10, and the one of the case's learning rates that
is better for it with two other seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import transfer_cases as cases
from benchmarks.pages import Memory, fill, table

SEEDS, CHOSEN_BY = range(5), (100, 101)
RATES, OF_BANKS = (0.1, 0.3), (0.1,)
"""The banks take twenty times as much: the example's own rate."""

Found = Mapping[str, float]
"""What each method reached, in one world and with one seed."""

CASES: dict[str, Callable[[int, float], Found]] = {
    "banks": cases.two_codings,
    "few_labels": cases.few_labels, "other_names": cases.other_names,
    "adapters_names": cases.adapters_names, "adapters_labels": cases.adapters_labels,
    "heads": cases.two_heads, "hospitals": cases.hospitals_columns}


def measured(memory: Memory, name: str, case: Callable[[int, float], Found]) -> list[Found]:
    """What each method reached with each seed, at its rate."""
    def run(seed: int, rate: float) -> Found:
        return memory.recall(name, [seed, rate], partial(case, seed, rate))

    rates = OF_BANKS if name == "banks" else RATES
    if len(rates) == 1:
        return [run(seed, rates[0]) for seed in SEEDS]
    tried = {rate: [run(seed, rate) for seed in CHOSEN_BY] for rate in rates}
    best = {method: max(rates, key=lambda rate, method=method: sum(one[method] for one in tried[rate]))
            for method in tried[rates[0]][0]}
    return [{method: run(seed, rate)[method] for method, rate in best.items()} for seed in SEEDS]


def rows(found: list[Found], rivals: list[str]) -> list[list[str]]:
    """A line for each method: mean and standard error over seeds, and of the paired differences to each rival."""
    lines = []
    for name in found[0]:
        own_S = np.array([one[name] for one in found])
        differences = [own_S - np.array([one[rival] for one in found]) for rival in rivals]
        lines.append([name, f"{own_S.mean():.3f} ± {_error(own_S):.3f}",
                      *("" if name == rival else f"{difference_S.mean():+.3f} ± {_error(difference_S):.3f}"
                        for rival, difference_S in zip(rivals, differences, strict=True))])
    return lines


def _error(values_S: np.ndarray) -> float:
    return float(values_S.std(ddof=1) / len(values_S) ** 0.5)


def main() -> None:
    """Run what is not remembered, then write the tables."""
    import torch

    torch.set_num_threads(1)
    memory, page = Memory(Path("build/transfer.json")), Path("docs/transfer.md")
    for name in sys.argv[1:] or CASES:
        case = CASES[name]
        found = measured(memory, name, case)
        rivals = [next(iter(found[0])), next(key for key in found[0] if key.startswith("FedAvg"))]
        text = table(["", "mean over the sites", *(f"less {rival}" for rival in rivals)], rows(found, rivals))
        fill(page, name, text)
        print(f"{name}\n{text}", flush=True)


if __name__ == "__main__":
    main()
