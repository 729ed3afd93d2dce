"""The comparison with the literature: what its tables are made of, on images made up here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import kinds, literature, papers
from benchmarks.pages import Memory
from benchmarks.papers import Campaign, best, curve, rounds_to
from fedround.learning.examples import Examples, joined
from fedround.learning.spec import LocalTraining
from fedround.simulation.partition import Iid


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """Ten patterns and noise: 200 to train on, 100 to test on."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    patterns = generator.random((10, 784)) < 0.3

    def made_up(count: int) -> Examples:
        labels = np.arange(count) % 10
        return Examples((patterns[labels] + 0.5 * generator.random((count, 784))).astype(np.float32), labels)

    parts = made_up(200), made_up(100)
    for module in (papers, kinds):
        monkeypatch.setattr(module, "mnist", lambda: parts)


def campaign(**changes: object) -> Campaign:
    return Campaign(**{"model": "linear", "partition": Iid(), "sites": 5, "share": 0.6, "rounds": 6, "target": 0.9,
                       "training": LocalTraining(local_steps=5, batch_size=20, learning_rate=0.05)} | changes)


def test_a_curve_ends_where_its_target_is_reached_and_repeats():
    reached = curve(campaign())
    assert reached[-1] >= 0.9 > max(reached[:-1], default=0)
    assert reached == curve(campaign())
    assert len(curve(campaign(target=None))) == 6


def test_rounds_to_a_target():
    assert rounds_to([0.1, 0.9, 0.8, 0.95], 0.9) == 2
    assert rounds_to([0.1, 0.2], 0.9) is None


def test_the_candidate_with_fewest_rounds_is_taken_and_never_by_a_seed_that_is_shown():
    asked, reached = [], {0.1: [0.5, 0.9], 0.2: [0.9], 0.4: [0.1, 0.1]}

    def run(one: Campaign) -> list[float]:
        asked.append(one.seed)
        return reached[one.training.learning_rate]

    candidates = [campaign(training=LocalTraining(learning_rate=rate)) for rate in reached]
    assert best(candidates, run).training.learning_rate == 0.2
    assert best([one.model_copy(update={"target": None}) for one in candidates], run).training.learning_rate == 0.2
    assert set(asked) == {papers.TUNING_SEED}
    assert papers.TUNING_SEED not in literature.SEEDS


def test_as_many_sites_are_late_as_said_and_each_does_a_part_of_its_steps():
    late = campaign(stragglers=0.9, training=LocalTraining(local_steps=20, partial="keep"))
    steps = papers._stragglers(late)
    done = np.array([steps(number, f"site-{site:03d}") for number in range(30) for site in range(1, 101)])
    assert (done == 20).mean() == pytest.approx(0.1, abs=0.02)
    assert set(done) == set(range(1, 21))
    assert steps(3, "site-007") == steps(3, "site-007")


@pytest.mark.parametrize("lines", [papers.mcmahan, papers.stragglers, papers.zero_similarity, papers.adaptive])
def test_lines_of_a_table_differ_in_what_they_say_and_share_the_rest(lines):
    table = lines()
    assert len({len(line) for line in table}) == 1
    kept = {one.model_copy(update={"training": LocalTraining(), "optimizer": campaign().optimizer, "share": 1.0,
                                   "stragglers": 0.0, "partition": Iid()}) for options in table.values() for one in options}
    assert len(kept) == 1


def test_images_that_are_turned_four_times_are_as_before():
    images = papers.mnist()[0]
    once = kinds._turned(images, 1)
    assert not np.array_equal(once.inputs["x"], images.inputs["x"])
    assert np.array_equal(kinds._turned(kinds._turned(once, 1), 2).inputs["x"], images.inputs["x"])
    assert np.array_equal(once.targets["y"], images.targets["y"])


def test_pairs_within_hospitals_do_not_reward_knowing_the_hospital():
    """A score that is the hospital alone: nearly perfect over both, and a coin's within each."""
    mostly_ill = Examples(np.ones((20, 1), np.float32), np.arange(20) % 20 // 19)
    mostly_well = Examples(np.zeros((20, 1), np.float32), 1 - mostly_ill.targets["y"])
    tests = [Examples(mostly_ill.inputs["x"], 1 - mostly_ill.targets["y"]),
             Examples(mostly_well.inputs["x"], 1 - mostly_well.targets["y"])]

    def score(rows: Examples) -> np.ndarray:
        return rows.inputs["x"][:, 0].astype(np.float64)

    assert kinds.auc(score, joined(tests)) == pytest.approx(0.95)
    assert kinds._within(score, tests) == 0.5


def test_a_table_names_the_chosen_rate_and_what_was_not_reached(tmp_path):
    lines = {("slow",): [campaign(rounds=1, training=LocalTraining(local_steps=1, learning_rate=1e-4))]}
    text = literature.races(["who"], lambda: lines)(Memory(tmp_path / "memory.json"))
    assert text.splitlines()[-1] == "| slow | 0.0001 | - / - / - |"
