"""Liars among unequal sites: the twelve banks' campaign, simulated through the product's own path.

    python -m benchmarks.unequal                    # all cells, seed 0: about twelve CPU minutes
    python -m benchmarks.unequal --seeds 0,1,2,3,4 --attacks none

Twelve banks of 320 to 3,640 training rows, weighted by them, epsilon 5 in 20 rounds. Liars know the honest uploads of the
round (`against_learning`, `lean`), or nothing. A number is the AUC on the public test set; "left out" counts the liars'
uploads that the aggregation left out, of all that they sent.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import ArrayNumbers, Row
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation, default_aggregation
from fedround.aggregation.verdict import Verdict
from fedround.agreement import Agreement
from fedround.learning.recipe import Recipe
from fedround.rounds import server
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site
from fedround_examples.banks.split import STORY
from fedround_examples.story import Encoded

Floats = npt.NDArray[np.float64]
QUORUM, ROUNDS = 9, 20
LIARS = {"the two largest": ("bank-01", "bank-02"), "the two smallest": ("bank-11", "bank-12"), "the smallest": ("bank-12",)}
RULES = {"default": default_aggregation(QUORUM, noise_is_declared=True, rounds=ROUNDS),
         "weighted mean": Aggregation(rule=WeightedMean())}


@dataclass(eq=False)
class View:
    """What liars see of a round."""

    learnt_D: Floats
    """Where the honest uploads go, weighted; of length 1."""
    last_D: Floats | None
    """The last round's public delta."""
    law: NoiseLaw
    """The liar's own, as its plan's calibration gives it."""
    generator: np.random.Generator

    def noise_D(self) -> Floats:
        """Noise as declared."""
        return self.law.std * self.generator.standard_normal(len(self.learnt_D))


Attack = Callable[[View], tuple[Floats, NoiseLaw]]
"""What a liar sends, and the law that it declares."""


def against_learning(length: float) -> Attack:
    """A push against what the honest sites learnt, with honest noise."""
    return lambda view: (view.noise_D() - length * view.learnt_D, view.law)


def one_way(length: float) -> Attack:
    """The same push in a direction that was drawn once, in every round."""
    def attack(view: View) -> tuple[Floats, NoiseLaw]:
        drawn_D = np.random.default_rng(3).standard_normal(len(view.learnt_D))
        return view.noise_D() + length * drawn_D / np.linalg.norm(drawn_D), view.law
    return attack


def as_if(times: float, attack: Attack) -> Attack:
    """The same by a liar whose noise, and whose declaration, is so many times as loud as its plan's calibration gives."""
    return lambda view: attack(replace(view, law=NoiseLaw(view.law.signal_bound, view.law.variance * times ** 2)))


def with_learnt(length: float) -> Attack:
    """One way, and a little along what was learnt: nobody's inner product with it is negative."""
    def attack(view: View) -> tuple[Floats, NoiseLaw]:
        drawn_D = np.random.default_rng(3).standard_normal(len(view.learnt_D))
        way_D = drawn_D / np.linalg.norm(drawn_D) + 0.5 * view.learnt_D
        return view.noise_D() + length * way_D / np.linalg.norm(way_D), view.law
    return attack


def lean(length: float) -> Attack:
    """Along the last round's public delta, which carries everybody's noise, and against what was learnt."""
    def attack(view: View) -> tuple[Floats, NoiseLaw]:
        if view.last_D is None:
            return view.noise_D(), view.law
        way_D = view.last_D / max(1e-12, float(np.linalg.norm(view.last_D))) - 0.7 * view.learnt_D
        return view.noise_D() + length * way_D / np.linalg.norm(way_D), view.law
    return attack


