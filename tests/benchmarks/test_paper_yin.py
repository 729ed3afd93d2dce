"""The reproduction of Yin et al.: its gradients, and that its training learns, on images made up here."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.paper_yin import CASES, accuracy, markdown, worker_gradients


def test_worker_gradients_are_slopes_of_each_workers_loss() -> None:
    generator = np.random.default_rng(0)
    images, labels = generator.standard_normal((3, 8, 5)), generator.integers(0, 10, (3, 8))
    model = generator.standard_normal((5, 10))

    def losses(weights: np.ndarray) -> np.ndarray:
        logits = images @ weights
        right = np.take_along_axis(logits, labels[..., None], axis=2)[..., 0]
        return (np.log(np.exp(logits).sum(axis=2)) - right).mean(axis=1)

    step = np.zeros_like(model)
    step[2, 7] = 1e-5
    slope = (losses(model + step) - losses(model - step)) / 2e-5
    assert worker_gradients(model, images, labels)[:, 2, 7] == pytest.approx(slope, abs=1e-8)


def test_training_learns_what_can_be_told_apart() -> None:
    labels = np.arange(5000) % 10
    images = np.eye(10, dtype=np.float32)[labels]
    how, liars, _ = CASES["median"]
    assert accuracy(images, labels, how, liars, 1.0, np.random.default_rng(0)) == 1.0


def test_the_tables_show_mean_and_spread() -> None:
    results = {step: {case: [80.0, 90.0] for case in CASES} for step in (0.5, 1.5)}
    lines = markdown(results).splitlines()
    assert "| median | 2 of 40 | 87.2 | 85.0 ± 5.0 |" in lines
    assert "| 1.5 | 85.0 ± 5.0 | 85.0 ± 5.0 | 85.0 ± 5.0 | 85.0 ± 5.0 |" in lines
