"""What a federation is compared with, on the public test set: pooled rows, and each bank with its own rows only.

None of it is private, unless it says so. A bank alone is a strong rival: it tunes several models and takes the one that is
best on its own validation rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.agreement import Agreement
from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.examples import Examples, joined
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Metrics
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.privacy.spec import NoMechanism, NoPrivacy
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.crew import Trainer
from fedround.simulation.sites import Site
from fedround.values import Name, Value
from fedround_examples.judging import Predict, judge, predictor, worth
from fedround_examples.liar import Lying
from fedround_examples.story import Encoded, Story

Method = Literal["logistic regression", "Poisson regression", "mlp", "recipe's model", "gradient boosting", "XGBoost"]
Fit = Callable[[Recipe, Examples, Examples, int], Predict]
"""(recipe, rows, rows held out, seed) -> the fitted model."""

EPOCH = LocalTraining(local_steps=20, batch_size=64, learning_rate=0.5)
EPOCHS, PATIENCE = 50, 10
PENALTIES = np.logspace(-3, 1, 9)


class Alone(Value):
    """One bank alone, trained on its own rows only."""

    bank: Name
    method: Method
    """The method that was better on the bank's own validation rows."""
    test: Metrics
    private: Metrics | None = None
    """The federation's own training with this bank alone in it, at the federation's epsilon."""


class LiedTo(Value):
    """What the same federation reaches with a liar in it, simulated."""

    what: str
    test: Metrics


class Baselines(Value):
    """Everything on the same public test set."""

    pooled: Metrics
    without_privacy: Metrics
    """The federation with the same rounds and settings, without clipping or noise."""
    alone: tuple[Alone, ...] = Field(min_length=1)
    lied_to: tuple[LiedTo, ...] = ()

    def lines(self) -> list[tuple[str, Metrics]]:
        """The table for people: the banks are sorted, best first."""
        ranked = sorted(self.alone, key=lambda bank: first(bank.test), reverse=True)
        return [*((f"{case.what}, simulated, private", case.test) for case in self.lied_to),
                ("pooled training", self.pooled), ("federation without privacy", self.without_privacy),
                *((f"{bank.bank} alone ({bank.method})", bank.test) for bank in ranked),
                *((f"{bank.bank} alone, private", bank.private) for bank in ranked if bank.private is not None)]


def baselines(story: Story, fits: dict[Method, Fit], seed: int, *, private: bool = False,
              also: tuple[Story, dict[Method, Fit]] | None = None) -> Baselines:
    """Compute all of them; with `private`, also every bank alone at the federation's epsilon. Deterministic in `seed`.

    also: what a bank alone may try on the same rows as another recipe sees them, if that does better on its validation rows.
    """
    recipe, settings, rows = story.recipe(), story.settings(), story.encoded()
    more = None if also is None else Other(also[0].recipe(), also[0].encoded(), also[1])
    _, pooled = best(recipe, joined([*rows.train.values()]), joined([*rows.validation.values()]), fits, seed)
    without = predictor(recipe, federated(recipe, rows.train, settings, seed, private=False))
    return Baselines(pooled=judge(pooled, rows.test, recipe.task), without_privacy=judge(without, rows.test, recipe.task),
                     alone=tuple(_alone(recipe, settings, rows, name, fits, seed, more, private=private)
                                 for name in rows.train))


def federated(recipe: Recipe, banks: Mapping[str, Examples], settings: Agreement, seed: int, *,
              private: bool = True, liars: Sequence[str] = ()) -> Tensors:
    """The model after all `settings.privacy.rounds` rounds, simulated, every bank weighted by its rows.

    private: every bank calibrates its noise to its own rows; without, nothing is clipped or noised. liars: banks that lie as
    `fedround_examples.liar` does.
    """
    agreed = settings if private else settings.model_copy(update={"privacy": NoPrivacy()})
    sites = {name: Site(rows) for name, rows in banks.items()}
    crew = Lying(Trainer(recipe, dict(banks), settings.training, Seeded(seed)), frozenset(liars)) if liars else None
    return simulate(agreed, recipe, sites, rounds=rounds_of(settings), chance=Seeded(seed), crew=crew).model


