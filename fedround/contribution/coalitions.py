"""The models that parts of a cohort would have made in a committed round.

What the round decided stays as it is: who is left out, how each coordinate of the delta is made of the updates, where the
server's optimizer stands. A part of the cohort makes the same delta of its own updates: their weights are scaled up to what
everybody weighs together, coordinate by coordinate. So everybody makes the committed model, and nobody makes the model that
the server's step gives without any update: the base model, moved by what the optimizer remembers of earlier rounds.

Legend: N sites that have a part in the delta, C coalitions, D coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedround.aggregation.rows import Row
from fedround.codec import flatten
from fedround.contribution.shapley import Members
from fedround.errors import ContractError
from fedround.learning.tasks import Task
from fedround.rounds.server import Combined, Server, keeps_centre, moved, read
from fedround.terms import Terms

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DeltaParts:
    """A round's delta, taken apart."""

    sites: tuple[str, ...]
    """Who has a part in it, by name."""
    std_N: Float64
    """Of the noise in each coordinate of an update, as its site declared it; not a number where that is not known."""
    share_ND: Float64
    """The weight of each update in each coordinate."""
    x_ND: Float64
    """The updates, each times its weight."""
    delta_D: Float32
    """The round's."""
    own_D: Float32
    """What of it comes from no update: what the coordinator remembers, where the rule begins with that."""

    def deltas(self, members_MN: Members) -> Float32:
        """What coalitions make of their updates, (M, D)."""
        members, all_D = members_MN.astype(np.float64), self.share_ND.sum(axis=0)
        made_MD, share_MD = members @ self.x_ND, members @ self.share_ND
        np.divide(all_D, share_MD, out=share_MD, where=share_MD > _NOTHING)
        made_MD *= share_MD
        made_MD += self.own_D
        made_MD[members_MN.all(axis=1)] = self.delta_D
        return made_MD.astype(np.float32)

    def noised_again(self, generator: np.random.Generator) -> tuple[DeltaParts, DeltaParts]:
        """The same updates with more noise of the declared law, and with its negative. Nobody is judged anew."""
        noise_ND = self.share_ND * generator.standard_normal(self.share_ND.shape) * self.std_N[:, None]
        moved_D = noise_ND.sum(axis=0).astype(np.float32)
        return (replace(self, x_ND=self.x_ND + noise_ND, delta_D=self.delta_D + moved_D),
                replace(self, x_ND=self.x_ND - noise_ND, delta_D=self.delta_D - moved_D))


_NOTHING = 1e-9
"""Smaller weights than this in a coordinate are rounding."""


def taken_apart(terms: Terms, combined: Combined, budget_bytes: int) -> DeltaParts:
    """The parts of a committed round. Raises ContractError if they take more memory than the budget."""
    delta_D, made = combined.result.delta_D, combined.result.composition
    rows = {row.site: row for row in combined.rows}
    x_ND = _read([rows[site] for site in made.sites], len(delta_D), budget_bytes)
    share_ND = np.empty(x_ND.shape)
    for start in range(0, len(delta_D), _BLOCK):
        share_ND[:, start:start + _BLOCK] = made.shares(x_ND[:, start:start + _BLOCK])
    order = sorted((n for n in range(len(made.sites)) if share_ND[n].any()), key=lambda n: made.sites[n])
    share_ND = share_ND[order]
    weighed_ND = share_ND * x_ND[order]
    own_D = np.zeros_like(delta_D)
    if keeps_centre(terms.aggregation):
        own_D = (delta_D - weighed_ND.sum(axis=0)).astype(np.float32)
    laws = [rows[made.sites[n]].law for n in order]
    return DeltaParts(tuple(made.sites[n] for n in order), np.array([np.nan if law is None else law.std for law in laws]),
                      share_ND, weighed_ND, delta_D, own_D)


_BLOCK = 1 << 16


def _read(rows: Sequence[Row], size: int, budget_bytes: int) -> Float32:
    needed = 40 * len(rows) * size                      # updates, weights, products, and these again while noise is drawn
    if needed > budget_bytes:
        raise ContractError(f"the contributions of {len(rows)} updates of {size:,} coordinates need {needed >> 20} MB of "
                            f"memory, and may have {budget_bytes >> 20}: raise memory_budget_mb in coordinator.toml")
    return np.stack([read(row, 0, size) for row in rows])


def models(terms: Terms, task: Task, before: Server, parts: DeltaParts, coalitions_CN: Members,
           budget_bytes: int) -> Iterator[Float32]:
    """What each coalition's delta makes of the server, (C, D) in pieces, in order.

    Raises ContractError if a step leaves the range of float32.
    """
    at_once = max(1, budget_bytes // (64 * len(parts.delta_D)))
    for start in range(0, len(coalitions_CN), at_once):
        deltas_CD = parts.deltas(coalitions_CN[start:start + at_once])
        yield np.stack([_model(terms, task, before, delta_D) for delta_D in deltas_CD])


def _model(terms: Terms, task: Task, before: Server, delta_D: Float32) -> Float32:
    return flatten(moved(terms, task, before, delta_D)[0])
