"""A round's value split between its sites, and how much of each share is noise.

Legend: N sites that have a part in the delta, R draws of noise, C coalitions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedround.contribution.coalitions import DeltaParts, models, taken_apart
from fedround.contribution.shapley import Exact, Floats, Game, Sampled, game
from fedround.learning.many import Judge
from fedround.rounds.server import Combined, Server
from fedround.terms import Terms

DRAWS = 10
"""Of noise, for one round."""

_FEW, _ORDERS = 7, 6
"""Up to 7 sites noise is drawn for every coalition; beyond, for those of 6 orders and their reverses. What the choice of
orders adds makes the interval a little wider in most rounds (docs/contribution.md)."""


@dataclass(frozen=True, eq=False)
class Split:
    """What the sites of one round added to the value of its model."""

    sites: tuple[str, ...]
    """Those with a part in the aggregate."""
    share_N: Floats
    noise_NN: Floats | None
    """The standard deviation that the declared noise alone gives the difference of two shares and, on the diagonal, each
    share; None: it is not known of every update."""
    sampling_N: Floats
    """The same for the orders that were drawn; zero where all coalitions were valued."""
    nobody: float
    """What the server's step is worth without any update."""
    everybody: float
    """What the round's model is worth."""
    coalitions: int
    exact: bool


def split(terms: Terms, before: Server, combined: Combined, judge: Judge, *, seed: bytes, draws: int,
          budget_bytes: int) -> Split:
    """Split the value of a committed round's model between the sites whose updates made it.

    seed: what orders and noise are drawn from. draws: of noise, each with its negative, which leaves its first-order effect.
    Deterministic up to the last bits of scores. Raises ContractError if the updates do not fit into the memory, or if a
    coalition's step leaves the range of float32.
    """
    parts = taken_apart(terms, combined, budget_bytes)
    seeds = np.random.SeedSequence(int.from_bytes(seed, "big"))
    of_orders, of_noise = seeds.spawn(2)
    rules = game(len(parts.sites), of_orders)

    def values(rules: Game, of: DeltaParts) -> Floats:
        made = models(terms, judge.task, before, of, rules.coalitions_CN, budget_bytes)
        return np.concatenate([judge(some) for some in made])

    value_C = values(rules, parts)
    noise_NN = _noise(rules, parts, values, of_noise, draws)
    return Split(parts.sites, rules.split(value_C), noise_NN, rules.spread(value_C), float(value_C[0]),
                 float(value_C[-1]), len(value_C), isinstance(rules, Exact))


def _noise(rules: Game, parts: DeltaParts, values: Callable[[Game, DeltaParts], Floats], seed: np.random.SeedSequence,
           draws: int) -> Floats | None:
    """How far more noise of the same law moves the shares, to first order: half the difference of a draw and its negative."""
    if not np.isfinite(parts.std_N).all() or draws == 0:
        return None
    generator = np.random.default_rng(seed)
    if len(parts.sites) > _FEW:
        rules = Sampled(len(parts.sites), _ORDERS, generator)
    moved_RN = np.empty((draws, len(parts.sites)))
    for moved_N in moved_RN:
        more, less = parts.noised_again(generator)
        moved_N[:] = (rules.split(values(rules, more)) - rules.split(values(rules, less))) / 2
    noise_NN: Floats = np.sqrt(np.square(moved_RN[:, :, None] - moved_RN[:, None]).mean(axis=0))
    np.fill_diagonal(noise_NN, np.sqrt(np.square(moved_RN).mean(axis=0)))
    return noise_NN
