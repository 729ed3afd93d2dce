"""Boosted trees on the twelve banks at several epsilons, simulated; fills docs/trees.md and draws docs/trees.svg.

    python -m benchmarks.trees [--seeds 5]

For every epsilon one of a few settings is chosen by the AUC on all banks' validation rows together, with a seed that is used
for nothing else; then every seed is run once and judged on the public test set. Everything is charged: sums, counts of scores
and of groups. Remembers finished runs in build/trees.json. The picture is of the table and of the network's,
in docs/utility.md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.pages import Memory, fill, table
from benchmarks.utility import at_epsilon
from fedround.agreement import Agreement
from fedround.learning.evaluate import scores
from fedround.learning.examples import joined
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import Metrics
from fedround.learning.trees.shapes import Named, noise_in_leaves, shapes
from fedround.learning.trees.spec import Trees
from fedround.privacy.units import noise_of_one
from fedround.rounds.campaign import mechanism_for
from fedround_examples.banks_trees.split import STORY
from fedround_examples.rivals import federated
from tasks.reporting.shape_plot import render_shapes

EPSILONS = (1.0, 2.0, 5.0, 10.0, None)
DOCS = Path("docs")
TUNING_SEED = 1000
READABLE = {"1 feature a tree, depth 3": (3, 0.01, 1), "2 features a tree, depth 4": (4, 0.01, 2)}
FEATURES = ("last month's status", "how late, lately", "months late", "limit (10^x)", "largest payment (10^x)",
            "payments / limit (10^x)", "last bill (10^x)", "use of the limit", "use of the limit, mean")
LIARS = ("bank-03", "bank-07")
SETTINGS = {"depth 4, l2 0.002": (4, 0.002), "depth 4, l2 0.01": (4, 0.01), "depth 3, l2 0.05": (3, 0.05)}


def main() -> None:
    """Run what is not remembered, then write the table."""
    parser = argparse.ArgumentParser(description="Trees on the banks.")
    parser.add_argument("--seeds", type=int, default=5)
    asked, memory, rows = parser.parse_args(), Memory(Path("build/trees.json")), STORY.encoded()
    validation = joined([*rows.validation.values()])

    def reached(epsilon: float | None, name: str, seed: int, where: str = "test", liars: Sequence[str] = (),
                without: Sequence[str] = ()) -> float:
        recipe, agreed = named(name)
        banks = {bank: own for bank, own in rows.train.items() if bank not in without}
        settings = agreed if epsilon is None else at_epsilon(agreed, epsilon)

        def run() -> dict[str, object]:
            model = federated(recipe, banks, settings, seed, private=epsilon is not None, liars=liars)
            found: dict[str, object] = recipe.task.metrics(
                scores(recipe, model, validation if where == "validation" else rows.test)).model_dump()
            return found

        depends_on = [settings.model_dump(mode="json"), epsilon, seed, sorted(banks), list(liars)]
        told = memory.recall(f"{where} {name} {epsilon} {seed} {liars} {without}", depends_on, run)
        return Metrics.model_validate(told).auc or 0

    lines, seeds = [], range(asked.seeds)
    for epsilon in EPSILONS:
        chosen = max(SETTINGS, key=lambda name: reached(epsilon, name, TUNING_SEED, "validation"))
        found = [reached(epsilon, chosen, seed) for seed in (seeds if epsilon is not None else seeds[:1])]
        lines.append(["none" if epsilon is None else f"{epsilon:g}", chosen, _mean_sd(found), f"{min(found):.4f}"])
        if epsilon == 5.0:
            lied = [reached(epsilon, chosen, seed, liars=LIARS) for seed in seeds]
            left = [reached(epsilon, chosen, seed, without=LIARS) for seed in seeds]
            lines += [["5, two of twelve lie", chosen, _mean_sd(lied), f"{min(lied):.4f}"],
                      ["5, without these two", chosen, _mean_sd(left), f"{min(left):.4f}"]]
    made = table(["epsilon", "settings chosen", "AUC", "worst seed"], lines)
    fill(DOCS / "trees.md", "table", made)
    draw(DOCS / "trees.svg")
    print(made)
    lines = []
    for what, few in (("one", "1 feature a tree, depth 3"), ("two", "2 features a tree, depth 4")):
        found = [reached(5.0, few, seed) for seed in seeds]
        lines.append([what, few, _mean_sd(found), f"{min(found):.4f}"])
    made = table(["features a tree", "settings", "AUC at epsilon 5", "worst seed"], lines)
    fill(DOCS / "trees.md", "readable", made)
    draw_shapes(DOCS / "trees-shapes.svg")
    print(made)


def named(name: str) -> tuple[Recipe, Agreement]:
    """The example's recipe and agreement with other settings of its trees."""
    recipe, (depth, l2, few) = STORY.recipe(), {**{key: (*said, None) for key, said in SETTINGS.items()}, **READABLE}[name]
    trees = Trees(**{**dict(recipe.trees or Trees()), "depth": depth, "l2": l2, "features_per_tree": few})
    return recipe.growing(trees), STORY.settings().model_copy(update={"training": trees})


