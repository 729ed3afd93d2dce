"""Do intervals of gaps hold, and does a bound on them catch a planted gap and let others through? Over many federations.

    python -m benchmarks.fairness [--seeds 200]

A federation has as many held-out people as the twelve banks: 4,500, 22 % with label 1. The model says yes to the second sex
more often by `gap`, whatever the label; by age (three bands) there is no gap. Each site adds the noise to every count.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from fedround.fairness_of_groups import GroupFairness, Interval, Measure
from validation.group_cells import CountedGroup
from validation.group_gaps import Found, judged, shares

SITES, PEOPLE = 12, 4_500
SEXES, AGES, LABEL_1 = (0.4, 0.6), (0.34, 0.36, 0.3), 0.22
GAP, BOUNDS = 0.15, {"demographic_parity": 0.1, "equal_opportunity": 0.25, "equalised_odds": 0.25}
Int64 = npt.NDArray[np.int64]


def federation(seed: int, gap: float, noise_std: float, draws: int = 200) -> Found:
    """What is found of one federation."""
    rng = np.random.default_rng(seed)
    sex_N, age_N = rng.choice(2, PEOPLE, p=SEXES), rng.choice(3, PEOPLE, p=AGES)
    truth_N = (rng.random(PEOPLE) < LABEL_1).astype(np.int64)
    decision_N = (rng.random(PEOPLE) < np.where(truth_N, 0.55, 0.25) + gap * (sex_N - 0.5)).astype(np.int64)
    std = noise_std * SITES ** 0.5
    counted = [CountedGroup(name, tuple("abc"[:groups]), rng.normal(_counts(group_N, groups, truth_N, decision_N), std), std)
               for name, group_N, groups in (("sex", sex_N, 2), ("age", age_N, 3))]
    return judged(counted, 30, np.random.default_rng(seed + 10 ** 6), draws, by=shares)


def _counts(group_N: Int64, groups: int, truth_N: Int64, decision_N: Int64) -> npt.NDArray[np.float64]:
    flat_N = np.ravel_multi_index((group_N, truth_N, decision_N), (groups, 2, 2))
    return np.bincount(flat_N, minlength=4 * groups).reshape(groups, 2, 2).astype(np.float64)


def largest(found: Found, measure: Measure) -> Interval:
    """The largest gap over both attributes."""
    gap = GroupFairness(round=1, threshold=0.5, confidence=0.95, smallest=30, sites=(), rates=(),
                        gaps=found.gaps).gap(measure)
    if gap is None:
        raise ValueError(f"nothing is said of {measure}")
    return gap


def main() -> None:
    """Print the table of docs/fairness.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    seeds = range(parser.parse_args().seeds)
    print("| noise at each site | measure | bound | interval holds, no gap | interval holds, gap | half width | blocked "
          f"without gap | gap of {GAP} caught |\n|---|---|---|---|---|---|---|---|")
    for noise_std in (2.0, 3.0, 5.0, 10.0):
        none, planted = ([federation(seed + 10 ** 4 * place, gap, noise_std, 1_000) for seed in seeds]
                         for place, gap in enumerate((0.0, GAP)))
        for measure, bound in BOUNDS.items():
            without, with_gap = ([largest(one, measure) for one in found] for found in (none, planted))  # type: ignore[arg-type]
            held = [np.mean([one.low <= gap <= one.high for one in told]) for told, gap in ((without, 0.0), (with_gap, GAP))]
            blocked, caught = (np.mean([one.high > bound for one in told]) for told in (without, with_gap))
            width = np.mean([one.high for one in without])
            print(f"| {noise_std:g} | {measure.replace('_', ' ')} | {bound} | {held[0]:.1%} | {held[1]:.1%} | {width:.3f} | "
                  f"{blocked:.1%} | {caught:.1%} |")


if __name__ == "__main__":
    main()
