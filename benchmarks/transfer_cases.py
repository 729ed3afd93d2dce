"""The worlds of `benchmarks.transfer`, and what each method reaches in them with one seed and learning rate: {method: mean
over the sites}.

The first method is each site alone; one whose name begins with FedAvg is the plain federation. All begin at the same models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from benchmarks.many_sites import Forward, Plan, accuracy, auc, everywhere, linear, trained
from benchmarks.papers import mnist
from fedround.agreement import Agreement
from fedround.learning.examples import Examples, joined
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.tasks import Classify
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.partition import Dirichlet, Iid, deal, take
from fedround.simulation.sites import Site
from fedround_examples.banks.split import STORY as BANKS
from fedround_examples.banks.split import split as split_banks
from fedround_examples.hospitals.split import STORY as HOSPITALS
from fedround_examples.hospitals.split import hospitals
from fedround_examples.judging import auc as auc_of
from fedround_examples.judging import predictor

SITES, PLAIN = 10, Plan()
FEDPER, FEDREP = Plan(private=("2.*",)), Plan(private=("2.*",), phases=((5, "2.*"), (5, "0.*")))


class World(NamedTuple):
    """Each site's rows: to train on, to choose by, and to be judged on."""

    train: list[Examples]
    held_out: list[Examples]
    test: list[Examples]

    @classmethod
    def of(cls, parts: Sequence[Examples], seed: int) -> World:
        """Of each site's rows three fifths, one fifth and one fifth."""
        found = cls([], [], [])
        for number, part in enumerate(parts):
            order, fifth = np.random.default_rng((seed, number)).permutation(len(part)), len(part) // 5
            for into, places in zip(found, (order[2 * fifth:], order[:fifth], order[fifth:2 * fifth]), strict=True):
                into.append(take(part, places))
        return found


# -- digits ------------------------------------------------------------------------------------------------------------


def perceptron() -> nn.Module:
    """64-32-10."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


DIGITS = Recipe("digits", "0" * 64, perceptron, lambda rows: rows, Classify(classes=10))


def hidden(weights: Mapping[str, torch.Tensor], x_SBI: torch.Tensor) -> torch.Tensor:
    """One hidden layer."""
    return linear(weights, "2", linear(weights, "0", x_SBI).relu())


def classes(logit_SBO: torch.Tensor, y_SB: torch.Tensor) -> torch.Tensor:
    """The cross-entropy."""
    return cross_entropy(logit_SBO.transpose(1, 2), y_SB, reduction="none")


def binary(logit_SBO: torch.Tensor, y_SB: torch.Tensor) -> torch.Tensor:
    """The logistic loss."""
    return binary_cross_entropy_with_logits(logit_SBO[..., 0], y_SB.float(), reduction="none")


def dealt(how: Dirichlet | Iid, seed: int, sites: int = SITES) -> list[Examples]:
    """scikit-learn's digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    digits = Examples((images / 16 - 0.3).astype(np.float32), labels.astype(np.int64))
    return [take(digits, places) for places in deal(how, digits, sites, seed).values()]


def few_labels(seed: int, rate: float) -> dict[str, float]:
    """Most sites have seen few of the ten digits."""
    return _heads_and_bodies(World.of(dealt(Dirichlet(concentration=0.1), seed), seed), seed, rate)


def other_names(seed: int, rate: float) -> dict[str, float]:
    """Every site calls the digits by other names."""
    generator = np.random.default_rng(seed)
    parts = [Examples(part.inputs["x"], generator.permutation(10)[part.targets["y"]]) for part in dealt(Iid(), seed)]
    return _heads_and_bodies(World.of(parts, seed), seed, rate)


def _heads_and_bodies(world: World, seed: int, rate: float) -> dict[str, float]:
    begin = everywhere(initial_tensors(DIGITS, seed), len(world.train))

    def reached(plan: Plan, *, alone: bool = False) -> float:
        return accuracy(trained(begin, world.train, hidden, classes, replace(plan, rate=rate), seed,
                                alone=alone), world.test, hidden)

    return {"alone": reached(PLAIN, alone=True), "FedAvg": reached(PLAIN), "FedPer": reached(FEDPER),
            "FedRep, 5 steps of the head, 5 of the body": reached(FEDREP),
            "FedRep, 8 and 2": reached(replace(FEDREP, phases=((8, "2.*"), (2, "0.*")))),
            "FedRep, 10 and 10 (twice the steps)": reached(replace(FEDREP, phases=((10, "2.*"), (10, "0.*")))),
            "FedPer, twice the steps": reached(replace(FEDPER, phases=((20, "*"),)))}


# -- a frozen network, adapters, heads ---------------------------------------------------------------------------------


KNOWN, WIDTH, RANK = 5, 64, 4
"""The network has learnt the digits below 5; sites have the others."""
OWN_HEAD = ("2.*",)


