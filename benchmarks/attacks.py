"""What liars send: the attacks of the literature, and what they know when they choose.

Legend: N rows that the coordinator sees, of them H honest ones and L liars' (N = H + L), D coordinates.

The liars know everything: every honest row, what the honest sites learnt before they added noise, the agreed
aggregation, and the coordinator's code. They work together, and they are exempt from clipping and noise. Where the
coordinator keeps a moving average of each site's uploads, an attack chooses the average: some upload leads to any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from fedround.aggregation.gate import pair_bounds
from fedround.aggregation.noise_law import NoiseLaw

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class View:
    """What the liars see before they answer."""

    honest_HD: Floats
    """The honest rows as the coordinator will see them."""
    learnt_D: Floats
    """The mean of the honest rows before noise: where the federation should go."""
    own_D: Floats
    """The same of the liars' own rows, had they just trained: what they know without a view of anybody else."""
    first_HD: Floats
    """The honest rows of the first round."""
    trained_LD: Floats
    """What the liars would send if they just trained."""
    clip_norm: float
    """No honest row is longer before noise."""
    law: NoiseLaw | None
    """What the coordinator knows of the noise in an honest row; None without noise."""
    server: Callable[[Floats], Floats]
    """The coordinator's own code: (N, D), the liars' rows first, to the result, (D,)."""
    generator: np.random.Generator

    @property
    def liars(self) -> int:
        """L."""
        return len(self.trained_LD)

    @property
    def sites(self) -> int:
        """N."""
        return self.liars + len(self.honest_HD)

    @property
    def coordinates(self) -> int:
        """D."""
        return self.honest_HD.shape[1]

    @property
    def honest_mean_D(self) -> Floats:
        """The mean of the honest rows, noise and all."""
        mean_D: Floats = self.honest_HD.mean(axis=0)
        return mean_D

    @property
    def noise_energy(self) -> float:
        """The mean squared norm of an honest row's noise."""
        return 0.0 if self.law is None else self.law.variance * self.coordinates


Attack = Callable[[View], Floats]
"""From what the liars know to what they send, (L, D)."""


def just_trained(view: View) -> Floats:
    """What training gave. With wrong labels (9 - y) this is the label flip: its liars follow the protocol."""
    return view.trained_LD


def sign_flip(view: View) -> Floats:
    """Ten times the honest mean, backwards."""
    return _all_alike(view, -10 * view.honest_mean_D)


def gaussian(view: View) -> Floats:
    """Noise of standard deviation 10 in every coordinate, and nothing else."""
    return 10 * view.generator.standard_normal((view.liars, view.coordinates))


def inner_product(view: View) -> Floats:
    """As far from the honest mean as the median honest row, straight back (Xie et al. 2019, arXiv:1903.03936)."""
    mean_D = view.honest_mean_D
    radius = float(np.median(np.linalg.norm(view.honest_HD - mean_D, axis=1)))
    return _all_alike(view, mean_D - radius * direction(mean_D))


def a_little_is_enough(view: View) -> Floats:
    """The honest mean less as many standard deviations as a majority still covers (Baruch et al. 2019,
    arXiv:1902.06156).
    """
    supporters = view.sites // 2 + 1 - view.liars
    honest = len(view.honest_HD)
    deviations = NormalDist().inv_cdf((honest - supporters) / honest)
    return _all_alike(view, view.honest_mean_D - deviations * view.honest_HD.std(axis=0))


def min_max(view: View) -> Floats:
    """Against the honest standard deviation, as far as no honest row is farther than two honest rows are from each
    other (Shejwalkar and Houmansadr 2021).
    """
    mean_D, against_D = view.honest_mean_D, -direction(view.honest_HD.std(axis=0))
    diameter = np.sqrt(squared_distances(view.honest_HD).max())

    def hides(step: float) -> bool:
        return bool(np.linalg.norm(mean_D + step * against_D - view.honest_HD, axis=1).max() <= diameter)

    return _all_alike(view, mean_D + largest(hides, 0.0, 2 * diameter) * against_D)


def mimic(view: View) -> Floats:
    """Copies of one honest site, the one that stood out most in the first round (Karimireddy et al. 2022,
    arXiv:2006.09365).
    """
    centred_HD = view.first_HD - view.first_HD.mean(axis=0)
    _, eigenvectors = np.linalg.eigh(centred_HD @ centred_HD.T)
    return _all_alike(view, view.honest_HD[np.abs(eigenvectors[:, -1]).argmax()])


def gate_adaptive(view: View) -> Floats:
    """A common part against the honest mean, just under what the gate allows two rows to have in common, and noise of
    one's own for the rest of an honest norm.
    """
    common = np.sqrt(largest_product(view, sigmas=3.0))
    own = max(0.0, view.noise_energy + view.clip_norm**2 - common**2)
    return _all_alike(view, -common * direction(view.honest_mean_D)) + np.sqrt(own) * own_directions(view)


ATTACKS: dict[str, Attack] = {
    "none": just_trained, "label_flip": just_trained, "sign_flip": sign_flip, "gaussian": gaussian,
    "inner_product": inner_product, "a_little": a_little_is_enough, "min_max": min_max, "mimic": mimic,
    "gate_adaptive": gate_adaptive,
}
"""By the names of the tables. In "none" the liars are honest; in "label_flip" training itself is wrong."""


# -- tools of attackers ------------------------------------------------------------------------------------------------


def largest_product(view: View, sigmas: float) -> float:
    """How large an inner product the gate lets two rows have; the squared clip norm where there is no noise."""
    if view.law is None:
        return view.clip_norm**2
    return float(pair_bounds([view.law, view.law], view.coordinates, sigmas)[0, 1])


def largest(holds: Callable[[float], bool], low: float, high: float, steps: int = 30) -> float:
    """The largest number in [low, high] for which `holds` is true, if it is true up to there and false above."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def direction(x_D: Floats) -> Floats:
    """Unit length; zero stays zero."""
    return x_D / max(float(np.linalg.norm(x_D)), 1e-12)


def squared_distances(x_ND: Floats) -> Floats:
    """(N, N)."""
    gram_NN = x_ND @ x_ND.T
    squares_N = np.diag(gram_NN)
    return np.maximum(squares_N[:, None] + squares_N - 2 * gram_NN, 0)


def own_directions(view: View) -> Floats:
    """A random direction for each liar, at right angles to each other's and to what was learnt, (L, D); zero where there is
    no noise in which to hide.
    """
    if view.law is None:
        return np.zeros((view.liars, view.coordinates))
    noise_LD = view.generator.standard_normal((view.liars, view.coordinates))
    basis_DK, _ = np.linalg.qr(np.vstack([view.learnt_D, noise_LD]).T)
    own_LD: Floats = basis_DK.T[1:]
    return own_LD


def _all_alike(view: View, row_D: Floats) -> Floats:
    return np.tile(row_D, (view.liars, 1))
