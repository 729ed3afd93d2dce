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
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

COMMON = 0.1
"""What all rows have in common, in every coordinate."""

RADIUS = 100.0
"""Of centered clipping."""


def main() -> None:
    """`aggregation_case SIDE CASE FOLDER ROWS COORDINATES F BUDGET_MB` measures one case.

    With several cases, separated by commas, it measures nothing: it writes what they return to FOLDER/SIDE.npz.
    """
    side, cases, folder, *numbers = sys.argv[1:]
    rows, coordinates, f, budget_mb = map(int, numbers)
    paths = [Path(folder) / f"{n:03d}.bin" for n in range(rows)]
    prepare = {"ours": ours, "byzfl": byzfl, "flower": flower}[side]
    if "," in cases:
        found = {case: in_numpy(prepare(case, paths, coordinates, f, budget_mb << 20)()) for case in cases.split(",")}
        np.savez(Path(folder) / f"{side}.npz", **found)
        return
    work = prepare(cases, paths, coordinates, f, budget_mb << 20)
    held = resident_mb()
    began, cpu = time.perf_counter(), time.process_time()
    work()
    print(json.dumps({"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - began,
                      "peak_mb": peak_mb(), "extra_mb": peak_mb() - held}))


def ours(case: str, paths: list[Path], coordinates: int, f: int, budget_bytes: int) -> Callable[[], Any]:
    """Reading included: the rows lie in files."""
    from fedround.aggregation import rules, spec
    from fedround.aggregation.engine import FileNumbers, Row, aggregate
    from fedround.aggregation.noise_law import NoiseLaw

    if case == "read":
        return lambda: [read(path, budget_bytes // len(paths)) for path in paths]
    if case == "w @ X":
        return lambda: naive_mean(paths, coordinates)
    nearest, trimmed = spec.NearestNeighbourMixing(f=f), rules.TrimmedMean(f=f)
    how = {
        "mean": spec.Aggregation(rule=rules.WeightedMean()), "median": spec.Aggregation(rule=rules.CoordinateMedian()),
        "trimmed mean": spec.Aggregation(rule=trimmed), "Meamed": spec.Aggregation(rule=rules.Meamed(f=f)),
        "Krum": spec.Aggregation(rule=rules.Krum(f=f)), "multi-Krum": spec.Aggregation(rule=rules.MultiKrum(f=f)),
        "Bulyan": spec.Aggregation(rule=rules.Bulyan(f=f)), "MoNNA": spec.Aggregation(rule=rules.NearestToPivot(f=f)),
        "MDA": spec.Aggregation(rule=rules.MinimumDiameter(f=f)), "SMEA": spec.Aggregation(rule=rules.MinimumSpectrum(f=f)),
        "CAF": spec.Aggregation(rule=rules.SpectralFilter(f=f)), "DnC": spec.Aggregation(rule=rules.DivideAndConquer(f=f)),
        "geometric median": spec.Aggregation(rule=rules.GeometricMedian()),
        "converged geometric median": spec.Aggregation(rule=rules.GeometricMedian()),
        "centered clipping": spec.Aggregation(rule=rules.CenteredClipping(radius=RADIUS)),
        "ARC + trimmed mean": spec.ArcClipping(f=f) >> trimmed,
        "NNM + trimmed mean": nearest >> trimmed, "NNM + geometric median": nearest >> rules.GeometricMedian(),
        "gate + NNM + trimmed mean": (spec.Gate(f=f) >> spec.NearestNeighbourMixing(f=f, near="inner_product") >> trimmed),
    }[case]
    law = NoiseLaw(signal_bound=COMMON * coordinates ** 0.5, variance=1.0)      # only a gate looks at it
    rows = [Row(path.stem, 1.0, FileNumbers(path, 0), law) for path in paths]
    return lambda: aggregate(rows, how, coordinates, memory_budget_bytes=budget_bytes)


def read(path: Path, block: int) -> None:
    """One pass over a file."""
    buffer = bytearray(max(block, 1 << 16))
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def naive_mean(paths: list[Path], coordinates: int) -> np.ndarray:
    """The least that a mean can cost in numpy: float32 sums, no norms, no distances, no look at what is finite."""
    block = 1 << 16
    weight_N = np.full(len(paths), 1 / len(paths), np.float32)
    x_NB, mean_D = np.empty((len(paths), block), np.float32), np.empty(coordinates, np.float32)
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb", buffering=0)) for path in paths]
        for start in range(0, coordinates, block):
            width = min(block, coordinates - start)
            for x_B, file in zip(x_NB, files, strict=True):
                file.readinto(x_B[:width].data)
            np.matmul(weight_N, x_NB[:, :width], out=mean_D[start:start + width])
    return mean_D


def byzfl(case: str, paths: list[Path], coordinates: int, f: int, _: int) -> Callable[[], Any]:
    """In memory before the clock starts; its own defaults but f, and but where a case asks for more."""
    import byzfl
    import torch

    torch.set_num_threads(1)
    x_ND = torch.from_numpy(load(paths, coordinates))
    trimmed = byzfl.TrMean(f)
    rule = {"mean": byzfl.Average(), "median": byzfl.Median(), "trimmed mean": trimmed, "Meamed": byzfl.Meamed(f),
            "Krum": byzfl.Krum(f), "multi-Krum": byzfl.MultiKrum(f), "MoNNA": byzfl.MoNNA(f, idx=0),
            "MDA": byzfl.MDA(f), "SMEA": byzfl.SMEA(f), "geometric median": byzfl.GeometricMedian(nu=0.1, T=3),
            "converged geometric median": byzfl.GeometricMedian(nu=1e-6, T=300),
            "centered clipping": byzfl.CenteredClipping(L=3, tau=RADIUS),
            "ARC + trimmed mean": lambda x: trimmed(byzfl.ARC(f)(x)),
            "NNM + trimmed mean": lambda x: trimmed(byzfl.NNM(f)(x))}[case]
    return lambda: rule(x_ND)


def flower(case: str, paths: list[Path], coordinates: int, f: int, _: int) -> Callable[[], Any]:
    """In memory before the clock starts, as the list of arrays that a strategy gets."""
    from flwr.server.strategy import aggregate as flwr

    results = [([row], 1) for row in load(paths, coordinates)]
    return {"mean": lambda: flwr.aggregate(results), "median": lambda: flwr.aggregate_median(results),
            "trimmed mean": lambda: flwr.aggregate_trimmed_avg(results, (f + 0.5) / len(paths)),
            "Krum": lambda: flwr.aggregate_krum(results, f, 0),
            "multi-Krum": lambda: flwr.aggregate_krum(results, f, len(paths) - f),
            "Bulyan": lambda: flwr.aggregate_bulyan(results, f, flwr.aggregate_krum, to_keep=0)}[case]


def in_numpy(result: Any) -> np.ndarray:
    """What one of the three returned, as one array."""
    if isinstance(result, list):                    # Flower: a model's arrays, here one
        result = result[0]
    return np.asarray(getattr(result, "delta_D", result))


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
    """Largest so far. What `getrusage` says counts the parent's memory before this program began."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
