"""A tree of columns from noised tables of one and two of them: made possible, consistent with each other, and drawn from.

The model is exact where tables are: the share of every cell of a pair in the tree is that of its table. What two columns
have in common beyond the tree is not in it. It is a graphical model (McKenna, Sheldon & Miklau 2019, arXiv:1901.09136) whose
junction tree has two columns in a clique, so it is known in closed form (Chow & Liu 1968).

N rows, C columns; A and B cells of two columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedround.errors import ContractError
from fedround.simplex import onto_simplex
from fedround.statistics import Release
from fedround.statistics.base import Float64, Int64
from fedround.synthetic.blueprint import Blueprint

_SWEEPS = 200
_LEAST = 1e-9                   # of independence in each table, so that its rows and columns can be scaled
_NOTHING = 1e-6                 # a share that rounding and `_LEAST` may make of none


@dataclass(frozen=True)
class Tree:
    """Shares of cells: of each column, (A,), and of each pair of columns that the tree joins, (A, B). All are at least 0 and
    add up to 1, and a pair's sums are its columns' shares.
    """

    columns: tuple[Float64, ...]
    pairs: dict[tuple[int, int], Float64]
    """By their places, the smaller one first."""

    def sample(self, count: int, without_gap: Sequence[bool], draw: np.random.Generator) -> Int64:
        """The cells of so many rows, (count, C); no row is in the last cell of a column that is `without_gap`: the law is the
        tree's, given that. Exact, by messages along the tree. Raises ContractError if the tree knows no such row but by
        rounding.
        """
        order, parent = self._ordered()
        weight = [np.ones(len(share)) for share in self.columns]
        for place, without in enumerate(without_gap):
            weight[place][-1] = 0.0 if without else 1.0
        for place in reversed(order):
            if (above := parent[place]) is not None:
                weight[above] = weight[above] * (self._given(place, above) @ weight[place])
        cell_NC = np.empty((count, len(self.columns)), dtype=np.int64)
        for place in order:
            above = parent[place]
            law = (self.columns[place] if above is None else self._given(place, above)) * weight[place]
            if above is None and law.sum() < _NOTHING:
                raise ContractError("by the noised tables every row has a gap in a column that has 'missing = false': leave "
                                    "'missing' out, or ask for less noise")
            at_N = np.zeros(count, np.int64) if above is None else cell_NC[:, above]
            cell_NC[:, place] = _drawn(np.atleast_2d(law), at_N, draw)
        return cell_NC

    def _given(self, place: int, above: int) -> Float64:
        """The law of a column by the cell of the one above, (A, B); 0 for a cell that no row is in."""
        table = self.pairs[above, place] if above < place else self.pairs[place, above].T
        sum_A1 = table.sum(axis=1, keepdims=True)
        return np.asarray(np.divide(table, sum_A1, out=np.zeros_like(table), where=sum_A1 > 0))

    def _ordered(self) -> tuple[list[int], dict[int, int | None]]:
        """All columns, each after the one above it."""
        order: list[int] = []
        parent: dict[int, int | None] = {}
        for root in range(len(self.columns)):
            if root in parent:
                continue
            parent[root], waiting = None, [root]
            while waiting:
                order.append(above := waiting.pop())
                for one, other in self.pairs:
                    if above in (one, other) and (below := other if above == one else one) not in parent:
                        parent[below] = above
                        waiting.append(below)
        return order, parent


def fitted(blueprint: Blueprint, totals: Sequence[Release]) -> Tree:
    """The tree of what all sites released together for `blueprint.statistics`, whatever the numbers are.

    Of the pairs that were asked for, the tree that shows most: the distance (L1) of a pair's table from independence, less
    what noise alone gives (McKenna, Miklau & Sheldon 2021, arXiv:2108.04978). A pair that shows nothing beyond it is left
    out. It reads nothing but released numbers. Raises ContractError if they say that there are no records.
    """
    count = len(blueprint.columns)
    one_way, two_way = totals[:count], dict(zip(blueprint.edges, totals[count:], strict=True))
    records = sum(one.table.sum() / one.table.size for one in totals) / sum(1 / one.table.size for one in totals)
    if records < 1:
        raise ContractError("the noised tables say that there are no records, so no row can be made of them: ask for less "
                            "noise (--noise), or more sites")
    column = tuple(_share(place, one_way[place], two_way, records) for place in range(count))
    shown = {pair: _shows(release, column, pair, records) for pair, release in two_way.items()}
    return Tree(column, {pair: consistent(two_way[pair].table / records, column[pair[0]], column[pair[1]])
                         for pair in _spanning(shown, count)})


def consistent(share_AB: Float64, row_A: Float64, column_B: Float64) -> Float64:
    """A table of at least 0 whose sums are `row_A` and `column_B`, near the nearest table of at least 0: by scaling (Sinkhorn
    1967), and what is left over is added as independent (Altschuler et al. 2017, arXiv:1705.09634).
    """
    table = onto_simplex(share_AB.ravel(), np.ones(1), 0).reshape(share_AB.shape) + _LEAST * np.outer(row_A, column_B)
    for _ in range(_SWEEPS):
        table = table * _scale(row_A, table.sum(axis=1))[:, None]
        table = table * _scale(column_B, table.sum(axis=0))
    table = table * np.minimum(_scale(row_A, table.sum(axis=1)), 1)[:, None]
    table = table * np.minimum(_scale(column_B, table.sum(axis=0)), 1)
    row_A, column_B = np.maximum(row_A - table.sum(axis=1), 0), np.maximum(column_B - table.sum(axis=0), 0)
    return np.asarray(table + np.outer(row_A, column_B) / max(float(column_B.sum()), 1e-300))


def _scale(wanted_A: Float64, there_A: Float64) -> Float64:
    return np.asarray(np.divide(wanted_A, there_A, out=np.zeros_like(there_A), where=there_A > 0))


def _share(place: int, own: Release, two_way: dict[tuple[int, int], Release], records: float) -> Float64:
    """Of a column's cells, from all tables that know them, each by its precision; projected."""
    mean_A, weights = own.table, 1.0
    for pair, release in two_way.items():
        if place in pair:
            other = 1 - pair.index(place)
            mean_A = mean_A + release.table.sum(axis=other) / release.table.shape[other]
            weights += 1 / release.table.shape[other]
    return onto_simplex(mean_A / (weights * records), np.ones(1), 0)


