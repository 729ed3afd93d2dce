"""What compression saves and costs: bytes that sites upload against how good the model becomes, on the banks (with and
without differential privacy) and the digits; fills docs/compression.md and draws docs/compression.svg.

    python -m benchmarks.compression [--seeds 3]

Everything but the compression is as the example's settings say. Remembers finished runs in build/compression.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pages import Memory, fill, table
from fedround.agreement import Agreement
from fedround.compression.spec import Compression, CountSketch, Quantised, TopK
from fedround.learning.evaluate import scores
from fedround.privacy.spec import NoPrivacy
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site
from fedround_examples.banks.split import STORY as BANKS
from fedround_examples.digits.split import STORY as DIGITS
from fedround_examples.story import Encoded, Story

DOCS = Path("docs")
KINDS: dict[str, Compression | None] = {
    "none": None, "8 bits": Quantised(bits=8), "4 bits": Quantised(bits=4), "top 10 %": TopK(share=0.1),
    "top 5 %": TopK(share=0.05), "top 1 %": TopK(share=0.01), "sketch": CountSketch(rows=5, size=0.25, share=0.05)}


@dataclass(frozen=True)
class Workload:
    """An example as it is, but for the compression."""

    name: str
    story: Story
    private: bool
    measure: str
    """Of the metrics on the public test set."""

    def settings(self, compression: Compression | None) -> Agreement:
        """What the sites agree on."""
        agreed = self.story.settings().model_copy(update={"compression": compression})
        return agreed if self.private else agreed.model_copy(update={"privacy": NoPrivacy()})


WORKLOADS = (Workload("banks, epsilon 5", BANKS, private=True, measure="auc"),
             Workload("banks, no privacy", BANKS, private=False, measure="auc"),
             Workload("digits, no privacy", DIGITS, private=False, measure="accuracy"))
ROUNDS = 20


@dataclass(frozen=True)
class Reached:
    """One workload under one compression, over seeds."""

    workload: str
    compression: str
    uploaded_bytes: int
    """By all sites, in the whole campaign."""
    reached: tuple[float, ...]


def main() -> None:
    """Run what is not remembered, then write table and picture."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Bytes against what is learnt.")
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    memory = Memory(Path("build/compression.json"))
    found = [measured(memory, workload, name, seeds) for workload in WORKLOADS for name in KINDS]
    fill(DOCS / "compression.md", "table", report(found))
    draw(found, DOCS / "compression.svg")
    print(report(found))


def measured(memory: Memory, workload: Workload, name: str, seeds: Sequence[int]) -> Reached:
    """One line of the table."""
    settings = workload.settings(KINDS[name])

    def once(seed: int) -> tuple[int, float]:
        depends_on = [settings.model_dump(mode="json"), workload.story.recipe().digest, seed]
        uploaded, reached = memory.recall(f"{workload.name} {name} seed {seed}", depends_on,
                                          lambda: run(workload, settings, workload.story.encoded(), seed))
        return uploaded, reached

    each = [once(seed) for seed in seeds]
    return Reached(workload.name, name, each[0][0], tuple(reached for _, reached in each))


def run(workload: Workload, settings: Agreement, rows: Encoded, seed: int, rounds: int = ROUNDS) -> tuple[int, float]:
    """Bytes that all sites uploaded, and what the last model reaches on the public test set."""
    sites = {name: Site(examples) for name, examples in rows.train.items()}
    result = simulate(settings, workload.story.recipe(), sites, rounds=rounds, chance=Seeded(seed), stacked=True)
    reached = workload.story.recipe().task.metrics(scores(workload.story.recipe(), result.model, rows.test))
    return sum(one.received_bytes for one in result.rounds), reached.known()[workload.measure]


def report(found: Sequence[Reached]) -> str:
    """The table of docs/compression.md: for every compression its bytes, and what each workload reaches."""
    by_name = {(entry.workload, entry.compression): entry for entry in found}
    workloads = [workload for workload in WORKLOADS if (workload.name, "none") in by_name]
    rows = []
    for name in dict.fromkeys(entry.compression for entry in found):
        entries = [by_name[workload.name, name] for workload in workloads]
        saved = [1 - entry.uploaded_bytes / by_name[entry.workload, "none"].uploaded_bytes for entry in entries]
        low, high = f"{100 * min(saved):.0f}", f"{100 * max(saved):.0f}"
        rows.append([name, f"{low} %" if low == high else f"{low} to {high} %",
                     *(f"{np.mean(entry.reached):.4f} ± {np.std(entry.reached, ddof=1):.4f}" for entry in entries)])
    return table(["compression", "bytes saved", *(f"{workload.name}: {workload.measure}" for workload in workloads)], rows)


def draw(found: Sequence[Reached], path: Path) -> None:
    """What is reached against the share of the bytes that are sent, one panel for each workload."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "compression", "font.size": 9, "font.family": "sans-serif",
                         "font.sans-serif": ["DejaVu Sans"]}):      # every text repeats the whole list
        figure, panels = plt.subplots(1, len(WORKLOADS), figsize=(3.6 * len(WORKLOADS), 3.0))
        for axes, workload in zip(panels, WORKLOADS, strict=True):
            entries = [entry for entry in found if entry.workload == workload.name]
            whole = next(entry.uploaded_bytes for entry in entries if entry.compression == "none")
            for entry in entries:
                share, middle = 100 * entry.uploaded_bytes / whole, float(np.mean(entry.reached))
                axes.errorbar(share, middle, yerr=float(np.std(entry.reached, ddof=1)), fmt="o", capsize=3,
                              label=entry.compression)
            axes.set_xscale("log")
            axes.set_xticks([3, 10, 30, 100], ["3 %", "10 %", "30 %", "100 %"])
            axes.minorticks_off()
            axes.set_xlabel("bytes sent")
            axes.set_ylabel(f"{workload.measure} on the public test set")
            axes.set_title(workload.name)
        figure.tight_layout()
        figure.legend(*panels[0].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.02),
                      ncols=len(KINDS), frameon=False)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
