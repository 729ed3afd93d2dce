"""A campaign in one process: the same training, aggregation and server step, without processes, keys or a store.

For choosing settings, and for the baselines. Nothing here protects anybody: all rows are in one place.
N banks, D coordinates.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from examples.judging import judge, predictor
from examples.story import Story
from fedround.aggregation.engine import aggregate
from fedround.aggregation.history import History, blend, with_upload
from fedround.aggregation.noise_law import law_of
from fedround.aggregation.rows import ArrayNumbers, Row
from fedround.aggregation.spec import Aggregation, default_aggregation
from fedround.codec import Tensors, flatten
from fedround.learning.recipe import Examples, Recipe, initial_tensors
from fedround.learning.train import sampling_rate, train
from fedround.optimizers import step
from fedround.privacy.accounting import calibrate
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpSgd, NoMechanism, RecordPrivacy
from fedround.types import FedAvg, LocalEvaluation, LocalTraining
from fedround.values import Name, Value
from infra.settings import load_toml


class Settings(Value):
    """settings.toml: what the federation agrees on, apart from its members and their keys."""

    name: Name
    quorum: Annotated[int, Field(ge=1)]
    deadline_s: Annotated[int, Field(ge=1)]
    training: LocalTraining
    privacy: RecordPrivacy
    evaluation: LocalEvaluation
    aggregation: Aggregation | None = None
    """None: the default for the quorum."""
    optimizer: FedAvg

    def how_to_aggregate(self, *, private: bool = True) -> Aggregation:
        """As a federation with these settings would."""
        return self.aggregation or default_aggregation(
            self.quorum, noise_is_declared=private, rounds=self.privacy.rounds)


def load_settings(path: Path) -> Settings:
    """What the banks of an example agreed on."""
    return load_toml(Settings, path)


def simulate(recipe: Recipe, banks: Mapping[str, Examples], settings: Settings, seed: int, *,
             private: bool = True) -> Tensors:
    """The model after all `settings.privacy.rounds` rounds, every bank answering every one, weighted by its rows.

    private: every bank calibrates its noise to its own rows; without, nothing is clipped or noised.
    Deterministic in `seed`. The randomness is no secret, so what comes out is no private model.
    """
    names, how = sorted(banks), settings.how_to_aggregate(private=private)
    mechanisms = {name: _mechanism(settings, len(banks[name])) if private else NoMechanism() for name in names}
    model, velocity_D = initial_tensors(recipe, seed), None
    histories, averages = dict[str, History](), dict[str, npt.NDArray[np.float32]]()
    for number in range(1, settings.privacy.rounds + 1):
        rows = []
        for name in names:
            delta_D = flatten(train(recipe, model, banks[name], settings.training, mechanisms[name],
                                    stream(bytes(32), f"{seed} {number} {name}".encode()), cancelled=lambda: False))
            law = law_of(mechanisms[name], settings.training, len(banks[name]))
            histories[name] = with_upload(histories.get(name), law, how.history)
            averages[name] = blend(averages.get(name), delta_D, histories[name])
            rows.append(Row(name, float(len(banks[name])), ArrayNumbers(averages[name]), histories[name].law))
        agreed = aggregate(rows, how, len(averages[names[0]]), seed=f"{seed} {number}".encode())
        model, velocity_D = step(model, velocity_D, agreed.delta_D, settings.optimizer)
    return model


def _mechanism(settings: Settings, rows: int) -> DpSgd:
    rate = sampling_rate(settings.training, rows)
    noise = calibrate(settings.privacy, rate, settings.training.local_steps, settings.evaluation)
    return DpSgd(noise_multiplier=noise, clip_norm=settings.privacy.clip_norm, sampling_rate=rate,
                 steps=settings.training.local_steps)


def main(story: Story) -> None:
    """Print what each seed reaches on the public test set."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Simulate the banks' campaign in one process.")
    parser.add_argument("--settings", type=Path, default=story.folder / "settings.toml")
    parser.add_argument("--rounds", type=int, help="instead of privacy.rounds")
    parser.add_argument("--epsilon", type=float, help="instead of privacy.epsilon")
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    settings = load_settings(asked.settings)
    other = {key: getattr(asked, key) for key in ("rounds", "epsilon") if getattr(asked, key) is not None}
    privacy = RecordPrivacy(**settings.privacy.model_dump() | other)
    settings = settings.model_copy(update={"privacy": privacy})

    recipe, rows = story.recipe(), story.encoded()
    for seed in range(asked.seeds):
        reached = judge(predictor(recipe, simulate(recipe, rows.train, settings, seed)), rows.test)
        print(f"seed {seed}: {privacy.rounds} rounds at record-level epsilon {privacy.epsilon:g}, "
              f"delta_dp {privacy.delta_dp:g}: {reached}")
