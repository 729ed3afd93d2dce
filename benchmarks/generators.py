"""Digits that nobody wrote: drawn from noised sums by label, or by a network trained under noise; fills docs/synthetic.md.

    python -m benchmarks.generators      # a CPU minute; remembered in build/generators.json

The ten sites of the digits' example, with what each trains on. Read by a logistic regression that has seen 1,500 drawn digits
and no real one; judged on the 449 real ones of the public test set. Five seeds of the noise and the drawing; one of each
network, whose training takes a hundred times as long.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from benchmarks.membership import Leak, leak
from benchmarks.pages import Memory, fill, table
from fedround.agreement import Agreement
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import Maximise
from fedround.privacy.calibration import mu_squared
from fedround.privacy.noise import stream
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site
from fedround.statistics import release, total
from fedround.synthetic.clouds import Clouds, fitted_clouds
from fedround_examples.digits.split import STORY

SEEDS, DRAWN, DELTA = {"clouds": range(5), "VAE": range(1), "GAN": range(1)}, 1500, 1e-5
PLAN = Clouds(labels=10, features=64, low=-0.3, high=0.7)
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Rows = tuple[Float64, Int64]


class Encoded:
    """A site's rows, as `Evidence` has them."""

    def __init__(self, rows: Examples):
        self.table_NF, self.label_N = rows.table_NF.astype(np.float64), rows.targets["y"]

    def encoded(self) -> Rows:
        """All of them."""
        return self.table_NF, self.label_N


def noise_for(epsilon: float | None) -> float:
    """Of one release."""
    return 0.0 if epsilon is None else 1 / mu_squared(epsilon, DELTA) ** 0.5


def clouds(sites: Sequence[Encoded], epsilon: float | None, seed: int) -> Rows:
    """Drawn digits, of what these sites release."""
    asked, = PLAN.statistics(noise_for(epsilon))
    told = total([release(asked, site, stream(bytes(32), f"{seed} {place}".encode())) for place, site in enumerate(sites)])
    drawn = fitted_clouds(PLAN, [told]).sample(DRAWN, np.random.default_rng(seed))
    return drawn.drop(columns="label").to_numpy(), drawn["label"].to_numpy()


# -- a network that draws, trained as any model is -----------------------------------------------------------------------


class Drawing(nn.Module):
    """From a label and chance to an image; its own number says how well. A row is an image and its label, one-hot."""

    chances = 8

    def __init__(self) -> None:
        super().__init__()
        self.draws = nn.Sequential(nn.Linear(self.chances + 10, 32), nn.Tanh(), nn.Linear(32, 64), nn.Tanh())

    def image(self, label_BK: torch.Tensor, chance_BC: torch.Tensor) -> torch.Tensor:
        """Between the bounds, (B, 64)."""
        return self.draws(torch.cat([chance_BC, label_BK], -1)) / 2 + 0.2  # type: ignore[no-any-return]

    def chance(self, like: torch.Tensor) -> torch.Tensor:
        """Drawn in training; where it is judged, the middle."""
        size = len(like), self.chances
        return torch.randn(size) if self.training else torch.zeros(size)


class Gan(Drawing):
    """A discriminator, which is trained on rows, and a generator, which is trained through it alone (conditional GAN: Mirza
    and Osindero 2014, arXiv:1411.1784). Both are aggregated, each with its own part of the model.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tells = nn.Sequential(nn.Linear(64 + 10, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the discriminator makes large, with the generator's gradient turned round."""
        image_BF, label_BK = x[:, :64], x[:, 64:]
        made_BF = self.image(label_BK, self.chance(x))
        turned_BF = 2 * made_BF.detach() - made_BF
        real_B, made_B = (self.tells(torch.cat([2 * one - 0.4, label_BK], -1)).squeeze(-1) for one in (image_BF, turned_BF))
        return functional.logsigmoid(real_B) + functional.logsigmoid(-made_B)


