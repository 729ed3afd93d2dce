"""Predictions that need both members: the peer's scores, put together with one's own columns. For the site with the labels.

Whose score is not here yet is asked for by another exchange; a customer whom the peer does not have gets no prediction.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedround import layout
from fedround.errors import ContractError, SetupError, TrustError
from fedround.files import write_whole
from fedround.learning.persons import ids_of
from fedround.records import Join
from fedround.spoken import how_many
from fedround.vertical import learners
from infra.documents import NOT_OURS, read_federation
from infra.history import findings, read_finding, read_plan
from site_workers.exchange import Exchange, kept_of, read_exchange, uses, want
from site_workers.grants import Grant
from site_workers.joining import floats, said_of
from site_workers.rows import read_columns
from site_workers.site import Site

log = logging.getLogger("fedround.site")


@dataclass(frozen=True, eq=False)
class PredictedTogether:
    """Predictions of rows."""

    customer_N: list[str]
    chance_N: npt.NDArray[np.float64]
    """Of the label 1; nan: the peer does not have the customer."""
    exchange: str
    """In which it was learnt."""


def predict(site: Site, peer: str, purpose: str, rows: Path) -> PredictedTogether:
    """The chance of the label 1 of every row in a file, with the peer's scores.

    Raises SetupError, with what to do, if scores of some of the customers are still to be asked for; then it is written down
    whose. Raises ContractError if nothing was learnt with this peer, or if the rows lack a column.
    """
    grant = next((one for one in site.policy.vertical if (one.peer, one.purpose) == (peer, purpose)), None)
    if grant is None:
        raise ContractError(f"policy.toml has no [[vertical]] with peer = '{peer}' and purpose = '{purpose}'")
    order = uses(site, grant)
    made = sorted((one for one in _whole(site, grant) if one.asks.labels == site.name and one.link in order),
                  key=lambda one: order.index(one.link), reverse=True)
    learnt = next((one for one in made if one.asks.learnt is None), None)
    if learnt is None:
        raise ContractError(f"nothing was learnt with '{peer}' for '{purpose}' yet: ask the coordinator for 'fedround join'")
    names = [grant.id, *grant.columns]
    columns = read_columns(site, names, (rows,))
    if missing := sorted({*names} - columns.keys()):
        raise ContractError(f"{rows} has no column '{missing[0]}'")
    customers = ids_of(columns[grant.id])
    known, asked = _scores(learnt, grant), {*learnt.sent}
    for later in made:
        if (later.asks.learnt, later.asks.levels) == (learnt.link, learnt.asks.levels):
            try:
                known, asked = {**_scores(later, grant), **known}, asked | {*later.sent}
            except TrustError as error:     # what one exchange spoilt, another may bring
                log.warning("%s; its scores are left out: 'fedround join --score --anew' brings others", error)
    if unknown := sorted({*customers} - asked - {""}):
        want(site, grant, unknown)
        raise SetupError(f"scores of {how_many(len(unknown), 'customer')} at {rows} were never asked for; it is written down "
                         f"whose. Ask the coordinator to run 'fedround join --score' with '{peer}' for '{purpose}', then "
                         "predict again")
    has_N = np.array([customer in known for customer in customers])
    own_ND = np.column_stack([floats(columns[name]) for name in grant.columns])
    score_N = np.array([known.get(customer, 0) for customer in customers], dtype=np.uint8)
    chance_N = np.where(has_N, learners.chances(_model(learnt, grant), own_ND, score_N), np.nan)
    return PredictedTogether(customers, chance_N, learnt.link)


def write(found: PredictedTogether, destination: Path) -> int:
    """Write the predictions, whole or not at all, for their reader alone; returns how many there are. An empty cell: none.

    Raises ContractError for another form than CSV or Parquet.
    """
    import pandas as pd

    frame, body = pd.DataFrame({"customer": found.customer_N, "chance": found.chance_N}), io.BytesIO()
    if destination.suffix.lower() not in (".csv", ".parquet"):
        raise ContractError(f"{destination}: expected a name that ends in .csv or .parquet")
    if destination.suffix.lower() == ".csv":
        frame.to_csv(body, index=False)
    else:
        frame.to_parquet(body, index=False)
    write_whole(destination, body.getvalue(), durable=True)
    return int(np.isfinite(found.chance_N).sum())


def _model(learnt: Exchange, grant: Grant) -> object:
    kept = kept_of(learnt.site, learnt.link)
    common, marked = learnt.common(grant.most)
    if kept["digest"].tobytes() != marked:
        raise TrustError(f"exchange {learnt.link[:16]}: the store has other ids of '{learnt.peer}' than when labels were "
                         "told")
    score_N = said_of(learnt, "scores", marked, len(common))
    return learners.stacked(kept["columns"], score_N, kept["labels"], learnt.seed)


def _scores(found: Exchange, grant: Grant) -> dict[str, int]:
    """The peer's score of each common customer."""
    common, marked = found.common(grant.most)
    score_N = said_of(found, "scores", marked, len(common))
    return dict(zip(common, score_N.tolist(), strict=True))


def _whole(site: Site, grant: Grant) -> Iterator[Exchange]:
    """The exchanges with a peer for a purpose that went their whole way, in whichever run."""
    runs = sorted({found[0] for key in site.store.list(layout.RUNS)
                   if (found := layout.parse_finding(key)) is not None and found[3] == "join"})
    for run in runs:
        for number, attempt in findings(site.store, run, "join"):
            try:
                if (whole := _exchange(site, run, number, attempt, grant)) is not None:
                    yield whole
            except NOT_OURS:
                continue


def _exchange(site: Site, run: str, number: int, attempt: int, grant: Grant) -> Exchange | None:
    """The exchange that ended with this finding; None: it did not, or it is of others."""
    key = site.settings.coordinator
    finding = read_finding(site.store, run, number, attempt, "join", key)
    plan = read_plan(site.store, finding, key, "join")
    asks = plan.asks
    if not isinstance(asks, Join) or asks.step != "scores" or asks.purpose != grant.purpose or {
            asks.labels, asks.features} != {site.name, grant.peer}:
        return None
    members = read_federation(site.store, plan.federation_digest, key, f"federation of run '{run}'")
    if members.site(grant.peer).key != grant.key:
        return None
    return read_exchange(site, members, plan.federation_digest, plan, finding.plan).ended(plan, finding)
