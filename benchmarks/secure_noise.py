"""Noise that all sites share, beside each site's own, at the same epsilon, simulated; fills a part of docs/utility.md and
draws docs/secure-noise.svg.

    python -m benchmarks.secure_noise [--seeds 3] [--only network,trees] [--epsilons 1,5]

For every line one of a few settings is chosen by the AUC on all sites' validation rows together, with a seed that is used
for nothing else (for the banks' network and regression at epsilon 1, once for all epsilons); then every seed is run once and
judged on the public test set. Everything is charged: the training, the counts of scores and of groups, whose totals have the
same noise on both sides. What docs/utility.md and docs/trees.md say already of each site's own noise is taken from there.
Remembers finished runs in build/secure_noise.json.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from benchmarks.pages import Memory, fill, table
from benchmarks.trees import measured
from fedround.agreement import Agreement
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples, joined
from fedround.learning.recipe import Recipe
from fedround.learning.spec import FedAvg, LocalTraining
from fedround.learning.tasks import Metrics
from fedround.learning.trees.spec import Trees
from fedround.learning.union.spec import UnionStep
from fedround.privacy.calibration import calibrate
from fedround.privacy.spec import RecordPrivacy
from fedround.secure_sums.spec import SecureSum
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.result import Result
from fedround.simulation.sites import Site
from fedround_examples.banks.split import STORY as BANKS
from fedround_examples.banks_trees.split import STORY as TREES
from fedround_examples.hospitals.split import STORY as HOSPITALS
from fedround_examples.rivals import rounds_of
from fedround_examples.story import Story

EPSILONS = (0.5, 1.0, 2.0, 5.0)
TUNING_SEED = 1000
ALL_ROWS = 1_000_000
DOCS = Path("docs")
TWELVE = SecureSum(threshold=10, dropouts=2, colluders=1)
FOUR = SecureSum(threshold=3, dropouts=1, colluders=1)

Learner = tuple[Recipe, Agreement]


@dataclass(frozen=True)
class Case:
    """A federation and a model, and what to choose from, by what a reader calls it."""

    story: Story
    combine: SecureSum
    local: dict[str, Callable[[], Learner]]
    shared: dict[str, Callable[[], Learner]]
    page: str | None = None
    """Which page has measured each site's own noise."""
    chosen_at: float | None = None
    """At which epsilon settings for shared noise are chosen for all; None: at each for itself."""
    epsilons: tuple[float, ...] = EPSILONS


def logistic() -> Recipe:
    """The banks' features, and one weight for each."""
    return replace(BANKS.recipe(), name="banks-logistic", digest="0" * 64, build_model=lambda: nn.Linear(57, 1))


def steps(story: Story, recipe: Recipe, *, rounds: int, local_steps: int, rate: float, momentum: float = 0.0) -> Learner:
    """Steps at the sites, as the example has them."""
    agreed = story.settings()
    training = LocalTraining(local_steps=local_steps, batch_size=256, learning_rate=rate)
    return recipe, _for(agreed, rounds).model_copy(update={"training": training, "optimizer": FedAvg(momentum=momentum)})


def union(story: Story, recipe: Recipe, *, rounds: int, rate: float, momentum: float = 0.0,
          batch: int = ALL_ROWS) -> Learner:
    """One step on all rows in a round."""
    return recipe, _for(story.settings(), rounds).model_copy(update={
        "training": UnionStep(batch_size=batch, learning_rate=rate), "optimizer": FedAvg(momentum=momentum)})


def trees(depth: int, l2: float) -> Learner:
    """The example's trees with other settings."""
    recipe = TREES.recipe()
    how = Trees(**{**dict(recipe.trees or Trees()), "depth": depth, "l2": l2})
    return recipe.growing(how), TREES.settings().model_copy(update={"training": how})


def _for(agreed: Agreement, rounds: int) -> Agreement:
    return agreed.model_copy(update={"privacy": agreed.privacy.model_copy(update={"rounds": rounds})})


