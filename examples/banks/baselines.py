"""What the federation is compared with, on the public test set.

    python -m examples.banks.baselines [--json]

None of it is private. A bank alone is a fair rival: it tunes a logistic regression and stops the federation's own
model early, and takes whichever is better on its own validation rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from examples.banks.simulate import HERE, load_settings, simulate
from examples.banks.split import split
from fedround.codec import Tensors
from fedround.learning.evaluate import Metrics, metrics, scores
from fedround.learning.recipe import Examples, Recipe, initial_tensors, load_recipe
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.types import LocalTraining, Name, NoMechanism, Value

Scores = npt.NDArray[np.float64]
Predict = Callable[[Examples], Scores]

EPOCH = LocalTraining(local_steps=20, batch_size=64, learning_rate=0.5)
EPOCHS, PATIENCE = 50, 10
PENALTIES = np.logspace(-3, 1, 9)


class Alone(Value):
    """One bank with its own rows only."""

    bank: Name
    method: Literal["logistic regression", "mlp"]
    """What was better on the bank's own validation rows."""
    test: Metrics


class Baselines(Value):
    """Everything on the same public test set."""

    pooled: Metrics
    without_privacy: Metrics
    """The federation with the same rounds and settings, without clipping or noise."""
    alone: tuple[Alone, ...]

    def lines(self) -> list[tuple[str, Metrics]]:
        """What a person reads, best first among the banks."""
        ranked = sorted(self.alone, key=lambda bank: bank.test.auc, reverse=True)
        return [("pooled training", self.pooled), ("federation without privacy", self.without_privacy),
                *((f"{bank.bank} alone ({bank.method})", bank.test) for bank in ranked)]


def baselines(seed: int = 0) -> Baselines:
    """Compute all of them: about half a minute on one core. Deterministic in `seed`."""
    recipe, settings, parts = load_recipe(HERE / "recipe.py"), load_settings(), split()
    train_rows = {bank.name: recipe.encode(bank.train) for bank in parts.banks}
    validation_rows = {bank.name: recipe.encode(bank.validation) for bank in parts.banks}
    test = recipe.encode(parts.public_test)

    def on_test(predict: Predict) -> Metrics:
        return metrics(predict(test), test.labels_N)

    pooled = fit_mlp(recipe, together(train_rows), together(validation_rows), seed)
    federated = predictor(recipe, simulate(recipe, train_rows, settings, seed, private=False))
    alone = []
    for name, own_rows in train_rows.items():
        held_out = validation_rows[name]
        rivals: dict[Literal["logistic regression", "mlp"], Predict] = {
            "logistic regression": fit_logistic_regression(own_rows, held_out),
            "mlp": fit_mlp(recipe, own_rows, held_out, seed),
        }
        method = max(rivals, key=lambda rival: auc(rivals[rival], held_out))
        alone.append(Alone(bank=name, method=method, test=on_test(rivals[method])))
    return Baselines(pooled=on_test(pooled), without_privacy=on_test(federated), alone=tuple(alone))


def fit_mlp(recipe: Recipe, rows: Examples, held_out: Examples, seed: int) -> Predict:
    """The recipe's model by plain SGD, as it was when it did best on the rows held out."""
    model = best = initial_tensors(recipe, seed)
    best_auc, best_epoch = auc(predictor(recipe, model), held_out), 0
    for epoch in range(1, EPOCHS + 1):
        noise = stream(bytes(32), f"{seed} {epoch}".encode())
        delta = train(recipe, model, rows, EPOCH, NoMechanism(), noise, cancelled=lambda: False)
        model = {name: model[name] + delta[name] for name in model}
        reached = auc(predictor(recipe, model), held_out)
        if reached > best_auc:
            best, best_auc, best_epoch = model, reached, epoch
        if epoch - best_epoch >= PATIENCE:
            break
    return predictor(recipe, best)


def fit_logistic_regression(rows: Examples, held_out: Examples) -> Predict:
    """Logistic regression on the recipe's features, with the penalty that did best on the rows held out."""
    from sklearn.linear_model import LogisticRegression

    def fit(penalty: float) -> Predict:
        fitted = LogisticRegression(C=penalty, max_iter=2000).fit(rows.features_NF, rows.labels_N)
        return lambda asked: np.asarray(fitted.predict_proba(asked.features_NF)[:, 1], dtype=np.float64)

    return max((fit(penalty) for penalty in PENALTIES), key=lambda predict: auc(predict, held_out))


def auc(predict: Predict, rows: Examples) -> float:
    """The area under the ROC curve."""
    return metrics(predict(rows), rows.labels_N).auc


def predictor(recipe: Recipe, tensors: Tensors) -> Predict:
    """The recipe's model with these tensors, as a function of rows."""
    return lambda asked: scores(recipe, tensors, asked)


def together(parts: dict[str, Examples]) -> Examples:
    """All rows in one place: what a federation is there to avoid."""
    return Examples(np.concatenate([part.features_NF for part in parts.values()]),
                    np.concatenate([part.labels_N for part in parts.values()]))


def main() -> None:
    """Print the table."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Baselines of the banks example on the public test set.")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    table = baselines(asked.seed)
    if asked.json:
        print(table.model_dump_json(indent=2))
        return
    for label, reached in table.lines():
        print(f"{label:40} AUC {reached.auc:.4f}   recall at 20 % false positives {reached.recall_at_20_fpr:.3f}")


if __name__ == "__main__":
    main()
