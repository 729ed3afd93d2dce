"""Homomorphic encryption beside sums under masks, on the same work in one run; fills docs/encrypted.md.

    python -m benchmarks.encrypted PYTHON [--turns 3]

PYTHON: an interpreter with TenSEAL (`python -m venv v; v/bin/pip install tenseal==0.3.18 numpy`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from benchmarks.pages import fill, table
from benchmarks.secure_sums import ours

PAGE = Path("docs/encrypted.md")
MEMBERS, DROPOUTS, SIZES = 12, 2, (1_000_000, 10_000_000)
SETTINGS = {"CKKS, TenSEAL's tutorial (8192; 60, 40, 40, 60 bits)": ("8192", "60,40,40,60", "40"),
            "CKKS, no more than a sum needs (4096; 55, 54 bits)": ("4096", "55,54", "35")}


def main() -> None:
    """Measure, in turns; of each the quickest turn."""
    parser = argparse.ArgumentParser(description="What an encrypted sum costs.")
    parser.add_argument("python")
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    rows = []
    for size in SIZES:
        masks, encrypted = [], {name: list[dict[str, float]]() for name in SETTINGS}
        for _ in range(asked.turns):
            masks.append(ours(MEMBERS, DROPOUTS, size))
            for name, how in SETTINGS.items():
                encrypted[name].append(theirs(asked.python, size, how))
        site_s, sum_s = (min(turn[what] for turn in masks) for what in ("mask", "unmask"))
        mine = masks[0]["mask bytes"]
        rows.append([f"{size:,} numbers: masks", f"{site_s:.3g}", f"{sum_s:.3g}", f"{mine / 1e6:.3g}", "1", "1"])
        for name, turns in encrypted.items():
            own_s = min(turn["encrypt"] for turn in turns)
            added_s = min(turn["add"] + turn["open"] for turn in turns)
            rows.append([name, f"{own_s:.3g}", f"{added_s:.3g}", f"{turns[0]['bytes'] / 1e6:.3g}", f"{own_s / site_s:.0f}",
                         f"{turns[0]['bytes'] / mine:.1f}"])
    head = ("12 sites", "one site, CPU s", "the sum, CPU s", "a site sends, MB", "times its CPU", "times its bytes")
    found = table(head, rows)
    fill(PAGE, "costs", found)
    print(found)


def theirs(python: str, size: int, how: tuple[str, ...]) -> dict[str, float]:
    """The same sum under encryption, in a process of its own."""
    done = subprocess.run([python, Path(__file__).with_name("ckks_sums.py"), str(MEMBERS), str(size), *how],
                          check=True, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"})
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