def adapters_names(seed: int, rate: float) -> dict[str, float]:
    """Every site calls the digits from 5 on by other names."""
    generator, new = np.random.default_rng(seed), _pictures()[1]
    parts = [take(new, places) for places in deal(Iid(), new, SITES, seed).values()]
    return _adapted(World.of([Examples(part.inputs["x"], generator.permutation(KNOWN)[part.targets["y"]])
                              for part in parts], seed), seed, rate)


def adapters_labels(seed: int, rate: float) -> dict[str, float]:
    """Most sites have seen few of the digits from 5 on."""
    new = _pictures()[1]
    parts = [take(new, places) for places in deal(Dirichlet(concentration=0.3), new, SITES, seed).values()]
    return _adapted(World.of(parts, seed), seed, rate)


def _adapted(world: World, seed: int, rate: float) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    begin = everywhere({
        **_learnt_from_pictures(), "0.A": torch.randn(RANK, 784, generator=generator) / 784 ** 0.5,
        "0.B": torch.zeros(WIDTH, RANK), "2.weight": torch.randn(KNOWN, WIDTH, generator=generator) / WIDTH ** 0.5,
        "2.bias": torch.zeros(KNOWN)}, len(world.train))
    body, bare = ("0.weight", "0.bias"), {name: one for name, one in begin.items() if name not in ("0.A", "0.B")}

    def reached(weights: dict[str, torch.Tensor], frozen: tuple[str, ...], private: tuple[str, ...] = (), *,
                alone: bool = False) -> float:
        plan = Plan(private=private, frozen=frozen, rate=rate)
        return accuracy(trained(weights, world.train, hidden, classes, plan, seed, alone=alone), world.test, hidden)

    return {"alone: adapters and head": reached(begin, body, alone=True), "FedAvg: adapters and head": reached(begin, body),
            "alone: head": reached(bare, body, alone=True), "alone: whole network": reached(bare, (), alone=True),
            "whole network together, a head of each site's own": reached(bare, (), OWN_HEAD),
            "adapters together, a head of each site's own": reached(begin, body, OWN_HEAD)}


def _pictures() -> tuple[Examples, Examples]:
    """MNIST's digits below 5, which are public here, and the others, whose labels count from 0."""
    images = joined(list(mnist()))
    known_N = images.targets["y"] < KNOWN
    public, new = (take(images, np.flatnonzero(which_N)) for which_N in (known_N, ~known_N))
    return public, Examples(new.inputs["x"], new.targets["y"] - KNOWN)


@cache
def _learnt_from_pictures() -> dict[str, torch.Tensor]:
    """The first layer of a network that tells the public digits apart: one for all seeds, as it would be."""
    public = _pictures()[0]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, KNOWN))
    begin = everywhere({name: value.detach() for name, value in model.named_parameters()}, 1)
    done = trained(begin, [public], hidden, classes, Plan(rounds=100, batch=100, rate=0.3), 0, alone=True)
    return {name: done[name][0] for name in ("0.weight", "0.bias")}


# -- clusters ----------------------------------------------------------------------------------------------------------


def _agreement(clusters: int, noise_std: float, training: dict[str, object], privacy: dict[str, object]) -> Agreement:
    return Agreement.model_validate({
        "name": "transfer", "quorum": 3, "privacy": privacy, "aggregation": {"rule": {"name": "weighted_mean"}},
        "evaluation": {"noise_std": noise_std, "clusters": clusters}, "training": training})


