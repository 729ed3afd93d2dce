"""The speed table compares like with like: what is measured learns the same, and ratios are of one run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.simulation import report, report_crowd
from benchmarks.simulation_case import Clock, Workload, bare, ours


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    generator = np.random.default_rng(0)
    y = np.arange(600) % 10
    x = (generator.normal(size=(600, 64)) + 2 * np.eye(64)[y]).astype(np.float32)
    np.savez(tmp_path / "tiny.npz", x=x[:480], y=y[:480], client=np.arange(480) // 10 % 6, test_x=x[480:], test_y=y[480:],
             steps=3, batch=100, rate=0.5, picture=False)
    return Workload(str(tmp_path / "tiny.npz"))


def test_the_bare_loop_and_the_simulator_learn_the_same(workload: Workload):
    clock = Clock(others=False)
    by_us, by_loop = (side(workload, 4, clock) for side in (ours, bare))
    assert by_us == pytest.approx(by_loop, abs=0.01)
    assert by_us > 0.3
    assert len(clock.laps) == 8
    assert np.diff(np.array(clock.laps), axis=0).min() >= 0


def test_updates_in_a_file_and_site_by_site_learn_the_same(workload: Workload):
    clock = Clock(others=False)
    first, *others = (ours(workload, 3, clock, **how) for how in ({}, {"filed": True}, {"stacked": False}))
    assert others == pytest.approx([first, first], abs=0.01)


def test_batches_go_through_a_clients_rows_in_turn(workload: Workload):
    workload.batch = 32
    assert [workload.rows_of_step(step, 64).start for step in range(4)] == [0, 32, 0, 32]
    assert workload.rows_of_step(3, 14) == slice(0, 32)


def test_the_table_says_how_many_times_ours():
    found = {("digits-100", side): {"cpu_s": cpu_s, "wall_s": 1.0, "accuracy": 0.9}
             for side, cpu_s in (("ours", 0.2), ("pfl", 2.0), ("flower", 22.0))}
    lines = report(found).splitlines()
    assert lines[2].split("|")[3].strip() == "1.00"
    assert [line.split("|")[3].strip() for line in lines[3:]] == ["10.00", "110.00"]
    assert "| in memory | 1.00 | 2.00 | 600 |" in report_crowd({"ours": {"cpu_s": 1.0, "wall_s": 2.0, "peak_mb": 600.0}})
