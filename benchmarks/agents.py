"""Six workshops that keep poles upright: together, and each alone; fills docs/agents.md and draws docs/agents.svg.

    python -m benchmarks.agents          # half a CPU minute

A twin of the recipe and of its training, in numpy, that acts in gymnasium's own CartPole-v1: each episode's gradient
is clipped, each site's sum noised with what the federation's settings take at these sites, and sums are averaged. All
campaigns of a seed are played in one pass, for which the simulator takes twenty times as long. Each of ten seeds draws the
sites' episodes, the start of the policy and all noise anew. What is measured: episodes that a site holds out, pushed to the
likelier side.

S sites, P policies, N episodes, T steps; a policy has five numbers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from benchmarks.pages import fill, table
from fedround.codec import Tensors
from fedround.rounds.campaign import mechanism_for
from fedround_examples.cartpole import recipe
from fedround_examples.cartpole.split import STORY, TRAIN, split

SEEDS = range(10)
SCALE = np.array(recipe.SCALE)
Float64 = npt.NDArray[np.float64]


def in_gymnasium(model: Tensors, row_N7: Float64) -> Float64:
    """For how many steps the policy keeps each row's pole upright, in gymnasium's environment, (N,)."""
    policy_P5 = np.append(model["policy.weight"][0], model["policy.bias"]).astype(np.float64)[None]
    return played(policy_P5, np.zeros(len(row_N7), np.int64), row_N7, None)[0]


def played(policy_P5: Float64, whose_N: npt.NDArray[np.int64], row_N7: Float64,
           draw: np.random.Generator | None) -> tuple[Float64, Float64]:
    """How many steps each pole stays up, (N,), and each episode's policy gradient, (N, 5), if pushes are drawn.

    whose_N: which policy plays. draw: None: pushes go to the likelier side.
    """
    world, own_N5 = _world(row_N7), policy_P5[whose_N]
    seen_N4, up_N, seen, slopes, up = row_N7[:, 3:], np.ones(len(row_N7), bool), [], [], []
    for _ in range(recipe.STEPS):
        seen.append(np.concatenate([seen_N4 * SCALE, np.ones((len(row_N7), 1))], axis=1))
        likely_N = 1 / (1 + np.exp(-(seen[-1] * own_N5).sum(axis=1)))
        right_N = likely_N > (0.5 if draw is None else draw.random(len(row_N7)))
        slopes.append(right_N - likely_N)
        seen_N4, _, fallen_N, _, _ = world.step(right_N.astype(np.int64))
        up_N = up_N & ~fallen_N
        up.append(up_N)
        if not up_N.any():
            break
    later_N = np.where(up_N & (len(up) == recipe.STEPS), 1 / (1 - recipe.DISCOUNT), 0.0)
    gradient_N5 = np.zeros_like(own_N5)
    for seen_N5, slope_N, still_N in zip(seen[::-1], slopes[::-1], up[::-1], strict=True):
        later_N = still_N * (1 + recipe.DISCOUNT * later_N)
        gradient_N5 += (still_N * (later_N - recipe.USUAL) * slope_N)[:, None] * seen_N5
    return np.sum(up, axis=0).astype(np.float64), gradient_N5


def _world(row_N7: Float64) -> Any:
    from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

    world = CartPoleVectorEnv(num_envs=len(row_N7), max_episode_steps=recipe.STEPS + 1)
    world.reset(seed=0)
    world.length, world.masspole, world.force_mag = row_N7[:, 0], row_N7[:, 1], row_N7[:, 2]
    world.total_mass, world.polemass_length = world.masscart + world.masspole, world.masspole * world.length
    world.state = row_N7[:, 3:].T.copy()
    return world


def campaigns(seed: int) -> tuple[Float64, Float64]:
    """Mean steps at each of the six sites, on what it holds out: of the federation's policy, (S,), and of every site's own
    at every site, (S, S).
    """
    settings, sites, draw = STORY.settings(), split(seed).banks, np.random.default_rng(seed)
    noise = mechanism_for(settings.privacy, settings.training, settings.evaluation, TRAIN).noise_multiplier
    clip, rate, many = settings.privacy.clip_norm, settings.training.learning_rate, len(sites)
    row_N7 = np.concatenate([site.train.to_numpy(float) for site in sites] * 2)
    at_N = np.repeat(np.arange(2 * many), TRAIN)        # the second half of the rows is played by the federation's policy
    policy_P5 = np.repeat(draw.uniform(-0.5, 0.5, (1, 5)), many + 1, axis=0)       # as torch begins; all alike
    for _ in range(settings.privacy.rounds):
        gradient_N5 = played(policy_P5, np.minimum(at_N, many), row_N7, draw)[1] / recipe.STEPS
        gradient_N5 *= np.minimum(1, clip / np.linalg.norm(gradient_N5, axis=1, keepdims=True).clip(1e-12))
        sum_S5 = np.stack([gradient_N5[at_N == place].sum(axis=0) for place in range(2 * many)])
        step_S5 = rate * (sum_S5 + draw.normal(0, noise * clip, sum_S5.shape)) / TRAIN
        policy_P5 += np.concatenate([step_S5[:many], step_S5[many:].mean(axis=0, keepdims=True)])
    held_out = [site.validation.to_numpy(float) for site in sites]
    every_N7 = np.concatenate(held_out * (many + 1))
    whose_N = np.repeat(np.arange(many + 1), sum(map(len, held_out)))
    lasted_PS = played(policy_P5, whose_N, every_N7, None)[0].reshape(many + 1, many, -1).mean(axis=2)
    return lasted_PS[-1], lasted_PS[:-1]


def main() -> None:
    """Measure, write the table and draw the picture."""
    found = [campaigns(seed) for seed in SEEDS]
    together_S = np.array([one.mean() for one, _ in found])
    alone = [own_SS.diagonal() for _, own_SS in found]
    elsewhere = [(own_SS.sum(axis=1) - own_SS.diagonal()) / (len(own_SS) - 1) for _, own_SS in found]
    of = {"the federation, all six sites": together_S, "median site alone": np.median(alone, axis=1),
          "median site's policy at the five others": np.median(elsewhere, axis=1), "best site alone": np.max(alone, axis=1)}
    lines = [[words, f"{one_S.mean():.0f} ± {one_S.std(ddof=1):.0f}", f"{one_S.min():.0f}"] for words, one_S in of.items()]
    ahead = int((together_S >= of["median site alone"]).sum())
    lines.append(["seeds in which the federation is at least the median", f"{ahead} of {len(SEEDS)}", ""])
    text = table(["", "steps", "fewest in a seed"], lines)
    fill(Path("docs/agents.md"), "table", text)
    _draw(Path("docs/agents.svg"), together_S, alone)
    print(text)


def _draw(path: Path, together_S: Float64, alone: list[Float64]) -> None:
    """The seeds side by side: the federation, and each site alone."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "agents", "font.family": "sans-serif", "font.size": 9,
                         "font.sans-serif": ["DejaVu Sans"]}):
        figure, axes = plt.subplots(figsize=(6.4, 3.0))
        for seed, own_S in enumerate(alone):
            points, median = ("each site alone", "their median") if seed == 0 else (None, None)
            axes.plot([seed] * len(own_S), own_S, "o", color="#9aa7b2", markersize=4, label=points)
            axes.plot([seed - 0.3, seed + 0.3], [np.median(own_S)] * 2, color="#55616b", label=median)
        axes.plot(range(len(together_S)), together_S, "D", color="#c2410c", label="the federation")
        axes.set(xlabel="seed", ylabel=f"steps upright, of {recipe.STEPS}", ylim=(0, recipe.STEPS + 10),
                 xticks=range(len(together_S)))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower left", fontsize=8)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
