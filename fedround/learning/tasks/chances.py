"""How good chances are: whether they rank, and whether they are what they say.

N rows, B bins.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

CALIBRATION_BINS = 10
_TINY = float(np.finfo(np.float64).eps)


LOGIT_EDGES = np.linspace(-5, 5, 21)
"""Of bins that are the same for every model: 22, from a chance of 0.7 % to one of 99.3 %."""


def in_bins(chance_N: Float64, truth_N: Int64) -> Float64:
    """Which of the bins between `LOGIT_EDGES` a row's chance is in, those of label 0 first: one 1 in each row, (N, 2B)."""
    place_N = np.searchsorted(1 / (1 + np.exp(-LOGIT_EDGES)), chance_N, side="right")
    bins = len(LOGIT_EDGES) + 1
    found_N2B = np.zeros((len(chance_N), 2 * bins))
    found_N2B[np.arange(len(chance_N)), place_N + truth_N * bins] = 1
    return found_N2B


def surprise(chance_N: Float64) -> Float64:
    """The log loss of each row from the chance that it gave to what is true; a chance of 0 counts as the least above it."""
    return -np.log(np.maximum(chance_N, _TINY))


def macro_f1(label_N: Int64, named_N: Int64) -> float:
    """The mean of the F1 of every label that a row has or that is named. scikit-learn's takes 2 ms to check what it is given,
    which a simulated round has no time for.
    """
    hit_C, held_C, named_C = (np.bincount(some, minlength=1 + max(label_N.max(), named_N.max()))
                              for some in (label_N[label_N == named_N], label_N, named_N))
    seen_C = held_C + named_C > 0
    return float((2 * hit_C[seen_C] / (held_C + named_C)[seen_C]).mean())


def of_truth(chance_N: Float64, truth_N: Int64) -> Float64:
    """The chance given to the label that a row has, from the chance of label 1, (N,)."""
    return np.where(truth_N == 1, chance_N, 1 - chance_N)


def alike(chance_N: Float64) -> list[Int64]:
    """Rows of similar chances: at most `CALIBRATION_BINS` bins of equally many rows, by rank."""
    order = np.argsort(chance_N, kind="stable").astype(np.int64)
    return [rows for rows in np.array_split(order, CALIBRATION_BINS) if len(rows)]


def calibration_error(chance_N: Float64, truth_N: Int64) -> float:
    """The expected calibration error (Naeini et al. 2015), in bins of equally many rows (`alike`).

    The mean over rows of the distance, in their bin, between the mean chance and how often it was true. A good model of few
    rows has one, too: chance alone moves a bin of n rows by about 0.4 / sqrt(n).
    """
    apart = [len(rows) * abs(float(chance_N[rows].mean() - truth_N[rows].mean())) for rows in alike(chance_N)]
    return min(1.0, sum(apart) / len(chance_N))


def calibration_slope(chance_N: Float64, truth_N: Int64) -> float | None:
    """The slope of a logistic regression of the truth on the chance's logit, with an intercept (Cox 1958).

    1: as it says; below 1: the model is too sure of itself; above 1: not sure enough. None: Newton's method finds none, as
    where all chances are alike, or some threshold tells all labels apart.
    """
    chance_N = np.clip(chance_N, _TINY, 1 - _TINY)
    logit_N2 = np.stack([np.ones(len(chance_N)), np.log(chance_N / (1 - chance_N))], axis=1)
    found_2 = np.zeros(2)
    for _ in range(50):
        said_N = 0.5 + 0.5 * np.tanh(logit_N2 @ found_2 / 2)
        curve_22 = (logit_N2 * (said_N * (1 - said_N))[:, None]).T @ logit_N2
        if np.linalg.cond(curve_22) > 1e12:
            return None
        step_2 = np.linalg.solve(curve_22, logit_N2.T @ (truth_N - said_N))
        found_2 = found_2 + step_2
        if np.abs(step_2).max() < 1e-9:
            return float(found_2[1])
    return None


def of_counts(positives_B: Float64, negatives_B: Float64, noise_std: float) -> dict[str, float] | None:
    """The areas under the ROC and the precision-recall curve, and the recall at 20 % false positives, by the metrics' names.

    From counts by bin of the score, from the highest score down. Counts may be noised, also below 0. None if noise of this
    size on each count hides how many rows of a label there are, or there are none.
    """
    if min(positives_B.sum(), negatives_B.sum()) <= 3 * noise_std * math.sqrt(len(positives_B)):
        return None
    tpr = np.concatenate([[0.0], np.cumsum(positives_B) / positives_B.sum()])
    fpr = np.concatenate([[0.0], np.cumsum(negatives_B) / negatives_B.sum()])
    area = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
    # Noise can make the curve decrease; a running maximum makes it monotone.
    recall = float(np.interp(0.2, np.maximum.accumulate(fpr), np.maximum.accumulate(tpr)))
    found = {"auc": area, "recall_at_20_fpr": recall, "pr_auc": _precision_over_recall(positives_B, negatives_B)}
    return {name: min(max(value, 0.0), 1.0) for name, value in found.items()}


def _precision_over_recall(positives_B: Float64, negatives_B: Float64) -> float:
    """A bin counts by its positives, at the precision that is reached when half of its rows are taken: within a bin the order
    is unknown. With a bin for each row it is the average precision, less half a row in each. A bin's precision is cut
    to [0, 1], so noise on few rows makes it lower.
    """
    taken_B = np.cumsum(positives_B) - positives_B / 2
    all_B = taken_B + np.cumsum(negatives_B) - negatives_B / 2
    precision_B = np.clip(np.divide(taken_B, all_B, out=np.zeros_like(all_B), where=all_B > 0), 0.0, 1.0)
    return float(positives_B @ precision_B / positives_B.sum())
