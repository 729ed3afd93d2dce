"""Rows that nobody has, drawn from a finding; and the proof that a file of them is what its signed card says."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedround.errors import TrustError
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import NoPrivacy, of_persons
from fedround.records import Plan
from fedround.signing import digest, unseal
from fedround.statistics import Release
from fedround.synthetic.blueprint import Blueprint
from fedround.synthetic.clouds import Clouds, fitted_clouds
from fedround.synthetic.model import fitted
from fedround.synthetic.said import Synthetic
from infra.history import read_finding, read_plan
from infra.stores import ObjectStore
from tasks.proofs import FindingProof
from tasks.verify import verify_run

if TYPE_CHECKING:
    import pandas as pd

_ROUNDED = 1e-6                 # between two computations of one epsilon
_NEAR = 2e-4                    # between numbers that two processors draw from one seed, each rounded to four digits


def drawn(blueprint: Blueprint | Clouds, totals: Sequence[Release], rows: int,
          seed: int) -> tuple[pd.DataFrame, tuple[tuple[str, str], ...]]:
    """Rows from what all sites released together, and the pairs of columns that they join. Raises as `fitted` and
    `fitted_clouds`.
    """
    draw = np.random.default_rng(seed)
    if isinstance(blueprint, Clouds):
        return fitted_clouds(blueprint, totals).sample(rows, draw), ()
    tree = fitted(blueprint, totals)
    cells = tree.sample(rows, [not one.missing for one in blueprint.columns], draw)
    names = [one.column for one in blueprint.columns]
    return blueprint.rows(cells, draw), tuple((names[one], names[other]) for one, other in tree.pairs)


def as_bytes(rows: pd.DataFrame, file: Path) -> bytes:
    """As they lie in a file of this name."""
    if file.suffix.lower() == ".csv":
        return rows.to_csv(index=False).encode()
    into = io.BytesIO()
    rows.to_parquet(into, index=False)
    return into.getvalue()


@dataclass(frozen=True)
class RowsProof:
    """What was proven of a file of synthetic rows."""

    card: Synthetic
    finding: FindingProof
    """Of the answers that the rows were drawn from."""
    epsilon: float | None
    """What the question cost at each site, computed again from its signed plan; None: without a promise."""
    same_bytes: bool
    """Whether the rows were drawn again to the same bytes; False: to the same values, which another version wrote, or
    another processor computed."""


def prove_rows(store: ObjectStore, coordinator: str, file: Path, body: bytes, sealed: bytes) -> RowsProof:
    """Prove that a file is what its card says: the card is the coordinator's and of these bytes; the run's history holds up
    to the question, whose plan asks for the blueprint's tables; its totals are what the sites released, as far as the
    credential may read; the plan's noise costs what the card says; and the seed draws these rows from them.

    Raises TrustError, or what `verify_run` raises, at the first thing that does not hold.
    """
    card = unseal(sealed, Synthetic, coordinator, f"the card of {file}")
    if card.file != digest(body):
        raise TrustError(f"{file} is not the file of its card: it was altered, or is another one")
    *_, about = verify_run(store, card.run, coordinator, card.round)
    proof = next((one for one in about.findings if (one.asked, one.attempt) == ("measure", card.attempt)), None)
    if proof is None:
        raise TrustError(f"the card of {file} names a question that run '{card.run}' has no answer of")
    finding = read_finding(store, card.run, card.round, card.attempt, "measure", coordinator)
    plan = read_plan(store, finding, coordinator, "measure")
    asked = plan.asks.statistics
    if (finding.plan, finding.federation) != (card.plan, card.federation) or asked != card.blueprint.statistics(
            asked[0].noise_std):
        raise TrustError(f"the card of {file} names another question than the one that asked for its blueprint's tables")
    spent = _cost(plan)
    if card.noise_std != finding.totals[0].noise_std or not _same(card.epsilon, spent):
        raise TrustError(f"the card of {file} says another noise or epsilon than the question's plan")
    rows, pairs = drawn(card.blueprint, finding.totals, card.rows, card.seed)
    again = as_bytes(rows, file)
    if pairs != card.pairs or (again != body and not _same_values(card.blueprint, again, body, file)):
        raise TrustError(f"{file} holds other rows than seed {card.seed} draws from the question's tables; with other "
                         "versions of numpy and pandas than the coordinator's this says nothing")
    return RowsProof(card, proof, spent, again == body)


def _cost(plan: Plan) -> float | None:
    privacy = plan.agreed.privacy
    if isinstance(privacy, NoPrivacy) or plan.asks.statistics[0].noise_std == 0:
        return None
    return epsilon(of_persons((one.mechanism for one in plan.asks.statistics), privacy), privacy.delta_dp, privacy.unit)


def _same(said: float | None, spent: float | None) -> bool:
    return said == spent if said is None or spent is None else abs(said - spent) <= _ROUNDED * spent


def _same_values(blueprint: Blueprint | Clouds, one: bytes, other: bytes, file: Path) -> bool:
    import pandas as pd

    read = pd.read_csv if file.suffix.lower() == ".csv" else pd.read_parquet
    found, there = read(io.BytesIO(one)), read(io.BytesIO(other))
    if not isinstance(blueprint, Clouds):
        return bool(found.equals(there))
    return bool(list(found.columns) == list(there.columns) and len(found) == len(there)
                and np.allclose(found, there, rtol=0, atol=_NEAR))
