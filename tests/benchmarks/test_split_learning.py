"""Split learning learns, and the published attacks read the labels in it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.split_learning import CUT, Half, by_direction, by_norm, top_step


def rows(count: int = 600):
    generator = np.random.default_rng(3)
    own, other = generator.normal(size=(count, 2)), generator.normal(size=(count, 3))
    label = (own[:, 0] + 2 * other[:, 0] - other[:, 1] + 3 * generator.normal(size=count) > 4.5).astype(np.int8)
    return own, other, label


def loss(top: Half, own, cut, label) -> float:
    chance = 1 / (1 + np.exp(-top.forward(np.column_stack([own, cut]))[:, 0]))
    return float(-np.mean(np.where(label == 1, np.log(chance), np.log1p(-chance))))


def test_what_comes_back_over_the_cut_is_the_gradient_of_the_loss():
    own, other, label = rows(5)
    top, cut = Half.new(2 + CUT, 1, 1), Half.new(3, CUT, 0).forward(other)
    _, back = top_step(top, own, cut, label, 1e-3)
    for row, place in ((0, 0), (3, 5)):
        moved = cut.copy()
        moved[row, place] += 1e-6
        slope = (loss(top, own, moved, label) - loss(top, own, cut, label)) / 1e-6
        assert back[row, place] == pytest.approx(slope, abs=1e-6)


def trained(passes: int = 60):
    """Both halves, and what came back over the cut in the last step."""
    own, other, label = rows()
    bottom, top = Half.new(3, CUT, 0), Half.new(2 + CUT, 1, 1)
    for _ in range(passes):
        top, back = top_step(top, own, bottom.forward(other), label, 5e-3)
        bottom, _ = bottom.step(other, back, 5e-3)
    return own, other, label, bottom, top, back


def test_both_halves_learn():
    own, other, label, bottom, top, _ = trained()
    together = roc_auc_score(label, top.forward(np.column_stack([own, bottom.forward(other)]))[:, 0])
    assert together > 0.8
    assert together > roc_auc_score(label, own[:, 0]) + 0.1


@pytest.mark.parametrize("passes", [1, 60])
def test_attack_gradients_over_the_cut_tell_every_label(passes: int):
    """Li et al. 2021 (arXiv:2102.08504): of a row of the rarer label that the shop happens to know, all others follow."""
    _, _, label, _, _, back = trained(passes)
    assert label.mean() < 0.25
    known = int(np.flatnonzero(label == 1)[0])
    assert roc_auc_score(label, by_direction(back, known)) > 0.99
    if passes > 1:
        assert roc_auc_score(label, by_norm(back)) > 0.85, "nothing need be known but which label is the rarer one"
