"""What privacy costs: the twelve banks at several epsilons, simulated; fills docs/utility.md and draws docs/utility.svg.

    python -m benchmarks.utility [--seeds 5]

For every epsilon one of a few settings is chosen by the AUC on all banks' validation rows together, with a seed that is
used for nothing else; then every seed is run once and judged on the public test set. Remembers finished runs in
build/utility.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pages import Memory, fill, table
from fedround.agreement import Agreement
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples, joined
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import Metrics
from fedround_examples.banks.baselines import baselines
from fedround_examples.banks.split import STORY
from fedround_examples.rivals import Baselines, federated

EPSILONS = (1.0, 2.0, 5.0, 10.0, None)      # None: neither clipped nor noised
TUNING_SEED = 1000
DOCS = Path("docs")


@dataclass(frozen=True)
class Line:
    """One epsilon: the settings that were chosen, and what each seed reached on the public test set."""

    epsilon: float | None
    chosen: str
    reached: tuple[Metrics, ...]


@dataclass(frozen=True)
class Banks:
    """Encoded rows of all banks, and the public test set."""

    recipe: Recipe
    train: dict[str, Examples]
    validation: Examples
    test: Examples


def main() -> None:
    """Run what is not remembered, then write table and picture."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="The banks at several epsilons.")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    memory = Memory(Path("build/utility.json"))
    alone = Baselines.model_validate_json(memory.recall("rivals", {}, lambda: baselines().model_dump_json()))
    banks = load_banks()
    lines = [line(memory, banks, epsilon, range(asked.seeds)) for epsilon in EPSILONS]
    fill(DOCS / "utility.md", "table", report(lines, alone))
    draw(lines, alone, DOCS / "utility.svg")
    print(report(lines, alone))


def load_banks() -> Banks:
    rows = STORY.encoded()
    return Banks(STORY.recipe(), rows.train, joined([*rows.validation.values()]), rows.test)


def candidates(epsilon: float | None) -> dict[str, Agreement]:
    """Agreement to choose from, by what a reader calls them."""
    agreed, short = STORY.settings(), STORY.settings("demo.toml")
    slow = agreed.model_copy(update={"training": agreed.training.model_copy(update={"learning_rate": 1.0})})
    named = {"20 rounds, rate 2": agreed, "20 rounds, rate 1": slow, "10 rounds, rate 3": short}
    if epsilon is None:
        return named
    return {name: at_epsilon(settings, epsilon) for name, settings in named.items()}


def at_epsilon(agreed: Agreement, epsilon: float) -> Agreement:
    """The same with another budget, of which the counts of scores and of groups get the same share: a noise of 10 on scores
    at epsilon 5, as agreed.
    """
    louder = agreed.privacy.epsilon / epsilon
    watched = tuple(one.model_copy(update={"noise_std": one.noise_std * louder}) for one in agreed.groups.watched)
    return agreed.model_copy(update={
        "privacy": agreed.privacy.model_copy(update={"epsilon": epsilon}),
        "evaluation": agreed.evaluation.model_copy(update={"noise_std": agreed.evaluation.noise_std * louder}),
        "groups": agreed.groups.model_copy(update={"watched": watched})})


def line(memory: Memory, banks: Banks, epsilon: float | None, seeds: Sequence[int]) -> Line:
    """Choose on the validation rows, then judge on the test set."""
    def reached(settings: Agreement, rows: Examples, seed: int) -> Metrics:
        model = federated(banks.recipe, banks.train, settings, seed, private=epsilon is not None)
        return banks.recipe.task.metrics(scores(banks.recipe, model, rows))

    def recalled(where: str, settings: Agreement, rows: Examples, seed: int) -> Metrics:
        depends_on = [settings.model_dump(mode="json"), banks.recipe.digest, epsilon, seed]
        return Metrics.model_validate(memory.recall(
            f"{where} epsilon {epsilon} seed {seed}", depends_on, lambda: reached(settings, rows, seed).model_dump()))

    named = candidates(epsilon)
    chosen = max(named, key=lambda name: recalled("validation", named[name], banks.validation, TUNING_SEED).auc)
    return Line(epsilon, chosen, tuple(recalled("test", named[chosen], banks.test, seed) for seed in seeds))


def report(lines: Sequence[Line], alone: Baselines) -> str:
    """The table of docs/utility.md."""
    rows = []
    for entry in lines:
        beaten = [sum(bank.test.auc < reached.auc for bank in alone.alone) for reached in entry.reached]
        rows.append([_name(entry.epsilon), entry.chosen, _mean_sd([reached.auc for reached in entry.reached], 4),
                     _mean_sd([reached.recall_at_20_fpr for reached in entry.reached], 3),
                     f"{np.mean(beaten):.1f} ({min(beaten)} to {max(beaten)})"])
    own = sorted((bank.test.auc, bank.test.recall_at_20_fpr) for bank in alone.alone)
    middle = np.median(own, axis=0)
    rows += [["pooled training, not private", "", f"{alone.pooled.auc:.4f}", f"{alone.pooled.recall_at_20_fpr:.3f}", ""],
             ["best bank alone, not private", "", f"{own[-1][0]:.4f}", f"{own[-1][1]:.3f}", ""],
             ["median bank alone, not private", "", f"{middle[0]:.4f}", f"{middle[1]:.3f}", ""],
             ["smallest AUC of a bank alone", "", f"{own[0][0]:.4f}", f"{own[0][1]:.3f}", ""]]
    head = ["federation at epsilon", "settings chosen", "AUC", "recall at 20 % false positives", "own models beaten, of 12"]
    return table(head, rows)


def draw(lines: Sequence[Line], alone: Baselines, path: Path) -> None:
    """AUC against epsilon, every seed a point, the banks' own models as lines."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "utility", "font.family": "sans-serif", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(6, 3.6))
        for bank in alone.alone:
            axes.axhline(bank.test.auc, color="0.8", linewidth=0.8, zorder=0)
        axes.axhline(alone.pooled.auc, color="tab:green", linewidth=1, linestyle="--", label="pooled, not private")
        axes.axhline(alone.alone[0].test.auc, color="0.8", linewidth=0.8, zorder=0, label="each bank alone, not private")
        for place, entry in enumerate(lines):
            aucs = [reached.auc for reached in entry.reached]
            axes.plot([place] * len(aucs), aucs, "o", color="tab:blue", markersize=3, alpha=0.6)
        axes.plot(range(len(lines)), [np.mean([reached.auc for reached in entry.reached]) for entry in lines], "-",
                  color="tab:blue", label="federation: mean and every seed")
        axes.set_xticks(range(len(lines)), [_name(entry.epsilon) for entry in lines])
        axes.set_xlabel("record-level epsilon of each bank, delta_dp 1e-5")
        axes.set_ylabel("AUC on the public test set")
        axes.legend(loc="lower right", frameon=False)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def _name(epsilon: float | None) -> str:
    return "none" if epsilon is None else f"{epsilon:g}"


def _mean_sd(values: Sequence[float], digits: int) -> str:
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    main()
