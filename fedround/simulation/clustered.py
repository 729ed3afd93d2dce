"""Clustered federated learning: sites of several kinds, one model for each kind, and the assignment is learnt.

Simulated only, no live plan asks for it: a site's choice of model reveals something about its rows, without noise, and no
mechanism here charges for that. So an agreement with privacy is refused.

Legend: N sites, D coordinates, K clusters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.agreement import Agreement
from fedround.codec import Tensors, schema_of, size_bytes
from fedround.errors import ContractError
from fedround.learning.batch import batch_of
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import FedAvg
from fedround.learning.train import check_fits
from fedround.privacy.spec import NoPrivacy
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Clustered:
    """Where a clustered campaign stands after a round."""

    number: int
    models: tuple[Tensors, ...]
    picked: Mapping[str, int]
    """The model that each site trained in this round."""
    loss: float
    """The mean over the sites of the loss of the model that each picked, before the round. Use it to choose a seed."""
    sent_bytes: int
    """To the sites and from them, in this round: every site is shown all models and sends one update."""


def ifca(agreement: Agreement, recipe: Recipe, sites: Mapping[str, Site], *, clusters: int, rounds: int, seed: int,
         told: Callable[[Clustered], None] = lambda _: None) -> Clustered:
    """IFCA with model averaging (Ghosh et al. 2020, arXiv:2006.04088): in every round each site picks, of K models, the one
    with the lowest loss on its own training rows, and trains it; each model is the aggregate of those who picked it.

    A cluster's round is a campaign of one round (`simulate`), by the agreement's training and rule; a model that nobody picks
    stays as it is. The agreement's quorum counts for the whole cohort, and a cluster's rule must bear its number of sites.
    Where the models begin decides whether the clusters are found: try a few seeds, and keep the one with the lowest `loss`.

    Deterministic in `seed`. told: hears of every round. Raises ContractError for an agreement with privacy, or with a server
    optimizer, an algorithm, an aggregation or a compression that remembers rounds: sites change between models.
    """
    _check(agreement, clusters, rounds, len(sites))
    models = tuple(initial_tensors(recipe, _seed(seed, 0, cluster)) for cluster in range(clusters))
    alone = agreement.model_copy(update={"quorum": 1})
    for number in range(1, rounds + 1):
        loss_NK = np.array([[mean_loss(recipe, model, site.train) for model in models] for site in sites.values()])
        picked = dict(zip(sites, map(int, loss_NK.argmin(axis=1)), strict=True))
        trained, sent = list(models), len(sites) * clusters * size_bytes(schema_of(models[0]))
        for cluster in sorted(set(picked.values())):
            own = {name: site for name, site in sites.items() if picked[name] == cluster}
            done = simulate(alone, recipe, own, rounds=1, chance=Seeded(_seed(seed, number, cluster)), stacked=True,
                            model=models[cluster])
            trained[cluster], sent = done.model, sent + done.last.received_bytes
        models = tuple(trained)
        now = Clustered(number, models, picked, float(loss_NK.min(axis=1).mean()), sent)
        told(now)
    return now


def mean_loss(recipe: Recipe, model: Tensors, examples: Examples) -> float:
    """Of the model on these rows."""
    import torch

    module = recipe.build_model().eval()
    check_fits(recipe, module, model)
    weights = {name: torch.from_numpy(tensor) for name, tensor in model.items()}
    with torch.no_grad():
        total = recipe.objective(module).loss(weights, batch_of(examples))
    return float(total) / len(examples)


def bipartition(delta_ND: Float32) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The sites in two groups, such that the largest cosine between updates of different groups is as small as it can be
    (clustered federated learning: Sattler et al. 2020, arXiv:1910.01991, equation 18). Site 0 is in the first.

    It always returns two groups, even if there is only one kind of sites: check `is_incongruent` first. Noised updates have
    cosines near zero, and tell little. Raises ContractError with fewer than two updates, or if one is zero or not finite.
    """
    from scipy.cluster.hierarchy import linkage, to_tree
    from scipy.spatial.distance import squareform

    norm_N = np.linalg.norm(delta_ND.astype(np.float64), axis=1)
    if len(delta_ND) < 2 or not (np.isfinite(norm_N) & (norm_N > 0)).all():
        raise ContractError("two groups take two updates at least, finite and not zero")
    direction_ND = delta_ND / norm_N[:, None]
    distance_NN = (1 - direction_ND @ direction_ND.T).clip(0)
    np.fill_diagonal(distance_NN, 0)
    # The last join of single linkage is between the two groups that are farthest from each other.
    root = to_tree(linkage(squareform(distance_NN, checks=False), method="single"))
    one, other = sorted((tuple(sorted(root.left.pre_order())), tuple(sorted(root.right.pre_order()))))
    return one, other


def is_incongruent(delta_ND: Float32, weight_N: npt.NDArray[np.float64], *, still: float, moving: float) -> bool:
    """Whether the shared model has converged although single sites would still change it (the same paper, equations 28 and
    29): the weighted mean of their updates is shorter than `still`, and the longest update is longer than `moving`.

    That is when to split. Lengths depend on learning rate and steps: choose both after looking at a few rounds.
    """
    mean_D = weight_N @ delta_ND.astype(np.float64) / weight_N.sum()
    longest = np.linalg.norm(delta_ND.astype(np.float64), axis=1).max()
    return bool(np.linalg.norm(mean_D) < still and longest > moving)


def _seed(seed: int, number: int, cluster: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {cluster}".encode()).digest()[:6], "big")


def _check(agreement: Agreement, clusters: int, rounds: int, sites: int) -> None:
    if not isinstance(agreement.privacy, NoPrivacy):
        raise ContractError("which model a site picks tells something of its rows, without noise: agree on privacy unit "
                            "'none' for a clustered campaign")
    if not 1 <= clusters <= sites or rounds < 1:
        raise ContractError(f"{clusters} clusters of {sites} sites in {rounds} rounds: expected a cluster at least and a "
                            "round, and no more clusters than sites")
    if sites < agreement.quorum:
        raise ContractError(f"quorum {agreement.quorum} can never be met by {sites} sites")
    remembers = {"optimizer": not isinstance(agreement.optimizer, FedAvg) or agreement.optimizer.momentum > 0,
                 "training.algorithm": bool(agreement.training.algorithm.keeps or agreement.training.algorithm.serves),
                 "aggregation.history": agreement.how_to_aggregate().history > 0,
                 "compression": agreement.compression is not None}
    if any(remembers.values()):
        which = ", ".join(name for name, does in remembers.items() if does)
        raise ContractError(f"sites change between models, and what remembers rounds would mix them: do without {which}")