def lied_to(story: Story, liar: str, rounds: int, seed: int) -> tuple[LiedTo, ...]:
    """The federation without the liar, and the federation with it under a plain mean."""
    recipe, rows, settings = story.recipe(), story.encoded(), story.settings_for(rounds)
    others = {name: examples for name, examples in rows.train.items() if name != liar}
    mean = settings.model_copy(update={"aggregation": Aggregation(rule=WeightedMean())})
    without = federated(recipe, others, settings, seed)
    fooled = federated(recipe, rows.train, mean, seed, liars=(liar,))
    return (LiedTo(what=f"the federation without {liar}", test=judge(predictor(recipe, without), rows.test, recipe.task)),
            LiedTo(what=f"a plain mean, with {liar}", test=judge(predictor(recipe, fooled), rows.test, recipe.task)))


def rounds_of(settings: Agreement) -> int:
    """The number of rounds that the privacy budget is calibrated for."""
    if isinstance(settings.privacy, NoPrivacy):
        raise ContractError("settings without privacy do not say how many rounds there are")
    return settings.privacy.rounds


@dataclass(frozen=True)
class Other:
    """The same rows as another recipe sees them, and what may be fitted to them."""

    recipe: Recipe
    rows: Encoded
    fits: dict[Method, Fit]


def _alone(recipe: Recipe, settings: Agreement, rows: Encoded, name: str, fits: dict[Method, Fit], seed: int,
           other: Other | None, *, private: bool) -> Alone:
    found = []
    for tried in (Other(recipe, rows, fits), *(() if other is None else (other,))):
        method, fitted = best(tried.recipe, tried.rows.train[name], tried.rows.validation[name], tried.fits, seed)
        found.append((worth(fitted, tried.rows.validation[name], recipe.task), method,
                      judge(fitted, tried.rows.test, recipe.task)))
    _, method, test = max(found, key=lambda one: one[0])
    own = None
    if private:
        by_itself = settings.model_copy(update={"quorum": 1})
        own = judge(predictor(recipe, federated(recipe, {name: rows.train[name]}, by_itself, seed)), rows.test, recipe.task)
    return Alone(bank=name, method=method, test=test, private=own)


def best(recipe: Recipe, rows: Examples, held_out: Examples, fits: dict[Method, Fit], seed: int) -> tuple[Method, Predict]:
    """The method that does best on the rows held out, and its model."""
    fitted = {method: fit(recipe, rows, held_out, seed) for method, fit in fits.items()}
    method = max(fitted, key=lambda name: worth(fitted[name], held_out, recipe.task))
    return method, fitted[method]


def fit_mlp(recipe: Recipe, rows: Examples, held_out: Examples, seed: int) -> Predict:
    """The recipe's model, trained by plain SGD: the state that did best on the held-out rows."""
    model = best = initial_tensors(recipe, seed)
    best_worth, best_epoch = worth(predictor(recipe, model), held_out, recipe.task), 0
    for epoch in range(1, EPOCHS + 1):
        noise = stream(bytes(32), f"{seed} {epoch}".encode())
        delta = train(recipe, Lesson(model, rows), EPOCH, NoMechanism(), noise, UNGUARDED).delta
        model = {name: model[name] + delta[name] for name in model}
        reached = worth(predictor(recipe, model), held_out, recipe.task)
        if reached > best_worth:
            best, best_worth, best_epoch = model, reached, epoch
        if epoch - best_epoch >= PATIENCE:
            break
    return predictor(recipe, best)


