"""The table of docs/compression.md says what was measured."""

from __future__ import annotations

from benchmarks.compression import KINDS, Reached, Workload, report, run
from fedround_examples.digits.split import STORY


def test_a_compression_saves_the_bytes_that_its_line_says():
    """One short run with and without, and their table."""
    workload = Workload("digits, no privacy", STORY, private=False, measure="accuracy")
    rows, found = STORY.encoded(), []
    for name in ("none", "4 bits"):
        each = [run(workload, workload.settings(KINDS[name]), rows, seed, rounds=1) for seed in (0, 1)]
        found.append(Reached(workload.name, name, each[0][0], tuple(reached for _, reached in each)))
    assert 0.85 < 1 - found[1].uploaded_bytes / found[0].uploaded_bytes < 0.875
    assert "| 4 bits | 86 % |" in report(found)