CASES = {
    "banks, network": Case(BANKS, TWELVE, {
        "20 rounds of 10 steps, rate 2": lambda: steps(BANKS, BANKS.recipe(), rounds=20, local_steps=10, rate=2.0),
        "20 rounds of 10 steps, rate 1": lambda: steps(BANKS, BANKS.recipe(), rounds=20, local_steps=10, rate=1.0),
    }, {
        "40 rounds, rate 4": lambda: union(BANKS, BANKS.recipe(), rounds=40, rate=4.0),
        "40 rounds, rate 10": lambda: union(BANKS, BANKS.recipe(), rounds=40, rate=10.0),
        "40 rounds, rate 1, momentum 0.9": lambda: union(BANKS, BANKS.recipe(), rounds=40, rate=1.0, momentum=0.9),
        "60 rounds of 6000 rows, rate 6": lambda: union(BANKS, BANKS.recipe(), rounds=60, rate=6.0, batch=6000),
        "60 rounds of 6000 rows, rate 0.6, momentum 0.9": lambda: union(
            BANKS, BANKS.recipe(), rounds=60, rate=0.6, momentum=0.9, batch=6000),
    }, "utility.md", 1.0),
    "banks, logistic regression": Case(BANKS, TWELVE, {
        "20 rounds of 10 steps, rate 2": lambda: steps(BANKS, logistic(), rounds=20, local_steps=10, rate=2.0),
        "20 rounds of 10 steps, rate 0.5": lambda: steps(BANKS, logistic(), rounds=20, local_steps=10, rate=0.5),
    }, {
        "60 rounds of 6000 rows, rate 2": lambda: union(BANKS, logistic(), rounds=60, rate=2.0, batch=6000),
        "60 rounds of 6000 rows, rate 0.6, momentum 0.9": lambda: union(
            BANKS, logistic(), rounds=60, rate=0.6, momentum=0.9, batch=6000),
    }, chosen_at=1.0),
    "banks, trees": Case(TREES, TWELVE, {
        "depth 4, l2 0.01": lambda: trees(4, 0.01), "depth 3, l2 0.03": lambda: trees(3, 0.03),
    }, {
        "depth 4, l2 0.01": lambda: trees(4, 0.01), "depth 4, l2 0.002": lambda: trees(4, 0.002),
    }, "trees.md"),
    "hospitals, logistic regression": Case(HOSPITALS, FOUR, {
        "20 rounds of 2 steps, rate 1": lambda: steps(
            HOSPITALS, HOSPITALS.recipe(), rounds=20, local_steps=2, rate=1.0, momentum=0.5),
        "20 rounds of 2 steps, rate 0.3": lambda: steps(
            HOSPITALS, HOSPITALS.recipe(), rounds=20, local_steps=2, rate=0.3, momentum=0.5),
    }, {
        "30 rounds, rate 1, momentum 0.5": lambda: union(HOSPITALS, HOSPITALS.recipe(), rounds=30, rate=1.0, momentum=0.5),
        "30 rounds, rate 0.3, momentum 0.8": lambda: union(
            HOSPITALS, HOSPITALS.recipe(), rounds=30, rate=0.3, momentum=0.8),
    }),
}


def at(agreed: Agreement, epsilon: float, combine: SecureSum | None, members: int) -> Agreement:
    """The same with another budget, of which all counts get the same share: a noise as agreed at epsilon 5 in every total."""
    louder = 5.0 / epsilon * (1.0 if combine is None else math.sqrt(combine.shared_by(members)))
    said = {name: getattr(agreed, name) for name in agreed.model_fields_set if name != "aggregation" or combine is None}
    said["privacy"] = agreed.privacy.model_copy(update={"epsilon": epsilon})
    said["evaluation"] = agreed.evaluation.model_copy(update={"noise_std": agreed.evaluation.noise_std * louder})
    if agreed.groups is not None:
        said["groups"] = agreed.groups.model_copy(update={"watched": tuple(
            one.model_copy(update={"noise_std": one.noise_std * louder}) for one in agreed.groups.watched)})
    if combine is not None:
        said |= {"combine": combine, "quorum": combine.least(members)}
    return Agreement(**said)


