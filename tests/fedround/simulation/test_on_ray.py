"""Two real local Ray workers give the bytes that one process gives."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedround.codec import encode
from fedround.learning.recipe import load_recipe
from fedround.simulation import stacked
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from tests.fedround.simulation import test_trees as trees
from tests.fedround.simulation.test_campaign import AGREED, some_sites

RECIPE = '''
from torch import nn
from fedround.learning.tasks import Classify
NAME, TASK = "blobs", Classify(classes=3)
def features(rows): ...
def labels(rows): ...
def build_model():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
'''


TREES = '''
from fedround.learning.tasks import Classify
from fedround.learning.trees.spec import Axis, Trees
NAME, TASK = "blobs", Classify(classes=2)
def features(rows): ...
def labels(rows): ...
TREES = Trees(rounds=2, per_round=8, depth=3, learning_rate=0.2, l2=0.02, axes=(Axis(low=-3, high=3),) * 2)
'''


@pytest.fixture
def ray(monkeypatch):
    """Ray, with time to start."""
    ray = pytest.importorskip("ray")
    # Ray gives its own processes 30 s to start; on a busy machine they need longer, so its clock stands still meanwhile.
    monkeypatch.setattr(ray._private.node, "time", SimpleNamespace(**vars(time) | {"monotonic": lambda: 0.0}))
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "900")
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", "900")
    return ray


def test_two_workers_give_the_same_bytes(tmp_path: Path, monkeypatch, ray):
    from fedround.simulation.on_ray import RayCrew

    monkeypatch.setattr(stacked, "MOST", 7)         # several chunks
    (tmp_path / "recipe.py").write_text(RECIPE)
    recipe, sites = load_recipe(tmp_path / "recipe.py"), some_sites(30)
    asked = {"agreement": AGREED, "recipe": recipe, "sites": sites, "rounds": 2, "chance": Seeded(1)}
    rows = {name: site.train for name, site in sites.items()}
    with RayCrew(tmp_path / "recipe.py", rows, AGREED.training, Seeded(1), workers=2) as crew:
        on_ray = {at_once: encode(simulate(**asked, stacked=at_once, crew=crew).model) for at_once in (True, False)}
    assert not ray.is_initialized()
    assert on_ray == {at_once: encode(simulate(**asked, stacked=at_once).model) for at_once in (True, False)}
    assert on_ray[True] != on_ray[False]


def test_two_workers_give_the_same_trees(tmp_path: Path, ray):
    from fedround.simulation.on_ray import RayCrew

    (tmp_path / "recipe.py").write_text(TREES)
    recipe = load_recipe(tmp_path / "recipe.py")
    assert recipe.trees == trees.TREES
    asked = {"agreement": trees.AGREED, "recipe": recipe, "sites": trees.SITES, "rounds": 2, "chance": Seeded(1)}
    rows = {name: site.train for name, site in trees.SITES.items()}
    with RayCrew(tmp_path / "recipe.py", rows, recipe.trees, Seeded(1), workers=2) as crew:
        on_ray = simulate(**asked, stacked=True, crew=crew)
    assert encode(on_ray.model) == encode(simulate(**asked, stacked=False).model)
    assert any("summed one by one" in note for note in on_ray.notes)
