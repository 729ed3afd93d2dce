"""One measurement of `benchmarks.aggregation`, in a process of its own: prints CPU seconds, wall time and memory as JSON.

Runs in two environments: the project's, and one where only the peers are installed; so each side is imported where it is
measured, and nothing of fedround is needed for a peer.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """`aggregation_case SIDE CASE FOLDER ROWS COORDINATES F BUDGET_MB`"""
    side, case, folder, *numbers = sys.argv[1:]
    rows, coordinates, f, budget_mb = map(int, numbers)
    paths = [Path(folder) / f"{n:03d}.bin" for n in range(rows)]
    prepare = {"ours": ours, "byzfl": byzfl, "flower": flower}[side]
    work = prepare(case, paths, coordinates, f, budget_mb << 20)
    held = resident_mb()
    began, cpu = time.perf_counter(), time.process_time()
    work()
    print(json.dumps({"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - began,
                      "peak_mb": peak_mb(), "extra_mb": peak_mb() - held}))


def ours(case: str, paths: list[Path], coordinates: int, f: int, budget_bytes: int) -> Callable[[], Any]:
    """Reading included: the rows lie in files."""
    from fedround.aggregation import spec
    from fedround.aggregation.engine import FileNumbers, Row, aggregate

    if case == "read":
        return lambda: [read(path, budget_bytes // len(paths)) for path in paths]
    nearest = spec.NearestNeighbourMixing(f=f)
    how = {
        "mean": spec.Aggregation(rule=spec.WeightedMean()), "median": spec.Aggregation(rule=spec.CoordinateMedian()),
        "trimmed mean": spec.Aggregation(rule=spec.TrimmedMean(f=f)), "Krum": spec.Aggregation(rule=spec.Krum(f=f)),
        "multi-Krum": spec.Aggregation(rule=spec.MultiKrum(f=f)),
        "geometric median": spec.Aggregation(rule=spec.GeometricMedian()),
        "NNM + trimmed mean": nearest >> spec.TrimmedMean(f=f), "CAF": spec.Aggregation(rule=spec.SpectralFilter(f=f)),
        "Meamed": spec.Aggregation(rule=spec.Meamed(f=f)), "MDA": spec.Aggregation(rule=spec.MinimumDiameter(f=f)),
        "NNM + geometric median": nearest >> spec.GeometricMedian(), "DnC": spec.Aggregation(rule=spec.DivideAndConquer(f=f)),
    }[case]
    rows = [Row(path.stem, 1.0, FileNumbers(path, 0)) for path in paths]
    return lambda: aggregate(rows, how, coordinates, memory_budget_bytes=budget_bytes)


def read(path: Path, block: int) -> None:
    """One pass over a file."""
    buffer = bytearray(max(block, 1 << 16))
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def byzfl(case: str, paths: list[Path], coordinates: int, f: int, _: int) -> Callable[[], Any]:
    """In memory before the clock starts; its own defaults but f."""
    import byzfl
    import torch

    torch.set_num_threads(1)
    x_ND = torch.from_numpy(load(paths, coordinates))
    nearest, trimmed = byzfl.NNM(f), byzfl.TrMean(f)
    rule = {"mean": byzfl.Average(), "median": byzfl.Median(), "trimmed mean": trimmed, "multi-Krum": byzfl.MultiKrum(f),
            "Krum": byzfl.Krum(f), "geometric median": byzfl.GeometricMedian(nu=0.1, T=3),
            "Meamed": byzfl.Meamed(f), "MDA": byzfl.MDA(f),
            "NNM + trimmed mean": lambda x: trimmed(nearest(x))}[case]
    return lambda: rule(x_ND)


def flower(case: str, paths: list[Path], coordinates: int, f: int, _: int) -> Callable[[], Any]:
    """In memory before the clock starts, as the list of arrays that a strategy gets."""
    from flwr.server.strategy import aggregate as flwr

    results = [([row], 1) for row in load(paths, coordinates)]
    return {"mean": lambda: flwr.aggregate(results), "median": lambda: flwr.aggregate_median(results),
            "trimmed mean": lambda: flwr.aggregate_trimmed_avg(results, f / len(paths)),
            "Krum": lambda: flwr.aggregate_krum(results, f, 0),
            "multi-Krum": lambda: flwr.aggregate_krum(results, f, len(paths) - f)}[case]


def load(paths: list[Path], coordinates: int) -> np.ndarray:
    """All rows, (N, D)."""
    x_ND = np.empty((len(paths), coordinates), np.float32)
    for x_D, path in zip(x_ND, paths, strict=True):
        x_D[:] = np.fromfile(path, np.float32, coordinates)
    return x_ND


def resident_mb() -> float:
    """Now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def peak_mb() -> float:
    """Largest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