LABELS = "labels flipped"
"""Liars who follow the protocol on rows whose labels are all wrong."""
ATTACKS: dict[str, Attack | None] = {
    "none": None, LABELS: None, "against learning, 0.5": against_learning(0.5), "against learning, 1": against_learning(1),
    "against learning, 2": against_learning(2), "one way, 2": one_way(2), "one way, 20": one_way(20),
    "declared x100": as_if(100, one_way(0)), "lean on the public delta, 2": lean(2),
    "declared x0.01, one way, 1": as_if(0.01, one_way(1)), "declared x0.01, with learning, 1": as_if(0.01, with_learnt(1)),
    "declared x0.01, lean, 1": as_if(0.01, lean(1))}


@dataclass(eq=False)
class Campaign:
    """One campaign, and what became of the liars in it."""

    attack: Attack | None
    liars: frozenset[str]
    generator: np.random.Generator
    last_D: Floats | None = None
    verdicts: list[Verdict] = field(default_factory=list)

    def attacked(self, rows: Sequence[Row], size: int) -> list[Row]:
        """The cohort as the coordinator gets it."""
        if self.attack is None:
            return list(rows)
        honest = [row for row in rows if row.site not in self.liars]
        sum_D = np.sum([row.weight * server.read(row.numbers, 0, size).astype(np.float64) for row in honest], axis=0)
        learnt_D, sent = sum_D / np.linalg.norm(sum_D), []
        for row in rows:
            lie = row
            if row.site in self.liars and row.law is not None:
                numbers_D, law = self.attack(View(learnt_D, self.last_D, row.law, self.generator))
                lie = replace(row, numbers=ArrayNumbers(numbers_D.astype(np.float32)), law=law)
            sent.append(lie)
        return sent

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, the coordinator's half of every round gets what the liars send."""
        honest = server.combine

        def combine(how: Aggregation, size: int, rows: Sequence[Row], *rest: Any, **options: Any) -> server.Combined:
            combined = honest(how, size, self.attacked(rows, size), *rest, **options)
            self.last_D = combined.result.delta_D.astype(np.float64)
            self.verdicts += [combined.result.standings[site].verdict for site in self.liars]
            return combined

        server.combine = combine
        try:
            yield
        finally:
            server.combine = honest


def cell(rule: str, attack: str, liars: str, seed: int, story: tuple[Recipe, Agreement, Encoded]) -> dict[str, Any]:
    """One campaign: AUC, and the share of the liars' uploads that was left out."""
    recipe, agreed, rows = story
    campaign = Campaign(ATTACKS[attack], frozenset(LIARS[liars]), np.random.default_rng([42, seed]))
    agreed = agreed.model_copy(update={"aggregation": RULES[rule], "quorum": QUORUM})
    flipped = campaign.liars if attack == LABELS else frozenset()
    sites = {name: Site(replace(examples, targets=1 - examples.targets["y"]) if name in flipped else examples,
                        rows.validation[name]) for name, examples in rows.train.items()}
    with campaign.running():
        result = simulate(agreed, recipe, sites, rounds=ROUNDS, chance=Seeded(seed), stacked=True, test=rows.test,
                          judge_every=ROUNDS)
    judged = result.rounds[-1].test
    left_out = [verdict is not Verdict.USED for verdict in campaign.verdicts]
    return {"rule": rule, "attack": attack, "liars": liars, "seed": seed,
            "auc": None if judged is None else judged.known()["auc"],
            "left_out": float(np.mean(left_out)) if attack != "none" else 0.0}


def main() -> None:
    """Print a line of JSON for each cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda given: [int(seed) for seed in given.split(",")], default=[0])
    parser.add_argument("--attacks", type=lambda given: given.split(";"), default=list(ATTACKS), help="; between names")
    parser.add_argument("--rules", type=lambda given: given.split(","), default=list(RULES))
    parser.add_argument("--liars", type=lambda given: given.split(";"), default=list(LIARS))
    asked = parser.parse_args()
    story = (STORY.recipe(), STORY.settings(), STORY.encoded())
    for rule in asked.rules:
        for attack in asked.attacks:
            for liars in asked.liars[:1] if attack == "none" else asked.liars:
                for seed in asked.seeds:
                    print(json.dumps(cell(rule, attack, liars, seed, story)), flush=True)


if __name__ == "__main__":
    main()
