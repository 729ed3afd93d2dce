"""What the trees are compared with, on the public test set: among others each bank's own boosted trees.

    python -m fedround_examples.banks_trees.baselines [--json] [--seed 0]

None of it is private.
"""

from __future__ import annotations

from fedround_examples import rivals
from fedround_examples.banks_trees.split import STORY
from fedround_examples.rivals import Baselines, fit_boosting, fit_logistic_regression


def baselines(seed: int = 0) -> Baselines:
    """Compute all of them. Deterministic in `seed`."""
    return rivals.baselines(STORY, {"logistic regression": fit_logistic_regression, "gradient boosting": fit_boosting}, seed)


if __name__ == "__main__":
    rivals.main(STORY, baselines)
