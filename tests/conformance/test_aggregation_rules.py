"""What every aggregation promises, whatever its rule: one suite, many rules."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.aggregation import estimate, rules, spec, sweep
from fedround.aggregation.engine import Aggregate, FileNumbers, Row, Verdict, aggregate
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.spec import Aggregation
from fedround.errors import ToleranceError
from tests.cohorts import COORDINATEWISE, EVERY, ROBUST, F, N, bearing_one_less, cohort, result, rows_of

SEEDS = st.integers(0, 2**32 - 1)
every = pytest.mark.parametrize("name", EVERY)
robust = pytest.mark.parametrize("name", ROBUST)
few = settings(max_examples=4)

TRANSLATES = [name for name, how in EVERY.items() if how.gate is None and not isinstance(
    how.rule, rules.CenteredClipping | rules.NormClipping | rules.FLTrust) and not any(isinstance(
        mixing, spec.StaticClipping | spec.ArcClipping) for mixing in how.mixing)]
SCALES = [name for name, how in EVERY.items() if not isinstance(how.rule, rules.CenteredClipping | rules.FLTrust)
          and not any(isinstance(mixing, spec.StaticClipping) for mixing in how.mixing)]

BAD = {
    "NaN": lambda row: np.full_like(row, np.nan), "one NaN": lambda row: _with(row, np.nan),
    "one infinity": lambda row: _with(row, np.inf), "minus infinity": lambda row: np.full_like(row, -np.inf),
    "1e30": lambda row: np.full_like(row, 1e30), "one 1e30": lambda row: _with(row, 1e30),
    "1e15": lambda row: np.full_like(row, 1e15), "denormals": lambda row: np.full_like(row, 1e-40),
    "far too short": lambda row: row * np.float32(1e-7),
}
SHORT_SLAB = 1 << 16
NOT_FINITE = ("NaN", "one NaN", "one infinity", "minus infinity")


def _with(row: np.ndarray, value: float) -> np.ndarray:
    row = row.copy()
    row[len(row) // 2] = value
    return row


def same_bits(one: Aggregate, other: Aggregate) -> bool:
    return (one.delta_D.tobytes() == other.delta_D.tobytes() and repr(one.standings) == repr(other.standings)
            and one.distances_NN.tobytes() == other.distances_NN.tobytes())


@every
@few
@given(seed=SEEDS)
def test_the_order_of_arrival_is_irrelevant_to_the_last_bit(name: str, seed: int):
    x_ND, how = cohort(seed), EVERY[name]
    order = np.random.default_rng(seed).permutation(N)
    rows = rows_of(x_ND, range(1, N + 1))
    root = rows_of(np.ones((1, 40)))[0].numbers if isinstance(how.rule, rules.FLTrust) else None
    assert same_bits(aggregate(rows, how, 40, seed=b"s", root=root),
                     aggregate([rows[i] for i in order], how, 40, seed=b"s", root=root))


@pytest.mark.parametrize("name", [name for name in EVERY if "bucketing" not in name and "bulyan" not in name])
@few
@given(seed=SEEDS)
def test_names_are_irrelevant(name: str, seed: int):
    """Who is called what changes nothing but rounding. Buckets are dealt by place; and where Bulyan has few rows left, the
    nearest two of them tie by nature, and the first goes.
    """
    x_ND = cohort(seed)
    order = np.random.default_rng(seed).permutation(N)
    assert np.allclose(result(EVERY[name], x_ND).delta_D, result(EVERY[name], x_ND[order]).delta_D, rtol=1e-4, atol=1e-5)


@every
@few
@given(seed=SEEDS, size=st.integers(1, 60))
def test_equal_updates_give_that_update_or_a_shorter_one(name: str, seed: int, size: int):
    row_D = cohort(seed, 1, size)[0]
    x_ND = np.tile(row_D, (N, 1))
    found_D = result(EVERY[name], x_ND).delta_D.astype(float)
    if name in TRANSLATES:
        assert np.allclose(found_D, row_D, rtol=1e-5, atol=1e-6)
    elif not isinstance(EVERY[name].rule, rules.FLTrust):       # FLTrust follows the coordinator's own length
        scale = found_D @ row_D / (row_D @ row_D)
        assert -1e-6 <= scale <= 1 + 1e-5
        assert np.allclose(found_D, scale * row_D, atol=1e-5)


@pytest.mark.parametrize("name", TRANSLATES)
@few
@given(seed=SEEDS, shift=st.integers(-50, 50))
def test_shifting_every_update_shifts_the_result(name: str, seed: int, shift: int):
    """On a grid, where a shift rounds nothing: rounding may turn a near tie the other way."""
    x_ND = np.round(cohort(seed) * 256) / 256
    shifted = result(EVERY[name], x_ND + np.float32(shift)).delta_D
    assert np.allclose(shifted, result(EVERY[name], x_ND).delta_D + np.float32(shift), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", SCALES)
@few
@given(seed=SEEDS, exponent=st.integers(-8, 8))
def test_scaling_every_update_scales_the_result(name: str, seed: int, exponent: int):
    x_ND, scale = cohort(seed), np.float32(2.0**exponent)
    assert np.allclose(result(EVERY[name], x_ND * scale).delta_D / scale, result(EVERY[name], x_ND).delta_D,
                       rtol=1e-4, atol=1e-5)


@robust
@few
@given(seed=SEEDS)
def test_among_the_honest_it_is_near_their_mean(name: str, seed: int):
    """Never farther than the farthest of them."""
    x_ND = cohort(seed)
    mean_D = x_ND.mean(axis=0)
    farthest = np.linalg.norm(x_ND - mean_D, axis=1).max()
    assert np.linalg.norm(result(ROBUST[name], x_ND).delta_D - mean_D) <= farthest * (1 + 1e-5)


@robust
@settings(max_examples=25)
@given(seed=SEEDS, reach=st.sampled_from([0.3, 1.0, 3.0, 30.0, 900.0, 1e5, 1e12]), together=st.booleans())
def test_f_arbitrary_updates_cannot_drag_it_away(name: str, seed: int, reach: float, together: bool):
    """Within four times the honest radius of the honest mean, wherever F of N stand: together or each by itself."""
    generator = np.random.default_rng(seed)
    honest_ND = cohort(seed, N - F)
    centre_D = honest_ND.mean(axis=0)
    radius = np.linalg.norm(honest_ND - centre_D, axis=1).max()
    away_FD = generator.normal(size=(1 if together else F, honest_ND.shape[1]))
    away_FD *= reach * radius / np.linalg.norm(away_FD, axis=1, keepdims=True)
    lies_FD = np.broadcast_to(centre_D + away_FD, (F, honest_ND.shape[1]))
    x_ND = np.concatenate([lies_FD, honest_ND])[generator.permutation(N)]
    # Norm clipping promises least: each liar moves it by one median norm, wherever the honest are.
    bound = 4 * radius + np.median(np.linalg.norm(honest_ND, axis=1)) * isinstance(ROBUST[name].rule, rules.NormClipping)
    assert np.linalg.norm(result(ROBUST[name], x_ND).delta_D - centre_D) <= bound


def test_the_mean_fails_the_law_above():
    """So the law can fail."""
    honest_ND = cohort(1, N - F)
    lies_FD = np.full((F, honest_ND.shape[1]), 100.0, np.float32)
    found_D = result(Aggregation(rule=rules.WeightedMean()), np.concatenate([lies_FD, honest_ND])).delta_D
    radius = np.linalg.norm(honest_ND - honest_ND.mean(axis=0), axis=1).max()
    assert np.linalg.norm(found_D - honest_ND.mean(axis=0)) > 4 * radius


@pytest.mark.parametrize("name", COORDINATEWISE)
@settings(max_examples=40)
@given(seed=SEEDS, lie=st.floats(-2.0**56, 2.0**56, width=32))
def test_rules_of_coordinates_stay_inside_the_honest_values(name: str, seed: int, lie: float):
    honest_ND = cohort(seed, N - F)
    x_ND = np.concatenate([np.full((F, honest_ND.shape[1]), lie, np.float32), honest_ND])
    found_D = result(ROBUST[name], x_ND).delta_D
    assert (honest_ND.min(axis=0) <= found_D).all()
    assert (found_D <= honest_ND.max(axis=0)).all()


@every
@pytest.mark.parametrize("bad", BAD)
def test_an_update_that_is_none_changes_nothing(name: str, bad: str):
    """The same bytes as without it and with one liar less to bear, and it is said who was left out, and why."""
    x_ND = cohort(7, N + 1)
    where = 4
    without = np.delete(np.arange(N + 1), where)
    x_ND[where] = BAD[bad](x_ND[where])
    how, rows = EVERY[name], rows_of(x_ND, range(1, N + 2))
    root = rows_of(np.ones((1, 40)))[0].numbers if isinstance(how.rule, rules.FLTrust) else None
    found = aggregate(rows, how, 40, seed=b"s", root=root)
    clean = aggregate([rows[n] for n in without], bearing_one_less(how), 40, seed=b"s", root=root)
    assert found.delta_D.tobytes() == clean.delta_D.tobytes()
    assert found.names == clean.names
    standing = found.standings[f"site-{where:02d}"]
    assert standing.verdict == (Verdict.NOT_FINITE if bad in NOT_FINITE else Verdict.NORM)
    assert standing.reason
    assert standing.influence == 0


@every
def test_an_update_that_is_none_does_not_kill_the_smallest_cohort(name: str):
    """N is at the theorem's minimum: with the row one liar is gone, so N-1 rows that bear f-1 are enough."""
    how = EVERY[name]
    x_ND = cohort(2, next(rows for rows in range(2, N + 1) if holds(how, rows)))
    x_ND[0, 3] = np.nan
    root = rows_of(np.ones((1, 40)))[0].numbers if isinstance(how.rule, rules.FLTrust) else None
    found = aggregate(rows_of(x_ND, law=NoiseLaw(1.0, 1.0)), how, 40, seed=b"s", root=root)
    assert found.standings["site-00"].verdict is Verdict.NOT_FINITE
    assert np.isfinite(found.delta_D).all()
    assert found.note.startswith("1 left out before any arithmetic")


