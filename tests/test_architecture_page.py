"""What docs/architecture.md says of the house is so: its rooms exist, and an algorithm is one value in one place."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()

TRAINED = """
import json
import numpy as np
import pandas as pd
from fedround.agreement import Agreement
from fedround.learning.examples import Examples
from fedround.learning.recipe import load_recipe
from fedround.codec import flatten
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site
from fedround.values import parse
from pathlib import Path

recipe = load_recipe(Path("recipe.py"))
generator = np.random.default_rng(0)
x = generator.normal(size=(60, 2)).astype(np.float32)
rows = Examples(x, (x[:, 0] > 0).astype(np.int64))
models = []
for algorithm in ({"name": "plain"}, {"name": "steady", "share": 0.5}):
    agreement = parse(Agreement, {
        "name": "toy", "quorum": 1, "privacy": {"unit": "none"}, "aggregation": {"rule": {"name": "weighted_mean"}},
        "training": {"local_steps": 4, "batch_size": 60, "learning_rate": 0.1, "algorithm": algorithm}}, "toy")
    found = []
    for rounds in (1, 2):
        found.append(flatten(simulate(agreement, recipe, {"one": Site(rows)}, rounds=rounds, chance=Seeded(0)).model))
    models.append(found)
first, second = ([model.tolist() for model in found] for found in models)
print(json.dumps({"plain": first, "steady": second}))
"""
RECIPE = '''"""Two numbers, one logit."""
import numpy as np
from torch import nn

NAME = "tiny"


def features(rows):
    return rows[["x1", "x2"]].to_numpy(np.float32)


def labels(rows):
    return rows["y"].to_numpy(np.int64)


def build_model():
    return nn.Linear(2, 1)
'''


def test_the_pages_algorithm_is_three_files_at_most_and_trains(tmp_path: Path):
    """Applied to a copy of the core. Its first round is plain; in the second every step leans on the first aggregate."""
    (diff,) = re.findall(r"```diff\n(.*?)```", PAGE, flags=re.DOTALL)
    assert 1 <= len(re.findall(r"^\+\+\+ ", diff, flags=re.MULTILINE)) <= 3
    shutil.copytree(ROOT / "fedround", tmp_path / "fedround", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff.encode(), check=True)
    (tmp_path / "recipe.py").write_text(RECIPE)
    done = subprocess.run([sys.executable, "-c", TRAINED], cwd=tmp_path, check=True, capture_output=True, text=True)
    models = json.loads(done.stdout)
    assert models["plain"][0] == models["steady"][0]
    begun, plain, steady = (models["plain"][0], models["plain"][1], models["steady"][1])
    further = [(fast - start) / (slow - start) for fast, slow, start in zip(steady, plain, begun, strict=True)]
    assert all(1.2 < ratio < 1.8 for ratio in further), further


def test_the_floors_on_the_page_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (checked,) = [contract["layers"] for contract in contracts if contract.get("exhaustive")]
    (drawn,) = re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)
    words = set(re.findall(r"\w+", drawn))
    rooms = [room.strip() for layer in checked for room in layer.split("|")]
    assert set(rooms) - words == set()
    first = [layer.split("|")[0].strip() for layer in checked]
    order = [re.search(rf"\b{room}\b", drawn).start() for room in first]
    assert order == sorted(order)


def test_every_file_that_the_page_names_exists():
    named = set(re.findall(r"`((?:fedround|tasks|site_workers|validation|infra|rounds|learning|tests)/[\w/]+\.py)`", PAGE))
    assert len(named) > 15
    assert not [name for name in named if not (ROOT / name).exists() and not (ROOT / "fedround" / name).exists()]
