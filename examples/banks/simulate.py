"""The campaign in one process: the same training, aggregation and server step, without processes, keys or a store.

    python -m examples.banks.simulate [--settings demo.toml] [--rounds 20] [--epsilon 5] [--seeds 3]

For choosing settings, and for the baselines. Nothing here protects anybody: all rows are in one place.
N banks, D coordinates.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from examples.banks.split import CLIENTS, split
from fedround.aggregation.rules import kernel
from fedround.codec import Tensors, flatten
from fedround.learning.evaluate import metrics, scores
from fedround.learning.recipe import Examples, Recipe, initial_tensors, load_recipe
from fedround.learning.train import sampling_rate, train
from fedround.optimizers import step
from fedround.privacy.accounting import calibrate
from fedround.privacy.noise import stream
from fedround.types import DpSgd, FedAvg, LocalEvaluation, LocalTraining, Name, NoMechanism, RecordPrivacy, Rule, Value
from infra.settings import load_toml

HERE = Path(__file__).parent


class Settings(Value):
    """settings.toml: what the federation agrees on, apart from its members and their keys."""

    name: Name
    quorum: Annotated[int, Field(ge=1)]
    deadline_s: Annotated[int, Field(ge=1)]
    training: LocalTraining
    privacy: RecordPrivacy
    evaluation: LocalEvaluation
    rule: Rule
    optimizer: FedAvg


def load_settings(path: Path = HERE / "settings.toml") -> Settings:
    """The agreed settings of the banks."""
    return load_toml(Settings, path)


def simulate(recipe: Recipe, banks: Mapping[str, Examples], settings: Settings, seed: int, *,
             private: bool = True) -> Tensors:
    """The model after all `settings.privacy.rounds` rounds, every bank answering every one.

    private: every bank calibrates its noise to its own rows; without, nothing is clipped or noised.
    Deterministic in `seed`. The randomness is no secret, so what comes out is no private model.
    """
    names = sorted(banks)
    apply_rule = kernel(settings.rule, np.array([float(CLIENTS[name][0]) for name in names]))
    mechanisms = {name: _mechanism(settings, len(banks[name])) if private else NoMechanism() for name in names}
    model, velocity_D = initial_tensors(recipe, seed), None
    for number in range(1, settings.privacy.rounds + 1):
        deltas_ND = np.array([flatten(train(
            recipe, model, banks[name], settings.training, mechanisms[name],
            stream(bytes(32), f"{seed} {number} {name}".encode()), cancelled=lambda: False)) for name in names])
        delta_D = apply_rule(deltas_ND.astype(np.float64)).astype(np.float32)
        model, velocity_D = step(model, velocity_D, delta_D, settings.optimizer)
    return model


def _mechanism(settings: Settings, rows: int) -> DpSgd:
    rate = sampling_rate(settings.training, rows)
    noise = calibrate(settings.privacy, rate, settings.training.local_steps, settings.evaluation)
    return DpSgd(noise_multiplier=noise, clip_norm=settings.privacy.clip_norm, sampling_rate=rate,
                 steps=settings.training.local_steps)


def main() -> None:
    """Print what each seed reaches on the public test set."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Simulate the banks' campaign in one process.")
    parser.add_argument("--settings", type=Path, default=HERE / "settings.toml")
    parser.add_argument("--rounds", type=int, help="instead of privacy.rounds")
    parser.add_argument("--epsilon", type=float, help="instead of privacy.epsilon")
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    settings = load_settings(asked.settings)
    other = {key: getattr(asked, key) for key in ("rounds", "epsilon") if getattr(asked, key) is not None}
    privacy = RecordPrivacy(**{**settings.privacy.model_dump(), **other})
    settings = settings.model_copy(update={"privacy": privacy})

    recipe, parts = load_recipe(HERE / "recipe.py"), split()
    banks = {bank.name: recipe.encode(bank.train) for bank in parts.banks}
    test = recipe.encode(parts.public_test)
    for seed in range(asked.seeds):
        reached = metrics(scores(recipe, simulate(recipe, banks, settings, seed), test), test.labels_N)
        print(f"seed {seed}: {privacy.rounds} rounds at record-level epsilon {privacy.epsilon:g}, "
              f"delta_dp {privacy.delta_dp:g}: AUC {reached.auc:.4f}, "
              f"recall at 20 % false positives {reached.recall_at_20_fpr:.3f}")


if __name__ == "__main__":
    main()
