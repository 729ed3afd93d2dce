"""A promise that means nothing: small epsilons under which an update is a picture of one record. Sites refuse them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedround import codec
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import initial_tensors, load_recipe
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy import ledger
from fedround.privacy.accounting import epsilon
from fedround.privacy.calibration import calibrate
from fedround.privacy.noise import stream
from fedround.privacy.sense import doubts
from fedround.privacy.spec import DpSgd, RecordPrivacy
from tests import small_federation
from tests.site_workers.test_round import answer_of

FEATURES, ROWS = 57, 100_000
LINEAR = '''from torch import nn

NAME = "linear"


def features(rows):
    raise NotImplementedError


def labels(rows):
    raise NotImplementedError


def build_model():
    return nn.Linear(57, 1, bias=False)
'''


def test_attack_one_row_a_step_at_epsilon_one_is_read_from_the_update(tmp_path: Path):
    """Epsilon 1 at 1e-5, one step of an expected batch of one among 100,000: noise 0.063. What is drawn is recognised."""
    (tmp_path / "recipe.py").write_text(LINEAR)
    recipe = load_recipe(tmp_path / "recipe.py", None)
    generator = np.random.default_rng(3)
    rows = Examples(generator.normal(size=(ROWS, FEATURES)).astype(np.float32), generator.integers(0, 2, ROWS))
    privacy = RecordPrivacy(epsilon=1.0, delta_dp=1e-5, rounds=1)
    noise = calibrate(privacy, 1 / ROWS, 1, ())
    mechanism = DpSgd(noise_multiplier=noise, clip_norm=1.0, sampling_rate=1 / ROWS, steps=1)
    assert epsilon([mechanism], 1e-5) <= 1.0
    assert noise < 0.07
    base = {name: np.zeros_like(array) for name, array in initial_tensors(recipe, 0).items()}
    directions = rows.inputs["x"] / np.linalg.norm(rows.inputs["x"], axis=1, keepdims=True)
    recognised = long = 0
    for number in range(16):
        training = LocalTraining(batch_size=1, local_steps=1, learning_rate=1.0)
        delta = codec.flatten(train(recipe, Lesson(base, rows), training, mechanism, stream(b"s" * 32, bytes([number])),
                                    UNGUARDED).delta)
        length = float(np.linalg.norm(delta))
        long += length > 0.8
        recognised += length > 0.8 and float(np.abs(directions @ (delta / length)).max()) > 0.8
    assert recognised >= 4, f"{recognised} of {long} long updates"
    assert len(list(doubts(1e-5, ROWS, mechanism, 1))) == 3


RECORD = {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}


@pytest.mark.parametrize(("changes", "policy"), [
    ({"training": {"local_steps": 1, "batch_size": 1}}, {}),
    ({"privacy": {**RECORD, "delta_dp": 1e-3}}, {"delta_dp": 1e-3}),
    ({"privacy": {**RECORD, "delta_dp": 0.05, "epsilon": 0.5}}, {"delta_dp": 0.09}),
    ({"privacy": {**RECORD, "epsilon": 90.0, "rounds": 1}, "training": {"local_steps": 1, "batch_size": 32}},
     {"max_epsilon": 100.0}),
    ({"privacy": {**RECORD, "epsilon": 60.0, "clip_norm": 1e-3, "rounds": 1}, "training": {
        "local_steps": 1, "batch_size": 32}}, {"max_epsilon": 100.0}),
    ({"privacy": {**RECORD, "epsilon": 90.0, "rounds": 1, "adaptive": {"noise_std": 0.1}}}, {"max_epsilon": 100.0}),
    ({"privacy": {**RECORD, "epsilon": 90.0, "rounds": 1}, "evaluation": {"noise_std": 0.25}}, {"max_epsilon": 100.0}),
    ({"privacy": {**RECORD, "mechanism": "dp_ftrl", "rounds": 1, "epsilon": 30.0}, "training": {
        "local_steps": 20, "batch_size": 32}}, {"max_epsilon": 100.0}),
], ids=["one row a step", "delta above 1/n", "a small epsilon at a huge delta", "little noise", "a tiny clip norm",
        "counts of clipped gradients", "counts of scores", "few rows in a fixed order"])
def test_a_site_refuses_it_before_any_charge_and_tells_no_number(tmp_path: Path, rows_are_judged_here: None, changes: dict,
                                                                 policy: dict):
    federation = small_federation.make(tmp_path, **changes)
    path = federation.root / "north" / "policy.toml"
    text = path.read_text().replace("max_epsilon = 8.0", f"max_epsilon = {policy.get('max_epsilon', 8.0)}")
    path.write_text(text.replace("delta_dp = 1e-05", f"delta_dp = {policy.get('delta_dp', 1e-05)}"))
    assert federation.answer("north", federation.plan()) == "refusal"
    body = answer_of(federation, "north")
    assert body["reason"] == "policy"
    assert "300" not in json.dumps(body["detail"])
    assert "380" not in json.dumps(body["detail"])
    assert ledger.read(federation.site("north").ledger).charges == ()


def test_what_is_meant_seriously_has_no_doubts():
    bank = DpSgd(noise_multiplier=0.792, clip_norm=1.0, sampling_rate=256 / 9000, steps=10)
    assert list(doubts(1e-5, 9000, bank, 256)) == []
    assert "published outright" in next(doubts(0.05, 1200, bank, 256))
    assert "means nothing for more than" in next(doubts(0.05, None, None, None))