@dataclass(frozen=True)
class Run:
    """One campaign."""

    auc: float
    rounds: int
    kilobytes: float
    """That one site sends over the whole campaign."""
    alone: float | None
    """What it cost at each site if nobody else's noise counted."""


def run(case: Case, made: Callable[[], Learner], epsilon: float, seed: int, where: str, *, shared: bool) -> Run:
    """One campaign, judged on these rows."""
    recipe, agreed = made()
    rows = case.story.encoded()
    agreed = at(agreed, epsilon, case.combine if shared else None, len(rows.train))
    judged = rows.test if where == "test" else joined([*rows.validation.values()])
    rounds = rounds_of(agreed)
    result = simulate(agreed, recipe, {name: Site(own) for name, own in rows.train.items()}, rounds=rounds,
                      chance=Seeded(seed), judge_every=rounds, stacked=not shared)
    return Run(_auc(recipe, result, judged), rounds,
               sum(one.received_bytes for one in result.rounds) / len(rows.train) / 1000, result.epsilon_alone)


def _auc(recipe: Recipe, result: Result, rows: Examples) -> float:
    found: Metrics = recipe.task.metrics(scores(recipe, result.model, rows))
    return found.auc or 0.0


@dataclass(frozen=True)
class Line:
    """What was chosen, and what each seed reached."""

    case: str
    epsilon: float
    shared: bool
    chosen: str
    mean: float
    std: float
    seeds: int
    rounds: int
    kilobytes: float | None
    """That one site sends over the whole campaign; None: from a page, which does not say."""
    alone: float | None

    @property
    def auc(self) -> str:
        """Mean and standard deviation over seeds."""
        return f"{self.mean:.4f} ± {self.std:.4f}"


def line(memory: Memory, name: str, epsilon: float, seeds: Sequence[int], *, shared: bool) -> Line:
    """Choose on the validation rows, then judge on the test set."""
    case = CASES[name]
    known = {} if shared or case.page is None else measured(DOCS / case.page)
    if (found := known.get(f"{epsilon:g}")) is not None:
        return Line(name, epsilon, shared, f"as {case.page}", *found, 5, 20, None, None)
    candidates = case.shared if shared else case.local

    def recalled(words: str, seed: int, where: str, epsilon: float) -> Run:
        recipe, agreed = candidates[words]()
        depends_on = [at(agreed, epsilon, case.combine if shared else None, 12).model_dump(mode="json"), recipe.digest]
        called = f"{name} {words} epsilon {epsilon} seed {seed} {where} shared {shared}"
        return Run(**memory.recall(called, depends_on, lambda: vars(
            run(case, candidates[words], epsilon, seed, where, shared=shared))))

    tuned = case.chosen_at if shared and case.chosen_at is not None else epsilon
    chosen = max(candidates, key=lambda words: recalled(words, TUNING_SEED, "validation", tuned).auc)
    runs = [recalled(chosen, seed, "test", epsilon) for seed in seeds]
    aucs = [one.auc for one in runs]
    return Line(name, epsilon, shared, chosen, float(np.mean(aucs)), float(np.std(aucs, ddof=1)) if len(aucs) > 1 else 0.0,
                len(aucs), runs[0].rounds, runs[0].kilobytes, runs[0].alone)


# -- what the noise in one step is -------------------------------------------------------------------------------------


