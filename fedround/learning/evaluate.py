"""How good a model is, on rows that are here, or on noised counts from rows that are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.recipe import Examples, Recipe
from fedround.learning.train import check_fits
from fedround.privacy.noise import NoiseSource, noised_counts
from fedround.types import LocalEvaluation, ScoreCounts
from fedround.values import Value

Float64 = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]

CHUNK = 4096


class Metrics(Value):
    """The area under the ROC curve, and the share of positives found when 20 % of negatives are flagged by mistake."""

    auc: Share
    recall_at_20_fpr: Share
    rows: Annotated[int, Field(ge=0)]


def scores(recipe: Recipe, tensors: Tensors, examples: Examples) -> Float64:
    """The model's probability of label 1 for every example, (N,)."""
    import torch
    from torch.func import functional_call

    model = recipe.build_model().eval()
    check_fits(recipe, model, tensors)
    parameters = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
    features_NF = torch.from_numpy(examples.features_NF)
    with torch.no_grad():
        logits = [functional_call(model, parameters, (features_NF[start:start + CHUNK],)).reshape(-1)
                  for start in range(0, len(examples), CHUNK)]
    logits_N = torch.cat(logits or [torch.empty(0)]).double()
    if logits_N.shape != (len(examples),):
        raise ContractError(f"recipe '{recipe.name}': its model must give one logit for each row")
    return torch.sigmoid(logits_N).numpy()


def metrics(scores: Float64, labels: npt.NDArray[np.int64]) -> Metrics:
    """Exact metrics. Raises ContractError unless there are rows of both labels."""
    from sklearn.metrics import auc, roc_curve

    if len(np.unique(labels)) != 2:
        raise ContractError("metrics need rows of both labels; hold out more rows")
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return Metrics(auc=float(auc(fpr, tpr)), recall_at_20_fpr=float(np.interp(0.2, fpr, tpr)), rows=len(labels))


def score_counts(scores: Float64, labels: npt.NDArray[np.int64], evaluation: LocalEvaluation,
                 noise: NoiseSource, edges: Sequence[float] = ()) -> ScoreCounts:
    """A histogram of scores per label, each count with Gaussian noise; see `ScoreCounts` for the bins.

    edges: the inner edges of the bins, ascending and public; none: bins of equal width.
    One record is in one count, so the L2 sensitivity is 1. The number of rows does not leave.
    """
    inner = edges if len(edges) > 0 else np.arange(1, evaluation.bins) / evaluation.bins
    bin_N = np.searchsorted(np.asarray(inner, dtype=np.float64), scores, side="right")
    counts_LB = np.stack([np.bincount(bin_N[labels == label], minlength=evaluation.bins) for label in (0, 1)])
    noised_LB = counts_LB if evaluation.noise_std == 0 else noised_counts(counts_LB, evaluation.noise_std, noise)
    negatives, positives = (tuple(float(count) for count in counts_B) for counts_B in noised_LB)
    return ScoreCounts(negatives=negatives, positives=positives, noise_std=evaluation.noise_std)


def public_edges(scores: Float64, bins: int) -> tuple[float, ...]:
    """Inner edges that put equally many of these public scores into every bin.

    Bins of equal width lose most of the AUC of a model that is sure of itself (0.68 instead of 0.77 on the banks).
    """
    return tuple(float(edge) for edge in np.quantile(scores, np.arange(1, bins) / bins))


def metrics_from_counts(counts: Sequence[ScoreCounts]) -> Metrics | None:
    """Metrics of all sites together, from their noised counts; None when noise leaves nothing to tell.

    The counts are added first: noise of many sites cancels, and no single site is read. Each is then used as it is,
    negative or not, so that the noise does not bias the AUC; the result is cut to [0, 1]. Expect a standard error of
    about 0.3 · (noise of a label's total) / (positives), plus what the width of a bin hides.
    """
    if not counts:
        return None
    positives_B = np.sum([site.positives for site in counts], axis=0)[::-1]     # from the highest score down
    negatives_B = np.sum([site.negatives for site in counts], axis=0)[::-1]
    noise_of_total = float(np.sqrt(len(positives_B) * sum(site.noise_std ** 2 for site in counts)))
    positives, negatives = float(positives_B.sum()), float(negatives_B.sum())
    if min(positives, negatives) <= 3 * noise_of_total:
        return None
    tpr = np.concatenate([[0.0], np.cumsum(positives_B) / positives])
    fpr = np.concatenate([[0.0], np.cumsum(negatives_B) / negatives])
    area = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
    # Noise can make the curve step back; a running maximum makes it a curve that can be read off.
    recall = float(np.interp(0.2, np.maximum.accumulate(fpr), np.maximum.accumulate(tpr)))
    return Metrics(auc=min(max(area, 0.0), 1.0), recall_at_20_fpr=min(max(recall, 0.0), 1.0),
                   rows=round(positives + negatives))