def _shows(release: Release, column: tuple[Float64, ...], pair: tuple[int, int], records: float) -> float:
    alone = np.outer(column[pair[0]], column[pair[1]]) * records
    by_noise = math.sqrt(2 / math.pi) * release.noise_std * release.table.size
    return float(np.abs(release.table - alone).sum()) - by_noise


def _spanning(shown: dict[tuple[int, int], float], count: int) -> list[tuple[int, int]]:
    """The forest with the largest sum (Kruskal 1956), of pairs that show more than nothing."""
    part = list(range(count))
    chosen = []
    for one, other in sorted(shown, key=lambda pair: (-shown[pair], pair)):
        if shown[one, other] > 0 and part[one] != part[other]:
            part = [part[one] if number == part[other] else number for number in part]
            chosen.append((one, other))
    return sorted(chosen)


def _drawn(law_AB: Float64, at_N: Int64, draw: np.random.Generator) -> Int64:
    """A cell for each row, by the law of the cell that it is `at`."""
    upto_AB = law_AB.cumsum(axis=1)
    target_N = draw.random(len(at_N)) * upto_AB[at_N, -1]
    cell_N = np.empty(len(at_N), dtype=np.int64)
    for cell in np.unique(at_N):
        here = at_N == cell
        cell_N[here] = np.searchsorted(upto_AB[cell], target_N[here], side="right")
    last_A = law_AB.shape[1] - 1 - (law_AB[:, ::-1] > 0).argmax(axis=1)      # u * total may round up to total
    return np.asarray(np.minimum(cell_N, last_A[at_N]), dtype=np.int64)
