"""What the trees are compared with, on the public test set: among others each bank's own boosted trees, and its own network.

    python -m fedround_examples.banks_trees.baselines [--json] [--seed 0]

None of it is private.
"""

from __future__ import annotations

from importlib.util import find_spec

from fedround_examples import rivals
from fedround_examples.banks.split import STORY as NETWORK
from fedround_examples.banks_trees.split import STORY
from fedround_examples.rivals import Baselines, Fit, Method, fit_boosting, fit_logistic_regression, fit_mlp, fit_xgboost


def baselines(seed: int = 0) -> Baselines:
    """Compute all of them. A bank alone may also take the features of the neural network's recipe, and a network.

    Boosted trees are XGBoost's where its wheel is installed, else scikit-learn's. Deterministic in `seed`.
    """
    boosted: dict[Method, Fit] = {"XGBoost": fit_xgboost} if find_spec("xgboost") else {"gradient boosting": fit_boosting}
    either: dict[Method, Fit] = {"logistic regression": fit_logistic_regression, **boosted}
    return rivals.baselines(STORY, either, seed, also=(NETWORK, {**either, "mlp": fit_mlp}))


if __name__ == "__main__":
    rivals.main(STORY, baselines)
