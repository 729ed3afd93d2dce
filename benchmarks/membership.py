"""Was this row among the site's? A threshold on the loss, and LiRA (Carlini et al. 2022, arXiv:2112.03570).

R runs, each with its own half of E rows, chosen by coins; a run is attacked with all others as shadow models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.audited_site import Audited, Seen, watch
from fedround.codec import Tensors, flatten
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Leak:
    """How well an attack tells members from others."""

    advantage: float
    """Largest true-positive rate minus false-positive rate, the threshold chosen with hindsight."""
    auc: float
    tpr_at_1_fpr: float
    """The share of members found when 1 % of the others are accused."""


def leak(score: Float64, member: Bool) -> Leak:
    """Higher scores mean "member"; both arrays of any one shape."""
    from sklearn.metrics import auc, roc_curve

    fpr, tpr, _ = roc_curve(member.ravel(), score.ravel(), drop_intermediate=False)
    return Leak(float((tpr - fpr).max()), float(auc(fpr, tpr)), float(np.interp(0.01, fpr, tpr)))


def lira(statistic_RE: Float64, member_RE: Bool) -> Float64:
    """The log of N(statistic | as a member) / N(statistic | as another), the Gaussians fitted to all other runs, (R, E).

    Means are each row's own; the two variances are shared by all rows, as Carlini et al. advise for few shadow models.
    Raises ValueError unless every row is in and out at least twice.
    """
    inside, outside = (_without_self(statistic_RE, where_RE) for where_RE in (member_RE, ~member_RE))
    return _log_density(statistic_RE, *inside) - _log_density(statistic_RE, *outside)


def _without_self(statistic_RE: Float64, where_RE: Bool) -> tuple[Float64, float]:
    """For every run the mean over the other runs where the row was there, (R, E), and the variance around such means."""
    count_E = where_RE.sum(axis=0)
    if count_E.min() < 2:
        raise ValueError("LiRA needs every row at least twice among the members and twice among the others: add runs")
    total_E = np.where(where_RE, statistic_RE, 0).sum(axis=0)
    mean_RE = (total_E - np.where(where_RE, statistic_RE, 0)) / (count_E - where_RE)
    centred = (statistic_RE - total_E / count_E)[where_RE]
    return mean_RE, float((centred ** 2).sum() / (len(centred) - len(count_E)))


def _log_density(value: Float64, mean: Float64, variance: float) -> Float64:
    density: Float64 = -0.5 * (value - mean) ** 2 / variance - 0.5 * np.log(variance)
    return density


def attack(site: Audited, rows: Examples, runs: int, seed: int) -> dict[str, Leak]:
    """Train `runs` times on random halves of `rows`, and attack every run from what the coordinator saw of it."""
    member_RE = np.random.default_rng(seed).random((runs, len(rows))) < 0.5
    confidence_RE, alignment_RE = (np.zeros(member_RE.shape) for _ in range(2))
    for run, member_E in enumerate(member_RE):
        part = Examples(rows.inputs["x"][member_E], rows.targets["y"][member_E])
        seen = watch(site, part, site.mechanism(len(part)), seed=seed + run)
        confidence_RE[run] = _confidence(site.recipe, seen, rows)
        alignment_RE[run] = _alignment(site.recipe, seen, rows)
    return {"loss threshold": leak(confidence_RE, member_RE),
            "LiRA on the last model": leak(lira(confidence_RE, member_RE), member_RE),
            "LiRA on all updates": leak(lira(alignment_RE, member_RE), member_RE)}


def _confidence(recipe: Recipe, seen: Seen, rows: Examples) -> Float64:
    """The logit of each row's true label under the last model: LiRA's statistic, and the loss by another name, (E,)."""
    chance_E = scores(recipe, seen.models[-1], rows)["score"].clip(1e-12, 1 - 1e-12)
    logit_E: Float64 = np.log(chance_E / (1 - chance_E))
    return np.where(rows.targets["y"] == 1, logit_E, -logit_E)


def _alignment(recipe: Recipe, seen: Seen, rows: Examples) -> Float64:
    """How far all updates together went where a step on each row alone would have gone, (E,)."""
    along_E = np.zeros(len(rows))
    for model, update in zip(seen.models, seen.updates, strict=False):
        step_ED = -_gradient_of_each_row(recipe, model, rows)
        length_E = np.linalg.norm(step_ED, axis=1).clip(1e-12)
        along_E += step_ED @ flatten(update).astype(np.float64) / length_E
    return along_E


def _gradient_of_each_row(recipe: Recipe, model: Tensors, rows: Examples) -> Float64:
    """The auditor's own, (E, D), in the order of `codec.flatten`."""
    import torch
    from torch.func import functional_call, grad, vmap
    from torch.nn.functional import binary_cross_entropy_with_logits as logistic_loss

    network = recipe.build_model()

    def loss(weights: dict[str, torch.Tensor], x_F: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return logistic_loss(functional_call(network, weights, (x_F[None],)).reshape(()), y)

    weights = {name: torch.from_numpy(array) for name, array in model.items()}
    parts = vmap(grad(loss), in_dims=(None, 0, 0))(
        weights, torch.from_numpy(rows.inputs["x"]), torch.from_numpy(rows.targets["y"]).float())
    return np.concatenate([parts[name].reshape(len(rows), -1).numpy() for name in sorted(parts)], axis=1).astype(np.float64)