def fit_logistic_regression(recipe: Recipe, rows: Examples, held_out: Examples, seed: int) -> Predict:
    """Logistic regression on the recipe's features, with the penalty that did best on the rows held out."""
    from sklearn.linear_model import LogisticRegression

    def fit(penalty: float) -> Predict:
        fitted = LogisticRegression(C=penalty, max_iter=2000).fit(rows.table_NF, rows.targets["y"])
        return lambda asked: np.asarray(fitted.predict_proba(asked.table_NF)[:, 1], dtype=np.float64)

    return max((fit(penalty) for penalty in PENALTIES), key=lambda predict: worth(predict, held_out, recipe.task))


def fit_boosting(recipe: Recipe, rows: Examples, held_out: Examples, seed: int) -> Predict:
    """Gradient boosted trees on the recipe's features, with the number of trees that did best on the rows held out."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    fitted = HistGradientBoostingClassifier(max_iter=300, learning_rate=0.05, early_stopping=True, random_state=seed)
    fitted.fit(rows.table_NF, rows.targets["y"], X_val=held_out.table_NF, y_val=held_out.targets["y"])
    return lambda asked: np.asarray(fitted.predict_proba(asked.table_NF)[:, 1], dtype=np.float64)


def fit_xgboost(recipe: Recipe, rows: Examples, held_out: Examples, seed: int) -> Predict:
    """XGBoost for two classes: of eight settings, and of the numbers of trees, what did best on the rows held out."""
    from xgboost import XGBClassifier

    def fit(depth: int, rate: float) -> XGBClassifier:
        fitted = XGBClassifier(n_estimators=1000, max_depth=depth, learning_rate=rate, subsample=0.8, colsample_bytree=0.8,
                               min_child_weight=5, early_stopping_rounds=50, eval_metric="auc", random_state=seed, n_jobs=1)
        seen = [(held_out.table_NF, held_out.targets["y"])]
        return fitted.fit(rows.table_NF, rows.targets["y"], eval_set=seen, verbose=False)

    found = max((fit(depth, rate) for depth in (2, 3, 4, 6) for rate in (0.03, 0.1)), key=lambda one: float(one.best_score))
    return lambda asked: np.asarray(found.predict_proba(asked.table_NF)[:, 1], dtype=np.float64)


def fit_poisson_regression(recipe: Recipe, rows: Examples, held_out: Examples, seed: int) -> Predict:
    """Poisson regression on the recipe's features, with the penalty that did best on the rows held out."""
    from sklearn.linear_model import PoissonRegressor

    def fit(penalty: float) -> Predict:
        fitted = PoissonRegressor(alpha=penalty, max_iter=2000).fit(rows.table_NF, rows.targets["y"])
        return lambda asked: np.asarray(fitted.predict(asked.table_NF), dtype=np.float64)

    return max((fit(penalty) for penalty in PENALTIES), key=lambda predict: worth(predict, held_out, recipe.task))


def fit_boosted_counts(recipe: Recipe, rows: Examples, held_out: Examples, seed: int) -> Predict:
    """Gradient boosted trees with Poisson's loss, with the number of trees that did best on the rows held out."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    fitted = HistGradientBoostingRegressor(loss="poisson", max_iter=300, learning_rate=0.05, early_stopping=True,
                                           random_state=seed)
    fitted.fit(rows.table_NF, rows.targets["y"], X_val=held_out.table_NF, y_val=held_out.targets["y"])
    return lambda asked: np.asarray(fitted.predict(asked.table_NF), dtype=np.float64)


def first(metrics: Metrics) -> float:
    """The first of the metrics that are known: the one that decides."""
    return next(iter(metrics.known().values()))


def main(story: Story, compute: Callable[[int], Baselines]) -> None:
    """Print the table."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Baselines on the public test set.")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--liar", help="also what a federation in which this bank lies makes of it")
    parser.add_argument("--rounds", type=int, default=20, help="of that federation")
    asked = parser.parse_args()
    table = compute(asked.seed)
    if asked.liar is not None:
        table = table.model_copy(update={"lied_to": lied_to(story, asked.liar, asked.rounds, asked.seed)})
    if asked.json:
        print(table.model_dump_json(indent=2))
        return
    for label, reached in table.lines():
        print(f"{label:50} {reached}")
