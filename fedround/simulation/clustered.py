"""Whether the sites of a federation with one model are of several kinds: it shows in their updates.

What to do about it: several models, among which sites choose (`fedround.learning.clusters`).

Legend: N sites, D coordinates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError

Float32 = npt.NDArray[np.float32]


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