def holds(how: spec.Aggregation, rows: int) -> bool:
    """Whether its theorems hold for so many."""
    try:
        how.check(rows)
    except ToleranceError:
        return False
    return True


@pytest.mark.parametrize("name", [name for name in EVERY if "bucketing" not in name])
def test_at_exact_ties_content_decides_and_no_name(name: str):
    """Whole numbers on a grid, few weights and few laws: distances and inner products tie all the time, within the gate's
    bounds and beyond. Renaming the sites changes no byte, and nobody's verdict but between rows that are the same.
    """
    generator, how = np.random.default_rng(5), EVERY[name]
    root = rows_of(np.ones((1, 3)))[0].numbers if isinstance(how.rule, rules.FLTrust) else None
    for turn in range(8):
        x_ND = ((1 + 3 * (turn % 2)) * generator.integers(-1, 2, (N, 3))).astype(np.float32)
        rows = [dataclasses.replace(row, weight=float(weight), law=NoiseLaw(1.0, float(variance))) for row, weight, variance
                in zip(rows_of(x_ND), generator.integers(1, 3, N), generator.choice([0.2, 0.4], N), strict=True)]
        renamed = [dataclasses.replace(row, site=f"site-{place:02d}")
                   for row, place in zip(rows, generator.permutation(N), strict=True)]
        one, other = (aggregate(cohort, how, 3, seed=b"s", root=root) for cohort in (rows, renamed))
        assert one.delta_D.tobytes() == other.delta_D.tobytes()
        assert verdicts_by_content(rows, x_ND, one) == verdicts_by_content(renamed, x_ND, other)


