"""What the banks' federation is compared with, on the public test set.

    python -m fedround_examples.banks.baselines [--json] [--seed 0]

None of it is private.
"""

from __future__ import annotations

from fedround_examples import rivals
from fedround_examples.banks.split import STORY
from fedround_examples.rivals import Baselines, fit_logistic_regression, fit_mlp


def baselines(seed: int = 0) -> Baselines:
    """Compute all of them: about half a minute on one core. Deterministic in `seed`."""
    return rivals.baselines(STORY, {"logistic regression": fit_logistic_regression, "mlp": fit_mlp}, seed)


if __name__ == "__main__":
    rivals.main(STORY, baselines)
