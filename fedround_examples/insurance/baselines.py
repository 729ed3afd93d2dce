"""What the sites' federation is compared with: pooled rows, and every site alone, private and not.

python -m fedround_examples.insurance.baselines [--json] [--seed 0]
"""

from __future__ import annotations

from fedround_examples import rivals
from fedround_examples.insurance.split import STORY
from fedround_examples.rivals import Baselines, Fit, Method, fit_boosted_counts, fit_poisson_regression


def baselines(seed: int = 0) -> Baselines:
    """Compute all of them. Deterministic in `seed`."""
    fits: dict[Method, Fit] = {"Poisson regression": fit_poisson_regression, "gradient boosting": fit_boosted_counts}
    return rivals.baselines(STORY, fits, seed, private=True)


if __name__ == "__main__":
    rivals.main(STORY, baselines)