def verdicts_by_content(rows: list[Row], x_ND: np.ndarray, found: Aggregate) -> list[tuple[bytes, float, float, str]]:
    """What became of each kind of row, whoever sent it."""
    return sorted((x_D.tobytes(), row.weight, 0.0 if row.law is None else row.law.variance, found.standings[row.site].verdict)
                  for row, x_D in zip(rows, x_ND, strict=True))


@pytest.fixture(scope="module")
def long_ND() -> np.ndarray:
    """More than four short slabs, and more than the sample by which distances are estimated."""
    assert sweep.chunk_of(N + 2) * 8 == SHORT_SLAB
    assert estimate.SAMPLE == 4 * SHORT_SLAB
    return cohort(3, N, 4 * SHORT_SLAB + 5000)


@every
def test_threads_and_budget_are_irrelevant_to_the_last_bit(name: str, long_ND: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep, "SLAB", SHORT_SLAB)
    how = EVERY[name]
    once = result(how, long_ND)
    assert same_bits(once, result(how, long_ND, memory_budget_bytes=1))
    assert same_bits(once, result(how, long_ND, threads=2, memory_budget_bytes=20 << 20))


@every
def test_updates_are_not_written_to(name: str):
    x_ND = cohort(5)
    before = x_ND.copy()
    x_ND.flags.writeable = False
    result(EVERY[name], x_ND)
    assert np.array_equal(before, x_ND)


@every
def test_influences_are_shares_of_the_result(name: str):
    found = result(EVERY[name], cohort(11))
    shares = [standing.influence for standing in found.standings.values()]
    assert min(shares) >= 0
    assert sum(shares) <= 1 + 1e-9
    if name in TRANSLATES:
        assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("name", [name for name, how in EVERY.items() if hasattr(how.rule, "f") or how.mixing])
def test_below_its_theorem_it_refuses(name: str):
    """And at the smallest cohort that its parts allow it works."""
    how = EVERY[name]
    fewest = next(n for n in range(1, 60) if _holds(how, n))
    assert np.isfinite(result(how, cohort(1, fewest)).delta_D).all()
    if fewest > 1:
        with pytest.raises(ToleranceError, match="needs at least"):
            result(how, cohort(1, fewest - 1))


def _holds(how: Aggregation, rows: int) -> bool:
    try:
        how.check(rows)
    except ToleranceError:
        return False
    return True


@pytest.fixture(scope="module")
def rows_in_files(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("rows")
    for n, x_D in enumerate(cohort(3, N, 300_000)):
        x_D.tofile(folder / f"{n:02d}")
    return [Row(f"site-{n:02d}", 1.0, FileNumbers(folder / f"{n:02d}", 0)) for n in range(N)]


@every
def test_memory_is_the_budget_and_not_the_cohort(name: str, rows_in_files: list[Row]):
    """What is held at once: the budget, the result, and a little; not 13 rows of 1.2 MB."""
    rows, size, budget = rows_in_files, 300_000, 3 << 20
    how = EVERY[name]
    root = rows[0].numbers if isinstance(how.rule, rules.FLTrust) else None
    aggregate(rows, how, 1000, root=root)                              # imports and caches are not the cohort's
    tracemalloc.start()
    try:
        aggregate(rows, how, size, memory_budget_bytes=budget, root=root)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < budget + 4 * size + (3 << 20) < 4 * N * size / 2
