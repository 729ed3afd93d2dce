"""Hundreds of rounds on real processes: memory, open files and the time of a round, which must stay flat.

    python -m benchmarks.soak                         # 200 rounds, six sites; draws docs/soak.svg
    python -m benchmarks.soak --rounds 20 --sites 2

Everything is real, as in `benchmarks.round_overhead`: PostgreSQL, Prefect, S3, a coordinator, a process for each site. Memory
is PSS, open files are those of a part's whole process tree. Flat means: a line through the second half of the rounds grows by
less than 5 % over a hundred rounds, or by less than 5 MB, or two files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.round_overhead import parts, set_up, train
from flows.one_machine import OneMachine

DOCS = Path(__file__).resolve().parents[1] / "docs"
WARM_UP_ROUNDS = 5
NAMES = {"server": "Prefect server", "database": "PostgreSQL", "store": "S3 server"}
"""Of parts, for people."""


@dataclass(frozen=True)
class Sample:
    """What every part took after a round."""

    round: int
    seconds: float
    """Of a round, since the last sample."""
    pss_mb: dict[str, float]
    files: dict[str, int]
    processes: dict[str, int]


def main() -> None:
    """Run, say, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--every", type=int, default=5, help="rounds between two samples")
    parser.add_argument("--out", type=Path, default=DOCS / "soak.svg")
    options = parser.parse_args()
    samples = list[Sample]()
    with tempfile.TemporaryDirectory() as folder:
        machine = OneMachine(Path(folder) / "home")
        try:
            machine.start_servers(lambda _: None)
            set_up(machine, options.sites, options.rounds, 17_000)
            coordinator = machine.start_processes(lambda _: None)
            train(coordinator, WARM_UP_ROUNDS)
            for number in range(WARM_UP_ROUNDS + options.every, options.rounds + 1, options.every):
                began = time.monotonic()
                train(coordinator, number)
                samples.append(sample(machine, number, (time.monotonic() - began) / options.every))
                print(json.dumps(asdict(samples[-1])), flush=True)
        finally:
            machine.stop()
    print(table(samples))
    draw(samples, options.out)


def sample(machine: OneMachine, number: int, seconds: float) -> Sample:
    """What every part takes now."""
    trees = parts(machine)
    return Sample(number, round(seconds, 2),
                  {part: round(sum(process.memory_full_info().pss for process in tree) / 1e6, 1)
                   for part, tree in trees.items()},
                  {part: sum(process.num_fds() for process in tree) for part, tree in trees.items()},
                  {part: len(tree) for part, tree in trees.items()})


def growth(samples: Sequence[Sample], values: Sequence[float]) -> float:
    """Of a line through the second half, over a hundred rounds."""
    half = len(samples) // 2
    slope, _ = np.polyfit([one.round for one in samples[half:]], values[half:], 1)
    return float(100 * slope)


def table(samples: Sequence[Sample]) -> str:
    """For people and for docs/scaling.md."""
    lines = ["| part | PSS MB, first | last | growth a 100 rounds | open files, first | last | growth a 100 rounds | flat |",
             "|---|--:|--:|--:|--:|--:|--:|---|"]
    for part in samples[0].pss_mb:
        memory, files = ([float(getattr(one, what)[part]) for one in samples] for what in ("pss_mb", "files"))
        more, open_more = growth(samples, memory), growth(samples, files)
        flat = (more < max(5.0, 0.05 * memory[-1])) and open_more < max(2.0, 0.05 * files[-1])
        lines.append(f"| {NAMES.get(part, part)} | {memory[0]:.0f} | {memory[-1]:.0f} | {more:+.1f} | {files[0]:.0f} | "
                     f"{files[-1]:.0f} | {open_more:+.1f} | {'yes' if flat else '**no**'} |")
    seconds = [one.seconds for one in samples]
    lines += ["", f"seconds a round: {seconds[0]:.2f} first, {seconds[-1]:.2f} last, median {np.median(seconds):.2f}"]
    return "\n".join(lines)


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Memory and open files over the rounds. Files go by powers of ten: tens at the coordinator, thousands at PostgreSQL."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "soak", "font.family": "sans-serif", "font.size": 9}):
        figure, panels = plt.subplots(1, 2, figsize=(9, 3.2))
        for panel, what, words in zip(panels, ("pss_mb", "files"), ("memory (PSS), MB", "open files, by powers of ten"),
                                      strict=True):
            for part in samples[0].pss_mb:
                panel.plot([one.round for one in samples], [getattr(one, what)[part] for one in samples],
                           label=NAMES.get(part, part))
            panel.set(xlabel="round", ylabel=words)
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylim(0, None)
        panels[1].set_yscale("log")
        panels[1].set_ylim(10, 10_000)
        figure.tight_layout(rect=(0, 0.08, 1, 1))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=5, frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
