"""What the federation is compared with, on the public test set: pooled rows, and every bank alone, private and not.

    python -m fedround_examples.carloan.baselines [--json] [--seed 0]

A bank alone also tries boosted trees, which do better on these data than any model that travels.
"""

from __future__ import annotations

from fedround_examples import rivals
from fedround_examples.carloan.split import STORY
from fedround_examples.rivals import Baselines, Fit, Method, fit_boosting, fit_logistic_regression, fit_mlp


def baselines(seed: int = 0) -> Baselines:
    """Compute all of them. Deterministic in `seed`."""
    fits: dict[Method, Fit] = {"logistic regression": fit_logistic_regression, "recipe's model": fit_mlp,
                               "gradient boosting": fit_boosting}
    return rivals.baselines(STORY, fits, seed, private=True)


if __name__ == "__main__":
    rivals.main(STORY, baselines)
