"""The coordinator's side of a simulated round: what it remembers, and how updates become the next model.

Every number is computed by the functions that a live coordinator calls; here is only what they are called with.
Legend: D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fedround import optimizers
from fedround.aggregation import engine
from fedround.aggregation.gate import fits_its_law
from fedround.aggregation.history import History, blend, with_upload
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import ArrayNumbers, Numbers, Row
from fedround.aggregation.spec import Aggregation, CenteredClipping, uses_weights
from fedround.aggregation.verdict import Verdict
from fedround.agreement import Agreement
from fedround.codec import Tensors, coordinates, schema_of
from fedround.errors import QuorumError
from fedround.learning import control
from fedround.learning.spec import Scaffold
from fedround.simulation.crowd import Agreed, is_crowd, mean_of_crowd
from fedround.simulation.spool import Updates

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Average:
    """What the coordinator remembers of one site's uploads."""

    history: History
    average_D: Float32


@dataclass(frozen=True, eq=False)
class Server:
    """What a round begins with."""

    model: Tensors
    state: Mapping[str, Float32] | None = None
    """The server optimizer's."""
    control_D: Float32 | None = None
    """The server's control variate, with SCAFFOLD."""
    averages: Mapping[str, Average] = field(default_factory=dict)
    centre_D: Float32 | None = None
    """Where centered clipping begins."""

    @property
    def size(self) -> int:
        """D."""
        return coordinates(schema_of(self.model))


@dataclass(frozen=True, eq=False)
class Upload:
    """What is known of an update besides its numbers."""

    site: str
    weight: float
    law: NoiseLaw | None


def take_round(server: Server, agreement: Agreement, members: Mapping[str, float], uploads: list[Upload], updates: Updates,
               seed: bytes, root: Numbers | None) -> tuple[Server, Mapping[str, Verdict]]:
    """The next round's server, and who entered the aggregate.

    members: everybody's weight, in the cohort or not. uploads: in the order of names, as they lie in `updates`.
    Raises QuorumError if fewer updates than the quorum remain, ContractError if the step leaves the range of float32.
    """
    how = agreement.how_to_aggregate()
    if is_crowd(how, len(uploads)):
        agreed = mean_of_crowd(updates, {upload.site: upload.weight for upload in uploads}, server.size)
        averages = server.averages
    else:
        agreed, averages = _aggregate(server, how, uploads, updates, seed, root)
    used = [site for site, verdict in agreed.verdicts.items() if verdict is Verdict.USED]
    if len(used) < agreement.quorum:
        raise QuorumError(f"{len(used)} of {len(uploads)} updates remain, the quorum is {agreement.quorum}: ask with a "
                          "smaller quorum, or let more sites take part")
    model, state = optimizers.step(server.model, server.state, agreed.delta_D, agreement.optimizer)
    following = replace(server, model=model, state=state, averages=averages)
    if isinstance(how.rule, CenteredClipping):
        following = replace(following, centre_D=agreed.delta_D)
    if isinstance(agreement.training.algorithm, Scaffold):
        share = control.share_of(used, members, weighted=uses_weights(how))
        following = replace(following, control_D=control.next_of_server(
            server.control_D, agreed.delta_D, agreement.training, share))
    return following, agreed.verdicts


def _aggregate(server: Server, how: Aggregation, uploads: list[Upload], updates: Updates, seed: bytes,
               root: Numbers | None) -> tuple[Agreed, Mapping[str, Average]]:
    rows, averages = [], dict(server.averages)
    for place, upload in enumerate(uploads):
        row = Row(upload.site, upload.weight, updates.numbers(place), upload.law)
        if how.history > 0:
            averages[upload.site] = _remembered(server.averages.get(upload.site), row, updates.read(place, place + 1)[0], how)
            row = _shown(row, averages[upload.site], updates.read(place, place + 1)[0], how)
        rows.append(row)
    result = engine.aggregate(
        rows, how, server.size, seed=seed, root=root,
        centre=None if server.centre_D is None else ArrayNumbers(server.centre_D))
    verdicts = {site: standing.verdict for site, standing in result.standings.items()}
    kept = {site: average for site, average in averages.items()
            if how.history > 0 and verdicts.get(site, Verdict.USED) is Verdict.USED}
    return Agreed(result.delta_D, verdicts), {**server.averages, **kept}


def _remembered(old: Average | None, row: Row, upload_D: Float32, how: Aggregation) -> Average:
    history = with_upload(None if old is None else old.history, row.law, how.history)
    return Average(history, blend(None if old is None else old.average_D, upload_D, history).copy())


def _shown(row: Row, average: Average, upload_D: Float32, how: Aggregation) -> Row:
    """The average; or the upload, if that alone does not fit its law."""
    norm = float(np.sqrt(np.square(upload_D, dtype=np.float64).sum()))
    if not fits_its_law(norm, row.law, how.gate, len(upload_D)):
        return row
    return Row(row.site, row.weight, ArrayNumbers(average.average_D), average.history.law)
