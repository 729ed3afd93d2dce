"""The benchmark of the engine: its cases run, its rows are what it says, its tables say what was measured. No peers here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.aggregation import AGREEING, OURS, THEIRS, best, measure, run_case, table, write_rows
from benchmarks.aggregation_case import COMMON, load

NUMBERS = (13, 3001, 2, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder, *NUMBERS[:2], louder=0.15)
    return folder


def test_each_row_is_louder_than_the_one_before_around_a_common_direction(folder: Path):
    x_ND = load(sorted(folder.glob("*.bin")), 3001)
    assert (np.diff(x_ND.std(axis=1)) > 0).all()
    assert x_ND.mean() == pytest.approx(COMMON, abs=0.05)


def test_every_case_computes_what_it_is_called(folder: Path):
    cases = dict.fromkeys((*OURS[1:], *AGREEING["byzfl"], *AGREEING["flower"]))
    run_case("ours", ",".join(cases), folder, NUMBERS)
    found = np.load(folder / "ours.npz")
    assert all(found[case].shape == (3001,) and np.isfinite(found[case]).all() for case in cases)
    x_ND = load(sorted(folder.glob("*.bin")), 3001).astype(float)
    for case in ("mean", "w @ X"):
        assert np.allclose(found[case], x_ND.mean(axis=0), atol=1e-6)
    assert np.allclose(found["median"], np.median(x_ND, axis=0))
    assert np.allclose(found["trimmed mean"], np.sort(x_ND, axis=0)[2:-2].mean(axis=0), atol=1e-6)
    assert np.allclose(found["Krum"], x_ND[0])                                             # the most silent
    assert np.allclose(found["SMEA"], x_ND[:11].mean(axis=0), atol=1e-6)                   # without the loudest two
    assert np.allclose(found["converged geometric median"], found["geometric median"])


def test_what_is_compared_is_measured_or_named(folder: Path):
    assert set(THEIRS["byzfl"]) | set(THEIRS["flower"]) <= set(OURS)
    assert set(measure("ours", "read", folder, NUMBERS)) == {"cpu_s", "wall_s", "peak_mb", "extra_mb"}


def test_a_case_that_fails_says_which(folder: Path):
    with pytest.raises(SystemExit, match="ours, no such rule"):
        run_case("ours", "no such rule", folder, NUMBERS)


def test_the_fewest_seconds_count_and_the_most_memory():
    runs = [{"cpu_s": 2.0, "wall_s": 1.0, "peak_mb": 5.0, "extra_mb": 9.0},
            {"cpu_s": 1.0, "wall_s": 3.0, "peak_mb": 6.0, "extra_mb": 8.0}]
    assert best(runs) == {"cpu_s": 1.0, "wall_s": 3.0, "peak_mb": 6.0, "extra_mb": 9.0}


def test_the_table_has_ratios_where_a_peer_has_the_rule():
    def cost(cpu_s: float, extra_mb: float) -> dict[str, float]:
        return {"cpu_s": cpu_s, "wall_s": 2.0, "peak_mb": 100.0, "extra_mb": extra_mb}

    lines = table({("ours", "mean"): cost(0.5, 10), ("ours", "CAF"): cost(1.0, 10), ("byzfl", "mean"): cost(2.0, 50),
                   ("flower", "mean"): cost(1.0, 70)}).splitlines()
    assert lines[2] == "| mean | 0.50 | 2.00 | 100 | 10 | 2.00 | 50 | 4.0 | 5.0 | 1.00 | 70 | 2.0 |"
    assert lines[3] == "| CAF | 1.00 | 2.00 | 100 | 10 |  |  |  |  |  |  |  |"