def draw_shapes(path: Path) -> None:
    """The shapes of one private campaign at epsilon 5, with the noise in them: seed 0."""
    (recipe, agreed), rows = named("1 feature a tree, depth 3"), STORY.encoded()
    trees, model = recipe.trees or Trees(), federated(recipe, rows.train, agreed, 0)
    sizes = [len(own) for own in rows.train.values()]
    applied = mechanism_for(agreed.privacy, trees, agreed.evaluation, max(sizes), agreed.groups)
    std = noise_of_one(applied) * np.sqrt(trees.per_round * len(sizes)) / sum(sizes)        # the mean, weighted by rows
    std_TLK = noise_in_leaves(trees, recipe.task, model, rows.test, np.full(trees.rounds, std))
    found = [Named(FEATURES[one.feature], trees.axes[one.feature].low, trees.axes[one.feature].high, one)
             for one in shapes(trees, model, std_TLK)]
    path.write_text(render_shapes(found))


def measured(page: Path) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the AUC by epsilon, from the table of a page; 0 where one run was enough."""
    wanted = r"^\| (\d+|none) \|[^|]*\| ([\d.]+)(?: ± ([\d.]+))? \|"
    found = re.findall(wanted, page.read_text(), re.MULTILINE)
    return {epsilon: (float(mean), float(std or 0)) for epsilon, mean, std in found}


def draw(path: Path) -> None:
    """AUC by epsilon, of trees and of the neural network, from the tables of their pages."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    trees, network = measured(DOCS / "trees.md"), measured(DOCS / "utility.md")
    epsilons = sorted(trees, key=lambda name: float(name.replace("none", "inf")))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "trees", "font.family": "sans-serif", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(6, 3.6))
        lines = ("trees", trees, "tab:green", -0.03), ("neural network", network, "tab:blue", 0.03)
        for words, found, color, aside in lines:
            places = [place + aside for place, name in enumerate(epsilons) if name in found]
            mean_P, std_P = zip(*(found[name] for name in epsilons if name in found), strict=True)
            axes.errorbar(places, mean_P, std_P, color=color, marker="o", markersize=3, capsize=2, linewidth=1, label=words)
        axes.set_xticks(range(len(epsilons)), epsilons)
        axes.set_xlabel("record-level epsilon of each bank, delta_dp 1e-5")
        axes.set_ylabel("AUC on the public test set")
        axes.legend(loc="lower right", frameon=False)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def _mean_sd(found: Sequence[float]) -> str:
    return f"{np.mean(found):.4f}" + (f" ± {np.std(found, ddof=1):.4f}" if len(found) > 1 else "")


if __name__ == "__main__":
    main()
