"""How good a model is, on rows that are here, or on noised counts from rows that are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedround.agreement import LocalEvaluation
from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.objective import Objective
from fedround.learning.recipe import Examples, Recipe, check_labels, unfilled
from fedround.learning.train import check_fits
from fedround.privacy.noise import NoiseSource, noised_counts
from fedround.types import ScoreCounts
from fedround.values import Value

Float64 = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]

CHUNK = 4096


class Metrics(Value):
    """How good a model is; None stands for what the numbers at hand do not tell.

    Two classes: the area under the ROC curve, the share of positives found when 20 % of negatives are flagged by mistake,
    and the accuracy at a score of one half (which bins of noised counts do not tell). More classes: the accuracy alone.
    """

    auc: Share | None = None
    recall_at_20_fpr: Share | None = None
    accuracy: Share | None = None
    rows: Annotated[int, Field(ge=0)]

    def known(self) -> dict[str, float]:
        """Those that are known, by name."""
        return self.model_dump(exclude={"rows"}, exclude_none=True)

    def __str__(self) -> str:
        return "   ".join(f"{_IN_WORDS[name]} {value:.{4 if name == 'auc' else 3}f}" for name, value in self.known().items())


_IN_WORDS = {"auc": "AUC", "recall_at_20_fpr": "recall at 20 % false positives", "accuracy": "accuracy"}


@dataclass(frozen=True, eq=False)
class Scores:
    """What a model says of rows, and what is true.

    Two classes: the chance of label 1, and the label. More: the chance of the class that the model predicts, and 1 where
    that class is the right one, else 0.
    """

    chance_N: Float64
    truth_N: npt.NDArray[np.int64]
    classes: int = 2

    def __len__(self) -> int:
        return len(self.truth_N)


def scores(recipe: Recipe, tensors: Tensors, examples: Examples) -> Scores:
    """The model's scores of all examples. tensors: the whole model; where not all of it travels, with its rest.

    Raises ContractError if model, tensors and examples do not fit each other.
    """
    import torch

    check_labels(recipe, examples)
    model = unfilled(recipe).eval()
    check_fits(recipe, model, tensors)
    objective = Objective(model, recipe.classes)
    weights = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
    features_NF, labels_N = torch.from_numpy(examples.features_NF), torch.from_numpy(examples.labels_N)
    chance_N, truth_N = np.empty(len(examples)), np.empty(len(examples), np.int64)
    with torch.no_grad():
        for start in range(0, len(examples), CHUNK):
            rows = slice(start, start + CHUNK)
            chance, truth = objective.scores(objective.logits(weights, features_NF[rows]), labels_N[rows])
            chance_N[rows], truth_N[rows] = chance.numpy(), truth.numpy()
    return Scores(chance_N, truth_N, recipe.classes)


def metrics(scores: Scores) -> Metrics:
    """Exact metrics. Raises ContractError without rows, and for two classes unless there are rows of both labels."""
    from sklearn.metrics import auc, roc_curve

    chance_N, truth_N = scores.chance_N, scores.truth_N
    if scores.classes > 2:
        if len(scores) == 0:
            raise ContractError("metrics need rows; hold out some")
        return Metrics(accuracy=float(truth_N.mean()), rows=len(scores))
    if len(np.unique(truth_N)) != 2:
        raise ContractError("metrics need rows of both labels; hold out more rows")
    fpr, tpr, _ = roc_curve(truth_N, chance_N, drop_intermediate=False)
    return Metrics(auc=float(auc(fpr, tpr)), recall_at_20_fpr=float(np.interp(0.2, fpr, tpr)),
                   accuracy=float(((chance_N > 0.5) == truth_N).mean()), rows=len(scores))


def score_counts(scores: Scores, evaluation: LocalEvaluation, noise: NoiseSource, edges: Sequence[float] = ()) -> ScoreCounts:
    """A histogram of scores per truth, each count with Gaussian noise; see `ScoreCounts` for the bins.

    edges: the inner edges of the bins, ascending and public; none: bins of equal width.
    One record is in one count, so the L2 sensitivity is 1. The number of rows does not leave.
    """
    inner = edges if len(edges) > 0 else np.arange(1, evaluation.bins) / evaluation.bins
    bin_N = np.searchsorted(np.asarray(inner, dtype=np.float64), scores.chance_N, side="right")
    counts_LB = np.stack([np.bincount(bin_N[scores.truth_N == truth], minlength=evaluation.bins) for truth in (0, 1)])
    noised_LB = counts_LB if evaluation.noise_std == 0 else noised_counts(counts_LB, evaluation.noise_std, noise)
    negatives, positives = (tuple(float(count) for count in counts_B) for counts_B in noised_LB)
    return ScoreCounts(negatives=negatives, positives=positives, noise_std=evaluation.noise_std)


def public_edges(scores: Scores, bins: int) -> tuple[float, ...]:
    """Inner edges that put equally many of these scores of public rows into every bin.

    Bins of equal width lose most of the AUC of a model that is sure of itself (0.68 instead of 0.77 on the banks).
    """
    return tuple(float(edge) for edge in np.quantile(scores.chance_N, np.arange(1, bins) / bins))


def metrics_from_counts(counts: Sequence[ScoreCounts], classes: int = 2) -> Metrics | None:
    """Metrics of all sites together, from their noised counts; None when noise leaves nothing to tell.

    The counts are added first: noise of many sites cancels, and no single site is read. Each is then used as it is,
    negative or not, so that the noise does not bias the AUC; the result is cut to [0, 1]. Expect a standard error of
    about 0.3 · (noise of a label's total) / (positives), plus what the width of a bin hides. Of more than two classes the
    totals alone count: the accuracy is off by about (noise of a total) / (rows).
    """
    if not counts:
        return None
    positives_B = np.sum([site.positives for site in counts], axis=0)[::-1]     # from the highest score down
    negatives_B = np.sum([site.negatives for site in counts], axis=0)[::-1]
    noise_of_total = float(np.sqrt(len(positives_B) * sum(site.noise_std ** 2 for site in counts)))
    positives, negatives = float(positives_B.sum()), float(negatives_B.sum())
    if classes > 2:
        rows = positives + negatives
        told = rows > 3 * math.sqrt(2) * noise_of_total
        return Metrics(accuracy=min(max(positives / rows, 0.0), 1.0), rows=round(rows)) if told else None
    if min(positives, negatives) <= 3 * noise_of_total:
        return None
    tpr = np.concatenate([[0.0], np.cumsum(positives_B) / positives])
    fpr = np.concatenate([[0.0], np.cumsum(negatives_B) / negatives])
    area = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
    # Noise can make the curve step back; a running maximum makes it a curve that can be read off.
    recall = float(np.interp(0.2, np.maximum.accumulate(fpr), np.maximum.accumulate(tpr)))
    return Metrics(auc=min(max(area, 0.0), 1.0), recall_at_20_fpr=min(max(recall, 0.0), 1.0),
                   rows=round(positives + negatives))
