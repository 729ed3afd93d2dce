"""Liars in secure sums, one sum beside sums of groups, simulated; fills a part of docs/robustness.md.

    python -m benchmarks.grouped_sums [--seeds 3] [--members 40,100] [--no-page]

The banks' rows, dealt evenly to 40 and to 100 sites, at the same epsilon on both sides; trees as in the example. A liar sends
its own honest numbers times a factor, noise and all. Judged on the public test set. Remembers finished runs in
build/grouped_sums.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.pages import Memory, fill, table
from benchmarks.secure_noise import at
from fedround.codec import Tensors
from fedround.learning.evaluate import scores
from fedround.learning.examples import joined
from fedround.learning.recipe import initial
from fedround.records import Question, Train
from fedround.rounds import server
from fedround.rounds.server import Server
from fedround.secure_sums.spec import SecureSum, SumGroups
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site, Sites
from fedround.simulation.summed import added_up, terms_of
from fedround.terms import Terms
from fedround_examples.banks_trees.split import STORY
from fedround_examples.rivals import rounds_of

PAGE = Path("docs/robustness.md")
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """How so many members add up, as one and in groups."""

    members: int
    one: SecureSum
    grouped: SecureSum
    liars: tuple[int, ...]
    with_own_noise: bool
    """Whether each site's own noise is simulated, too, and epsilon 1."""


CASES = (
    Case(40, SecureSum(threshold=38, dropouts=2, colluders=1),
         SecureSum(threshold=38, dropouts=2, colluders=1, groups=SumGroups(count=5, liars=2)), (0, 1, 2, 4), True),
    Case(100, SecureSum(threshold=96, dropouts=4, colluders=2),
         SecureSum(threshold=96, dropouts=4, colluders=2, groups=SumGroups(count=10, liars=3)), (0, 1, 3), False),
)
LIES = {"−100 times its numbers": -100.0}


class Lying(Sites):
    """The first few sites send their numbers times a factor."""

    liars, factor = frozenset[str](), 1.0

    def summands(self, asks: Question, number: int, cohort: Iterable[str], terms: Terms, base: Tensors) -> Iterator[Float64]:
        """As `Sites`."""
        cohort = [*cohort]
        for site, summand_S in zip(cohort, super().summands(asks, number, cohort, terms, base), strict=True):
            yield self.factor * summand_S if site in self.liars else summand_S


def sites_of(members: int) -> dict[str, Site]:
    """All banks' rows, dealt evenly in an order that is drawn once."""
    rows = joined([*STORY.encoded().train.values()])
    order = np.random.default_rng(0).permutation(len(rows))
    return {f"site-{number:03d}": Site(rows.at(part)) for number, part in enumerate(np.array_split(order, members))}


def auc_of(case: Case, how: SecureSum | None, epsilon: float, seed: int, liars: int, factor: float) -> float:
    """One campaign. how: None: each site's own noise."""
    recipe, agreed = STORY.recipe(), at(STORY.settings(), epsilon, how, case.members)
    sites, chance, rounds, test = sites_of(case.members), Seeded(seed), rounds_of(agreed), STORY.encoded().test
    if how is None:
        model = simulate(agreed.model_copy(update={"quorum": case.one.least(case.members)}), recipe, sites, rounds=rounds,
                         chance=chance, judge_every=rounds).model
    else:
        terms = terms_of(agreed, {name: len(site.train) for name, site in sites.items()})
        base, rest = initial(recipe, chance.initial(), agreed.parts, per_record=True)
        everybody = Lying(terms, recipe, sites, rest, chance)
        everybody.liars, everybody.factor = frozenset(sorted(sites)[:liars]), factor
        now = Server(base)
        for number in range(1, rounds + 1):
            found = added_up(everybody, Train(statistics=()), number, sorted(sites), terms, now.model).read
            if found.delta_D is None:
                raise AssertionError("a plan to train asks for an update")
            now = server.step(terms, recipe.task, now, found.delta_D, sorted(sites), everybody.weights)
        model = now.model
    return recipe.task.metrics(scores(recipe, model, test)).auc or 0.0


def lines(memory: Memory, seeds: range, members: set[int]) -> Iterator[list[str]]:
    """Both ways beside each other, and each site's own noise where nobody lies."""
    def found(case: Case, how: SecureSum | None, epsilon: float, liars: int, factor: float) -> str:
        said = "own noise" if how is None else how.model_dump(mode="json")
        aucs = [memory.recall(f"{case.members} {epsilon} {liars} {factor} seed {seed}", said,
                              lambda seed=seed: auc_of(case, how, epsilon, seed, liars, factor)) for seed in seeds]
        return f"{np.mean(aucs):.3f} ± {np.std(aucs, ddof=1):.3f}"

    for case in (one for one in CASES if one.members in members):
        for epsilon in (1.0, 5.0) if case.with_own_noise else (5.0,):
            own = found(case, None, epsilon, 0, 1.0) if case.with_own_noise else ""
            yield [f"{case.members}", f"{epsilon:g}", "0", "", *(found(case, how, epsilon, 0, 1.0) for how in (
                case.one, case.grouped)), own]
        for liars in case.liars[1:]:
            for words, factor in LIES.items():
                yield [f"{case.members}", "5", f"{liars}", words, found(case, case.one, 5.0, liars, factor),
                       found(case, case.grouped, 5.0, liars, factor), ""]


def main() -> None:
    """Run what is not remembered, then write the table."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Liars in secure sums, with and without groups.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--memory", type=Path, default=Path("build/grouped_sums.json"))
    parser.add_argument("--members", default=",".join(f"{case.members}" for case in CASES))
    parser.add_argument("--no-page", action="store_true", help="compute, and leave the page as it is")
    asked = parser.parse_args()
    members = {int(one) for one in asked.members.split(",")}
    text = table(["sites", "epsilon", "liars", "each sends", "AUC, one sum", "AUC, groups", "AUC, each site's own noise"],
                 [*lines(Memory(asked.memory), range(asked.seeds), members)])
    print(text)
    if not asked.no_page:
        fill(PAGE, "groups", text)


if __name__ == "__main__":
    main()