def two_codings(seed: int, rate: float) -> dict[str, float]:
    """Twelve banks of equal size, every second of which says 1 for who paid: AUC on the public test set, coded as there."""
    own, split = BANKS.recipe(), split_banks(seed=20_240 + seed)
    owned = [own.encode(part) for bank in split.banks for part in (bank.train, bank.validation)]
    rows = joined(owned)
    parts = [take(rows, places) for places in deal(Iid(), rows, 12, seed).values()]
    world = World.of([_coded(part, place) for place, part in enumerate(parts)], seed)
    test = own.encode(split.public_test)
    sites = {f"bank-{place:02d}": Site(*rows) for place, rows in enumerate(zip(world.train, world.held_out, strict=True))}
    training = {"local_steps": 10, "batch_size": 256, "learning_rate": 20 * rate}
    promise = {"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 20}

    def reached(clusters: int) -> float:
        agreed = _agreement(clusters, 10.0, training, promise)
        done = simulate(agreed, own, sites, rounds=20, chance=Seeded(seed), stacked=True, judge_every=20)
        return float(np.mean([auc_of(predictor(own, done.at(name)), _coded(test, place))
                              for place, name in enumerate(sites)]))

    begin = everywhere(initial_tensors(own, seed), len(sites))
    alone = trained(begin, world.train, _tanh, binary, Plan(rounds=20, batch=256, rate=5 * rate), seed, alone=True)
    return {"alone, without noise": auc(alone, [_coded(test, place) for place in range(12)], _tanh),
            "FedAvg, epsilon 5": reached(1), "IFCA, epsilon 5": reached(2)}


def _coded(rows: Examples, place: int) -> Examples:
    return rows if place % 2 == 0 else Examples(rows.inputs["x"], 1 - rows.targets["y"])


def _tanh(weights: Mapping[str, torch.Tensor], x_SBI: torch.Tensor) -> torch.Tensor:
    return linear(weights, "2", linear(weights, "0", x_SBI).tanh())


# -- sites with different labels ---------------------------------------------------------------------------------------


def two_heads(seed: int, rate: float) -> dict[str, float]:
    """Five sites know whether a digit is odd, five whether it is above four; each is judged on what it knows."""
    parts = dealt(Iid(), seed)
    parts = [Examples(part.inputs["x"], np.where(place % 2, part.targets["y"] > 4, part.targets["y"] % 2).astype(np.int64))
             for place, part in enumerate(parts)]
    world, knows_S1 = World.of(parts, seed), torch.arange(SITES)[:, None, None] % 2
    torch.manual_seed(seed)
    two = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
    begin = everywhere({name: value.detach() for name, value in two.named_parameters()}, SITES)

    def masked(weights: Mapping[str, torch.Tensor], x_SBI: torch.Tensor) -> torch.Tensor:
        both_SBO = hidden(weights, x_SBI)
        if len(both_SBO) == 1:                              # judged: the head stands in the weights' own site
            return both_SBO.gather(2, weights["knows"].long().reshape(1, 1, 1).expand(1, both_SBO.shape[1], 1))
        return both_SBO.gather(2, knows_S1.expand(-1, both_SBO.shape[1], 1))

    begin["knows"] = knows_S1[:, 0].float()
    knows_S2 = torch.stack([1 - begin["knows"][:, 0], begin["knows"][:, 0]], 1)
    still = ("knows",)

    def reached(plan: Plan, *, alone: bool = False) -> float:
        plan = replace(plan, frozen=still, rate=rate)
        return accuracy(trained(begin, world.train, masked, binary, plan, seed, alone=alone), world.test, masked)

    def of_one_label() -> float:
        found = []
        for label in range(2):
            own = range(label, SITES, 2)
            weights = {name: value[label::2] for name, value in begin.items()}

            def one(weights: Mapping[str, torch.Tensor], x_SBI: torch.Tensor, label: int = label) -> torch.Tensor:
                return hidden(weights, x_SBI)[..., label:label + 1]

            plan = replace(PLAIN, frozen=still, rate=rate)
            done = trained(weights, [world.train[place] for place in own], one, binary, plan, seed)
            found.append(accuracy(done, [world.test[place] for place in own], one))
        return float(np.mean(found))

    return {"alone": reached(PLAIN, alone=True), "FedAvg, sites of one label": of_one_label(), "FedPer": reached(FEDPER),
            "two heads, one body": reached(PLAIN),
            "two heads, each averaged over those who know": reached(replace(PLAIN, counts={
                "2.weight": knows_S2[:, :, None], "2.bias": knows_S2}))}


# -- sites with different columns --------------------------------------------------------------------------------------


def hospitals_columns(seed: int, rate: float) -> dict[str, float]:
    """Four hospitals that did not measure the same things: AUC on each one's own test patients, mean of the four."""
    own, parts = HOSPITALS.recipe(), hospitals(seed=seed)
    train, test = ([own.encode(getattr(part, which)) for part in parts] for which in ("train", "test"))
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(56, 8), nn.Tanh(), nn.Linear(8, 1))
    wide = everywhere({name: value.detach() for name, value in model.named_parameters()}, len(parts))
    flat = everywhere({"0.weight": np.zeros((1, 56), np.float32), "0.bias": np.zeros(1, np.float32)}, len(parts))

    def one(weights: Mapping[str, torch.Tensor], x_SBI: torch.Tensor) -> torch.Tensor:
        return linear(weights, "0", x_SBI)

    def reached(begin: dict[str, torch.Tensor], forward: Forward, plan: Plan, *, alone: bool = False) -> float:
        return auc(trained(begin, train, forward, binary, replace(plan, rate=rate), seed, alone=alone), test, forward)

    return {"alone": reached(flat, one, PLAIN, alone=True), "FedAvg, missing is a category": reached(flat, one, PLAIN),
            "alone, hidden layer": reached(wide, _tanh, PLAIN, alone=True),
            "FedAvg, hidden layer": reached(wide, _tanh, PLAIN),
            "an encoder of each site's own": reached(wide, _tanh, Plan(private=("0.*",))),
            "a head of each site's own": reached(wide, _tanh, FEDPER)}
