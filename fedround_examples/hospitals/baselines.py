"""What the hospitals' federation is compared with: pooled rows, and every hospital alone, private and not.

python -m fedround_examples.hospitals.baselines [--json] [--seed 0]
"""

from __future__ import annotations

from fedround_examples import rivals
from fedround_examples.hospitals.split import STORY
from fedround_examples.rivals import Baselines, fit_logistic_regression, fit_mlp


def baselines(seed: int = 0) -> Baselines:
    """Compute all of them. Deterministic in `seed`."""
    return rivals.baselines(STORY, {"logistic regression": fit_logistic_regression, "recipe's model": fit_mlp}, seed,
                            private=True)


if __name__ == "__main__":
    rivals.main(STORY, baselines)