def factors() -> list[list[str]]:
    """Noise in the mean clipped gradient of one of 200 steps at the banks, in clip norms: each bank's own beside shared."""
    rows = {name: len(own) for name, own in BANKS.encoded().train.items()}
    total, found = sum(rows.values()), []
    for epsilon in (5.0, 1.0):
        privacy = RecordPrivacy(epsilon=epsilon, delta_dp=1e-5, rounds=200)
        own = {name: calibrate(privacy, min(1.0, 256 / count), 1, ()) / min(256, count) for name, count in rows.items()}
        local = math.sqrt(sum((rows[name] / total * noise) ** 2 for name, noise in own.items()))
        rate = sum(min(256, count) for count in rows.values()) / total
        sum_of_all = calibrate(privacy, rate, 1, ())
        shared = {by: sum_of_all * math.sqrt(12 / by) / (rate * total) for by in (12, 9, 5)}
        found.append([f"{epsilon:g}", f"{1000 * local:.2f}", *(f"{1000 * noise:.2f} ({local / noise:.2f} times less)"
                                                               for noise in shared.values())])
    return found


# -- pages -------------------------------------------------------------------------------------------------------------


def report(lines: Sequence[Line]) -> str:
    """Both sides in one row."""
    rows = []
    for own in lines:
        if own.shared:
            continue
        other = next(one for one in lines if one.shared and (one.case, one.epsilon) == (own.case, own.epsilon))
        sent = other.kilobytes or 0.0                # a round's update is as long on both sides
        rows.append([own.case, f"{own.epsilon:g}", own.auc, other.auc, other.chosen, f"{other.alone or 0:.1f}",
                     f"{own.rounds} and {other.rounds}", f"{sent * own.rounds / other.rounds:.0f} and {sent:.0f}"])
    return table(["federation, model", "epsilon", "AUC, each site's own noise", "AUC, shared noise",
                  "chosen for shared noise", "epsilon alone", "rounds", "kB that a site sends"], rows)


def draw(lines: Sequence[Line], path: Path) -> None:
    """AUC against epsilon, one panel a case."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    cases = list(dict.fromkeys(one.case for one in lines))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "secure-noise", "font.family": "sans-serif",
                         "font.size": 9}):
        figure, panels = plt.subplots(1, len(cases), figsize=(3 * len(cases), 3), squeeze=False)
        for axes, case in zip(panels[0], cases, strict=True):
            for shared, color, words in ((False, "tab:blue", "each site's own"), (True, "tab:orange", "shared")):
                some = [one for one in lines if one.case == case and one.shared == shared]
                axes.errorbar(range(len(some)), [one.mean for one in some], [one.std for one in some], color=color,
                              marker="o", markersize=3, capsize=2, linewidth=1, label=words)
            axes.set_xticks(range(len(some)), [f"{one.epsilon:g}" for one in some])
            axes.set_title(case, fontsize=9)
            axes.set_xlabel("epsilon of a record")
        panels[0][0].set_ylabel("AUC on the public test set")
        panels[0][0].legend(loc="lower right", frameon=False)
        figure.tight_layout()
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    """Run what is not remembered, then write table and picture."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Shared noise beside each site's own.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(CASES).replace(", ", " "), help="cases, without their commas")
    parser.add_argument("--epsilons", default=",".join(f"{epsilon:g}" for epsilon in EPSILONS))
    parser.add_argument("--memory", type=Path, default=Path("build/secure_noise.json"))
    parser.add_argument("--no-page", action="store_true", help="compute, and leave the page as it is")
    asked = parser.parse_args()
    memory = Memory(asked.memory)
    cases = [name for name in CASES if name.replace(", ", " ") in asked.only.split(",")]
    wanted = {float(epsilon) for epsilon in asked.epsilons.split(",")}
    lines = [line(memory, name, epsilon, range(asked.seeds), shared=shared)
             for name in cases for epsilon in CASES[name].epsilons if epsilon in wanted for shared in (False, True)]
    print(report(lines))
    if not asked.no_page:
        fill(DOCS / "utility.md", "factors", table(
            ["epsilon", "each bank's own", "shared by 12", "shared by 9", "shared by 5"], factors()))
        fill(DOCS / "utility.md", "shared", report(lines))
        draw(lines, DOCS / "secure-noise.svg")


if __name__ == "__main__":
    main()
