"""The breakdown benchmark: its attacks are what they are called, its training learns, its rounds go through the engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import digits
from benchmarks.adaptive import ADAPTIVE, near_the_floor, quiet_push
from benchmarks.attacked import SITES, Coordinator, Setting, simulate
from benchmarks.attacks import ATTACKS, View, a_little_is_enough, inner_product, mimic, min_max, sign_flip, squared_distances
from benchmarks.contenders import CONTENDERS, DEFAULT
from benchmarks.patient import backdoor, copies, slow_drift, two_names
from benchmarks.tables import Table, markdown
from benchmarks.vetoes import searched
from fedround.aggregation.engine import Standing, aggregate
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import ArrayNumbers, Row
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation, Gate
from fedround.aggregation.verdict import Verdict

LIARS, HONEST, D = 3, 9, 2000
LAW = NoiseLaw(signal_bound=1.0, variance=0.1**2)


@pytest.fixture
def view() -> View:
    """Nine honest sites that agree on a direction, mostly, below the noise of a law; the server takes the mean."""
    generator = np.random.default_rng(7)
    common_D, own_HD = generator.standard_normal(D), generator.standard_normal((HONEST, D))
    learnt_HD = 0.5 * common_D / np.linalg.norm(common_D) + 0.5 * own_HD / np.linalg.norm(own_HD, axis=1, keepdims=True)
    honest_HD = learnt_HD + LAW.std * generator.standard_normal((HONEST, D))
    return View(honest_HD, learnt_HD.mean(axis=0), learnt_HD[0], honest_HD, honest_HD[:LIARS], 1.0, LAW,
                lambda rows_ND: rows_ND.mean(axis=0), np.random.default_rng(8))


# -- the attacks are what they are called ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ATTACKS, *ADAPTIVE])
@pytest.mark.parametrize("law", [LAW, None])
def test_every_liar_sends_one_finite_row(view: View, name: str, law: NoiseLaw | None) -> None:
    rows_LD = (ATTACKS | ADAPTIVE)[name](replace(view, law=law))
    assert rows_LD.shape == (LIARS, D)
    assert np.isfinite(rows_LD).all()


def test_sign_flip_is_ten_honest_means_backwards(view: View) -> None:
    assert np.allclose(sign_flip(view), -10 * view.honest_HD.mean(axis=0))


def test_inner_product_liars_are_as_far_from_the_honest_mean_as_a_median_honest_row(view: View) -> None:
    mean_D = view.honest_HD.mean(axis=0)
    away_LD = inner_product(view) - mean_D
    assert np.linalg.norm(away_LD, axis=1) == pytest.approx(np.median(np.linalg.norm(view.honest_HD - mean_D, axis=1)))
    assert (away_LD @ mean_D < 0).all()


def test_a_little_is_enough_stays_within_a_seventh_of_a_standard_deviation(view: View) -> None:
    # 12 sites, 3 liars: 4 honest supporters make a majority, so 5/9 of a normal law lie beyond 0.1397 deviations.
    deviations_LD = (view.honest_HD.mean(axis=0) - a_little_is_enough(view)) / view.honest_HD.std(axis=0)
    assert deviations_LD == pytest.approx(0.1397, abs=1e-4)


def test_min_max_is_as_far_as_two_honest_rows_and_no_farther(view: View) -> None:
    diameter = np.sqrt(squared_distances(view.honest_HD).max())
    farthest = np.linalg.norm(min_max(view)[0] - view.honest_HD, axis=1).max()
    assert farthest == pytest.approx(diameter, rel=1e-6)


def test_mimics_are_copies_of_one_honest_row(view: View) -> None:
    rows_LD = mimic(view)
    assert (rows_LD == rows_LD[0]).all()
    assert (rows_LD[0] == view.honest_HD).all(axis=1).sum() == 1


@pytest.mark.parametrize("name", ["quiet_push", "short_sighted", "magnet"])
def test_attacks_on_the_gate_pass_the_gate(view: View, name: str) -> None:
    """Of all that they try on a server that has the gate. On a plain mean, what passes and what does not harm alike: they
    differ at right angles to what was learnt, and last bits would choose.
    """
    server = Coordinator(CONTENDERS["gate+mean"](LIARS, SITES, 1.0), LAW, np.zeros(D), np.ones(D), b"seed")
    lies_LD = ADAPTIVE[name](replace(view, server=server))
    assert verdicts(np.vstack([lies_LD, view.honest_HD])) == [Verdict.USED] * (LIARS + HONEST)


def test_framing_puts_honest_rows_in_conflict(view: View) -> None:
    assert Verdict.GATE in verdicts(np.vstack([ADAPTIVE["framing"](view), view.honest_HD]))


def test_near_the_floor_keeps_its_weight_in_the_spectral_filter(view: View) -> None:
    coordinator = Coordinator(CONTENDERS["spectral"](LIARS, SITES, 1.0), LAW, np.zeros(D), np.ones(D), b"seed")
    standings = judged(np.vstack([near_the_floor(replace(view, server=coordinator)), view.honest_HD]), coordinator.how)
    assert sum(standing.influence for standing in standings[:LIARS]) > 0.9 * LIARS / SITES


def test_an_adaptive_attack_sends_what_harms_most_on_the_servers_own_code(view: View) -> None:
    def progress(rows_LD: np.ndarray) -> float:
        return float(view.server(np.vstack([rows_LD, view.honest_HD])) @ view.learnt_D)

    assert progress(quiet_push(view)) < progress(view.trained_LD) - 0.1


# -- training ----------------------------------------------------------------------------------------------------------


def test_gradient_is_the_slope_of_the_loss() -> None:
    data, generator = digits.load((0,)), np.random.default_rng(3)
    model_D = 0.1 * generator.standard_normal(digits.COORDINATES)
    images, labels = data.images[:16].astype(np.float64), data.labels[:16]

    def loss(x_D: np.ndarray) -> float:
        hidden = np.maximum(images @ x_D[:2048].reshape(64, 32) + x_D[2048:2080], 0)
        logits = hidden @ x_D[2080:2400].reshape(32, 10) + x_D[2400:]
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(16), labels]))

    slope_D = digits.gradient(model_D, images, labels)
    for coordinate in (700, 2050, 2100, 2405):
        step_D = np.zeros(digits.COORDINATES)
        step_D[coordinate] = 1e-5
        assert slope_D[coordinate] == pytest.approx((loss(model_D + step_D) - loss(model_D - step_D)) / 2e-5, abs=1e-8)


def test_every_training_image_has_one_owner() -> None:
    data = digits.load((0, 1))
    for shards in data.shards:
        assert len(shards) == SITES + 1
        assert sorted(np.concatenate(shards)) == list(range(len(data.images)))


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_default_stands_where_the_mean_falls() -> None:
    setting, attacks = Setting(liars=3, noise=0.1, history=0.5), {name: ATTACKS[name] for name in ("none", "sign_flip")}
    robust, naive = (simulate(CONTENDERS[name](3, SITES, 1.0), attacks, setting, (0,), rounds=10)[:, 0]
                     for name in (DEFAULT, "mean"))
    assert min(robust) > 0.75
    assert naive[0] > 0.75
    assert naive[1] < 0.4


def test_a_round_goes_through_the_engine(view: View) -> None:
    server = Coordinator(CONTENDERS["median"](3, SITES, 1.0), LAW, np.zeros(D), np.ones(D), b"seed")
    assert np.allclose(server(view.honest_HD), np.median(view.honest_HD, axis=0), atol=1e-6)


def test_worst_columns_hold_the_lowest_cell_of_their_part() -> None:
    def seeds(low: float, high: float) -> np.ndarray:
        return np.array([low, high])

    table = Table("f = 3", ("none", "mimic"), ("quiet_push",), {
        "mean": {"none": seeds(93, 95), "mimic": seeds(51, 51.5), "quiet_push": seeds(8, 8)},
        "bulyan": {"none": seeds(90, 90), "mimic": seeds(80, 80)},
        "krum": {"none": seeds(77, 77), "mimic": seeds(58, 58), "quiet_push": seeds(3.9, 3.9)}})
    assert markdown(table).splitlines()[2:] == [
        "| rule | none | mimic | worst | quiet push | worst | ± |", "|---|--:|--:|--:|--:|--:|--:|",
        "| mean | 94.0 | 51.2 | **51.2** | 8.0 | **8.0** | 1.4 |", "| krum | 77.0 | 58.0 | **58.0** | 3.9 | **3.9** | 0.0 |",
        "| bulyan | 90.0 | 80.0 | **80.0** |  |  | 0.0 |"]


def judged(rows_ND: np.ndarray, how: Aggregation) -> list[Standing]:
    """What the engine says of each row, in the order of the rows."""
    rows = [Row(f"site-{place:02d}", 1.0, ArrayNumbers(row_D), LAW) for place, row_D in enumerate(rows_ND.astype(np.float32))]
    return list(aggregate(rows, how, D).standings.values())


def verdicts(rows_ND: np.ndarray) -> list[Verdict]:
    """Of the gate with f=3."""
    return [standing.verdict for standing in judged(rows_ND, Gate(f=LIARS) >> WeightedMean())]


def test_a_backdoor_is_learnt_and_shows_in_no_accuracy():
    lied = backdoor("mean", 3, 1.0, 0.1, 0, rounds=8)
    honest = backdoor("mean", 0, 1.0, 0.1, 0, rounds=8)
    assert lied.success > honest.success + 0.3
    assert lied.canary >= lied.success
    assert searched(lied.model_D, 4) > searched(honest.model_D, 4) + 0.2
    assert lied.accuracy > honest.accuracy - 0.1


def test_patient_liars_send_what_they_are_called(view):
    assert np.array_equal(copies(view), view.honest_HD[:LIARS])
    assert (two_names(view) == two_names(view)[0]).all()
    moved_LD = slow_drift(0.3)(view) - view.trained_LD
    assert np.linalg.norm(moved_LD, axis=1) == pytest.approx(0.3)
    assert np.array_equal(moved_LD[0], slow_drift(0.3)(view)[0] - view.trained_LD[0])