class Vae(Drawing):
    """The evidence's lower bound of each image, given its label (Kingma and Welling 2014, arXiv:1312.6114)."""

    chances = 4

    def __init__(self) -> None:
        super().__init__()
        self.finds, self.log_variance = nn.Linear(64 + 10, 2 * self.chances), nn.Parameter(torch.full((64,), -2.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """In sixteenths."""
        image_BF, label_BK = x[:, :64], x[:, 64:]
        middle_BC, spread_BC = self.finds(torch.cat([2 * image_BF - 0.4, label_BK], -1)).chunk(2, -1)
        spread_BC = spread_BC.clamp(-6, 2)
        made_BF = self.image(label_BK, middle_BC + self.chance(x) * (spread_BC / 2).exp())
        apart_BF = (image_BF - made_BF).square() / (2 * self.log_variance.exp()) + self.log_variance / 2
        cost_BC = middle_BC.square() + spread_BC.exp() - 1 - spread_BC
        return -(apart_BF.sum(-1) + cost_BC.sum(-1) / 2) / 16


NETWORKS = {"GAN": (Gan, 60, 2.0), "VAE": (Vae, 40, 2.0)}
"""With rounds and step length: the best of a few by hand, on seed 0."""


def network(name: str, epsilon: float, seed: int) -> Rows:
    """Digits drawn by a network that the sites trained together, each image under differential privacy."""
    kind, rounds, rate = NETWORKS[name]
    recipe = Recipe(name.lower(), "0" * 64, kind, lambda rows: rows, Maximise(bounds=(-100, -99)))    # a loss as it is
    privacy = {"unit": "record", "epsilon": epsilon, "delta_dp": DELTA, "clip_norm": 1.0, "rounds": rounds}
    agreed = Agreement.model_validate({
        "name": "drawing", "quorum": 1, "deadline_s": 60, "privacy": privacy,
        "training": {"local_steps": 1, "batch_size": 4096, "learning_rate": rate}, "evaluation": {"noise_std": 1000},
        "aggregation": {"rule": {"name": "weighted_mean"}}, "optimizer": {"name": "fedavg", "momentum": 0.5}})
    sites = {}
    for site, rows in STORY.encoded().train.items():
        row_NF = np.concatenate([rows.table_NF, np.eye(10, dtype=np.float32)[rows.targets["y"]]], axis=1)
        sites[site] = Site(Examples(row_NF, np.zeros(len(row_NF), np.int64)))
    trained = simulate(agreed, recipe, sites, rounds=rounds, chance=Seeded(seed), stacked=True).model
    model = kind()
    model.load_state_dict({part: torch.from_numpy(tensor) for part, tensor in trained.items()})
    label_N = np.random.default_rng(seed).integers(0, 10, DRAWN)
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return model.image(torch.eye(10)[label_N], torch.randn(DRAWN, model.chances)).numpy(), label_N


# -- how good, and what it tells of a row ----------------------------------------------------------------------------------


def read_by(drawn: Rows) -> float:
    """The share of real digits that a reader of these alone reads right."""
    from sklearn.linear_model import LogisticRegression

    test = STORY.encoded().test
    if len(set(drawn[1].tolist())) < 2:
        return float((test.targets["y"] == drawn[1][0]).mean())
    return float(LogisticRegression(C=0.5, max_iter=60).fit(*drawn).score(test.table_NF, test.targets["y"]))


def membership(epsilon: float | None, trials: int = 100) -> Leak:
    """Was this digit among the site's? By somebody who has all of the largest site's digits, and guesses which half of them
    each release is of: the least squares that undo the sum, which undo it exactly if there is no noise.
    """
    rows = max((Encoded(one) for one in STORY.encoded().train.values()), key=lambda one: len(one.label_N))
    asked, = PLAN.statistics(noise_for(epsilon))
    added_ES = np.zeros((len(rows.label_N), asked.shape[0]))
    for part in asked.contributions(rows):
        np.put_along_axis(added_ES, part.place_NK, part.value_NK, axis=1)
    undone_SE, draw = np.linalg.pinv(added_ES), np.random.default_rng(0)
    member_RE = draw.random((trials, len(added_ES))) < 0.5
    seen_RS = member_RE @ added_ES + draw.normal(0, 1, (trials, asked.shape[0])) * asked.noise_std
    return leak(seen_RS @ undone_SE, member_RE)


def measured(what: str, epsilon: float | None, seed: int) -> list[float]:
    """Of one seed: the federation; of clouds at epsilon 5 each site's own, too."""
    if epsilon is not None and what != "clouds":
        return [read_by(network(what, epsilon, seed))]
    sites = [Encoded(one) for one in STORY.encoded().train.values()]
    own = [[one] for one in sites] if epsilon == 5 else []
    return [read_by(clouds(some, epsilon, seed)) for some in (sites, *own)]


def main() -> None:
    """Measure what is not remembered, then write the table and draw the picture."""
    torch.set_num_threads(1)
    memory, lines = Memory(Path("build/generators.json")), []
    for what, epsilons in (("clouds", (1.0, 5.0, None)), ("VAE", (5.0,)), ("GAN", (5.0,))):
        for epsilon in epsilons:
            reached = np.array([memory.recall(what, [epsilon, seed], partial(measured, what, epsilon, seed))
                                for seed in SEEDS[what]])
            own = ["", ""] if reached.shape[1] == 1 else [
                f"{np.median(reached[:, 1:]):.3f}", f"{reached[:, 1:].max(1).mean():.3f}"]
            spread = f" ± {reached[:, 0].std(ddof=1):.3f}" if len(reached) > 1 else ""
            lines.append([what, "none" if epsilon is None else f"{epsilon:g}", f"{reached[:, 0].mean():.3f}{spread}", *own])
    text = table(["drawn by", "epsilon", "all sites", "median site's own", "best site's own"], lines)
    fill(Path("docs/synthetic.md"), "digits", text)
    told = []
    for epsilon in (None, 5.0, 1.0):
        found = membership(epsilon)
        told.append(["none" if epsilon is None else f"{epsilon:g}",
                     *(f"{one:.3f}" for one in (found.auc, found.advantage, found.tpr_at_1_fpr))])
    fill(Path("docs/synthetic.md"), "membership",
         table(["epsilon", "AUC", "advantage", "found when 1 % are accused"], told))
    _draw(Path("docs/generators.png"))
    print(text, *told, sep="\n")


def _draw(path: Path) -> None:
    """Digits side by side: two real ones of each kind, and drawn ones."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    train = STORY.encoded().train.values()
    sites = [Encoded(one) for one in train]
    real = (np.concatenate([one.table_NF for one in sites]), np.concatenate([one.label_N for one in sites]))
    shown = {"real": real, "clouds, no noise": clouds(sites, None, 0), "clouds, epsilon 5": clouds(sites, 5.0, 0),
             "one site's own, epsilon 5": clouds(sites[-1:], 5.0, 0), "VAE, epsilon 5": network("VAE", 5.0, 0),
             "GAN, epsilon 5": network("GAN", 5.0, 0)}
    figure, axes = plt.subplots(len(shown), 20, figsize=(9, 3.2), dpi=100)
    for line, (words, (row_NF, label_N)) in zip(axes, shown.items(), strict=True):
        for place, ax in enumerate(line):
            own = np.flatnonzero(label_N == place // 2)
            image = row_NF[own[place % 2]].reshape(8, 8) if len(own) > 1 else np.full((8, 8), 0.2)
            ax.imshow(image, cmap="gray_r", vmin=-0.3, vmax=0.7)
            ax.axis("off")
        line[0].text(-0.4, 0.5, words, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
