"""How the value of a whole is split between its players (Shapley 1953).

A player's share is what it adds to those who came before it, averaged over all orders in which they may come. It is the only
split that adds up to the whole, treats equal players equally, gives nothing to who adds nothing, and is additive.

Legend: N players, C coalitions, O orders. A coalition is a row of `coalitions_CN`: who takes part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Members = npt.NDArray[np.bool_]

MOST_EXACT = 12
"""Players up to which every coalition is valued: 4,096."""


class Game(Protocol):
    """Which coalitions must be valued, and how their values are split."""

    @property
    def coalitions_CN(self) -> Members:
        """Each once. The first is nobody, the last is everybody."""

    def split(self, value_C: Floats) -> Floats:
        """Each player's share, (N,). The shares add up to the last value minus the first."""

    def spread(self, value_C: Floats) -> Floats:
        """The standard deviation of each share over the orders that might have been drawn, (N,)."""


@dataclass(frozen=True)
class Exact:
    """Every coalition: the Shapley values themselves."""

    players: int

    @property
    def coalitions_CN(self) -> Members:
        """Coalition c holds player n if c has bit n."""
        members_CN: Members = (np.arange(1 << self.players)[:, None] >> np.arange(self.players) & 1).astype(bool)
        return members_CN

    def split(self, value_C: Floats) -> Floats:
        """As `Game`."""
        count, share_N = self.players, np.empty(self.players)
        size_C = self.coalitions_CN.sum(axis=1)
        chance_S = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
        for player in range(count):
            without = np.flatnonzero(np.arange(1 << count) >> player & 1 == 0)
            added = value_C[without | 1 << player] - value_C[without]
            share_N[player] = math.fsum(chance_S[size_C[without]] * added)
        return share_N

    def spread(self, value_C: Floats) -> Floats:
        """Nothing was drawn."""
        return np.zeros(self.players)


class Sampled:
    """The mean over orders that were drawn: each with its reverse, which makes the spread smaller (Mitchell et al. 2022,
    arXiv:2104.12199).
    """

    def __init__(self, players: int, pairs: int, generator: np.random.Generator):
        forward = np.stack([generator.permutation(players) for _ in range(pairs)])
        self._order_ON = np.concatenate([forward, forward[:, ::-1]])
        came_OPN = np.zeros((2 * pairs, players + 1, players), bool)        # P: how many have come
        for came_PN, order_N in zip(came_OPN, self._order_ON, strict=True):
            for place, player in enumerate(order_N.tolist()):
                came_PN[place + 1:, player] = True
        # By size first: then nobody is the first and everybody the last.
        flat = came_OPN.reshape(-1, players)
        keyed, places = np.unique(np.column_stack([flat.sum(axis=1), flat]), axis=0, return_inverse=True)
        self._coalitions_CN, self._place_OP = keyed[:, 1:].astype(bool), places.reshape(2 * pairs, players + 1)

    @property
    def coalitions_CN(self) -> Members:
        """As `Game`."""
        return self._coalitions_CN

    def split(self, value_C: Floats) -> Floats:
        """As `Game`."""
        share_N: Floats = self._of_orders(value_C).mean(axis=0)
        return share_N

    def spread(self, value_C: Floats) -> Floats:
        """As `Game`: from how much the pairs differ."""
        share_ON = self._of_orders(value_C)
        pair_RN = (share_ON[:len(share_ON) // 2] + share_ON[len(share_ON) // 2:]) / 2
        spread_N: Floats = pair_RN.std(axis=0, ddof=1) / math.sqrt(len(pair_RN))
        return spread_N

    def _of_orders(self, value_C: Floats) -> Floats:
        added_ON = np.diff(value_C[self._place_OP], axis=1)
        share_ON: Floats = np.empty_like(added_ON)
        np.put_along_axis(share_ON, self._order_ON, added_ON, axis=1)
        return share_ON


def game(players: int, seed: np.random.SeedSequence) -> Game:
    """Exact up to 12 players. Beyond: about as many coalitions, of orders that follow from the seed; two pairs at least."""
    if players <= MOST_EXACT:
        return Exact(players)
    pairs = max(2, (1 << MOST_EXACT) // (2 * players))
    return Sampled(players, pairs, np.random.default_rng(seed))
