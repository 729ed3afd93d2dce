"""Who is said to have added how much: seven honest sites, and one whose labels are all wrong, or that sends nothing.

    python -m benchmarks.contribution [--seeds 20] [--rounds 10] [--unclipped 2.0]

The banks' rows, dealt evenly to eight sites, anew for each seed; a weighted mean; the banks' training. What is told is the
sum over all rounds of a campaign.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedround import codec
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.contribution.split import split
from fedround.learning.examples import Examples, joined
from fedround.learning.many import Judge
from fedround.privacy.spec import NoPrivacy, RecordPrivacy
from fedround.simulation.campaign import Seen, simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.crew import Chunk, Crew, Trainer
from fedround.simulation.jobs import Learnt
from fedround.simulation.partition import Iid, deal, take
from fedround.simulation.sites import Site
from fedround_examples.banks.split import STORY

SITES, TEST_ROWS, DRAWS = 8, 2000, 5
ODD = "site-0"
Oddity = Literal["flips labels", "sends nothing"]


CASES: tuple[tuple[Oddity, str, float | None], ...] = (
    ("flips labels", "none", None), ("sends nothing", "none", None), ("flips labels", "ε 5", 5.0),
    ("sends nothing", "ε 5", 5.0))


@dataclass(frozen=True)
class Riding:
    """Sites are trained by `crew`; the rider's update is the model that it was sent: a change of nothing."""

    crew: Crew

    def __call__(self, orders: Iterable[Chunk]) -> Iterator[Learnt]:
        """As `Crew`."""
        for chunk in orders:
            for learnt in self.crew([chunk]):
                moves_S1 = np.array([[job.site != ODD] for job in chunk.jobs], np.float32)
                yield dataclasses.replace(learnt, delta_SD=learnt.delta_SD * moves_S1)


@dataclass(frozen=True, eq=False)
class Campaign:
    """Sums over the rounds, by site in their order."""

    share_N: npt.NDArray[np.float64]
    noise_NN: npt.NDArray[np.float64] | None
    """Standard deviations: of differences, and on the diagonal of the shares."""


def campaign(rows: Examples, test: Examples, seed: int, rounds: int, epsilon: float | None, oddity: Oddity,
             unclipped: float) -> Campaign:
    """One campaign, and what each site added to it. unclipped: the learning rate without privacy."""
    recipe, agreed = STORY.recipe(), STORY.settings()
    privacy = NoPrivacy() if epsilon is None else agreed.privacy.model_copy(update={"epsilon": epsilon, "rounds": rounds})
    agreed = agreed.model_copy(update={"privacy": privacy, "aggregation": Aggregation(rule=WeightedMean()), "quorum": SITES,
                                       "groups": None})
    if epsilon is None:
        agreed = agreed.model_copy(update={"training": agreed.training.model_copy(update={"learning_rate": unclipped})})
    dealt = deal(Iid(), rows, SITES, seed)
    sites = {f"site-{turn}": take(rows, places) for turn, places in enumerate(dealt.values())}
    if oddity == "flips labels":
        sites[ODD] = dataclasses.replace(sites[ODD], targets=1 - sites[ODD].targets["y"])
    shares, noises = list[npt.NDArray[np.float64]](), list[npt.NDArray[np.float64] | None]()

    def seen(of: Seen) -> None:
        judge = Judge(recipe, codec.schema_of(of.before.model), {}, test)
        found = split(of.terms, of.before, of.combined, judge, seed=bytes([seed, of.number]), budget_bytes=1 << 28,
                      draws=DRAWS if isinstance(agreed.privacy, RecordPrivacy) else 0)
        shares.append(found.share_N)
        noises.append(found.noise_NN)

    chance = Seeded(seed)
    trainer = Trainer(recipe, sites, agreed.training, chance)
    simulate(agreed, recipe, {name: Site(own) for name, own in sites.items()}, rounds=rounds, chance=chance, stacked=True,
             crew=Riding(trainer) if oddity == "sends nothing" else trainer, seen=seen)
    known = [noise_NN for noise_NN in noises if noise_NN is not None]
    return Campaign(np.sum(shares, axis=0), np.sqrt(np.sum(np.square(known), axis=0)) if known else None)


def line(told: list[Campaign]) -> str:
    """What all campaigns of one kind say."""
    share_CN = np.array([one.share_N for one in told])
    odd_C, honest_CN = share_CN[:, 0], share_CN[:, 1:]
    apart = [np.mean(np.abs(one.share_N[:, None] - one.share_N)[upper] > 1.96 * one.noise_NN[upper])
             for one in told if one.noise_NN is not None for upper in [np.triu_indices(SITES, 1)]]
    noise = [one.noise_NN.diagonal().mean() for one in told if one.noise_NN is not None]
    return " | ".join([
        f"{np.mean(odd_C <= share_CN.min(axis=1)):.0%}", f"{odd_C.mean():+.4f} ± {odd_C.std():.4f}",
        f"{honest_CN.mean():+.4f} ± {honest_CN.std():.4f}", f"{np.mean(np.array(noise)):.4f}" if noise else "–",
        f"{np.mean(apart):.0%}" if apart else "–"])


def main() -> None:
    """Print the table of docs/contribution.md."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--unclipped", type=float, default=2.0, help="the learning rate without privacy")
    asked, encoded = parser.parse_args(), STORY.encoded()
    rows, test = joined([*encoded.train.values()]), take(encoded.test, np.arange(TEST_ROWS))
    print("| the odd site | privacy | it is last | it added | an honest site added | noise (sd) | pairs apart |")
    print("|---|---|---|---|---|---|---|")
    for oddity, words, epsilon in CASES:
        told = [campaign(rows, test, seed, asked.rounds, epsilon, oddity, asked.unclipped) for seed in range(asked.seeds)]
        print(f"| {oddity} | {words} | {line(told)} |", flush=True)


if __name__ == "__main__":
    main()
