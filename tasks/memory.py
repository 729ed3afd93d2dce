"""What only the coordinator remembers between two rounds (`fedround.rounds.server.Memory`): where it lies, and its names.

Tensors lie in the store under their digest, which the commit names. So a coordinator that was killed, and an auditor, find
them there. Averages are read, blended and written in blocks, one site after the other: memory grows neither with the number
of sites nor with the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedround import codec, layout
from fedround.aggregation.history import History
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import FileNumbers, Numbers
from fedround.codec import Schema
from fedround.records import SiteMemory
from fedround.rounds.server import Average, Memory
from fedround.values import Digest, TensorSpec
from infra.stores import publish as put
from tasks import spool
from tasks.plan import Planned
from tasks.spool import Workplace
from validation.payloads import Intake


def flat_schema(name: str, *shape: int) -> Schema:
    """One tensor."""
    return (TensorSpec(name=name, shape=shape),)


class Shelf:
    """The averages of one round on local disk, and the digests that name them."""

    def __init__(self, workplace: Workplace, planned: Planned):
        self._workplace = workplace
        self._folder = spool.folder(workplace, planned)
        self._schema = flat_schema("average", codec.coordinates(planned.plan.sent))
        self._digests: dict[Numbers, Digest] = {}

    def __call__(self, site: str, blocks: Iterator[npt.NDArray[np.float32]]) -> Numbers:
        """Put a site's new average here, block by block."""
        path, head = self._folder / f"{site}.average.safetensors", codec.header(self._schema)
        hasher = hashlib.sha256(head)
        with spool.writing(path), path.open("wb") as file:
            file.write(head)
            for block_B in blocks:
                data = block_B.astype("<f4").tobytes()
                hasher.update(data)
                file.write(data)
        return self._named(FileNumbers(path, len(head)), hasher.hexdigest())

    def recall(self, planned: Planned) -> Memory:
        """What the parent round left, brought to local disk and checked. Raises TrustError if the stored bytes are others."""
        centre, size = planned.parent.commit.blob("centre"), codec.coordinates(planned.plan.sent)
        return Memory({site: Average(_history(said), self._fetched(said.average, self._schema))
                       for site, said in _recalled(planned).items()},
                      None if centre is None else self._fetched(centre, flat_schema("centre", size)))

    def said_of(self, averages: Mapping[str, Average]) -> tuple[SiteMemory, ...]:
        """The commit's entry for averages that lie here."""
        return tuple(SiteMemory(
            site=site, average=self._digests[average.numbers], weight=average.history.weight,
            signal_bound=None if (law := average.history.law) is None else law.signal_bound,
            variance=None if law is None else law.variance) for site, average in sorted(averages.items()))

    def publish(self, workplace: Workplace, averages: Mapping[str, Average]) -> None:
        """Put the new averages where the commit will name them. They also stay on local disk, for the next round."""
        for _, average in sorted(averages.items()):
            numbers, sha256 = average.numbers, self._digests[average.numbers]
            if isinstance(numbers, FileNumbers) and numbers.path.parent == self._folder:
                put(workplace.store, layout.memory(sha256), numbers.path, sha256=sha256)
                kept = _kept(workplace, sha256)
                with spool.writing(kept):
                    numbers.path.replace(kept)

    def _fetched(self, sha256: Digest, schema: Schema) -> Numbers:
        path, intake = _kept(self._workplace, sha256), Intake(codec.form(schema), sha256, f"'{layout.memory(sha256)}'")
        spool.fetch(self._workplace.store, layout.memory(sha256), intake, path)
        return self._named(FileNumbers(path, intake.offset), sha256)

    def _named(self, numbers: Numbers, sha256: Digest) -> Numbers:
        self._digests[numbers] = sha256
        return numbers


def forget(workplace: Workplace, memory: tuple[SiteMemory, ...]) -> None:
    """Drop local copies that the last commit does not name; in the store they stay."""
    named = {_kept(workplace, said.average) for said in memory}
    for path in set(_kept(workplace, "").parent.glob("*")) - named:
        path.unlink()


def _recalled(planned: Planned) -> dict[str, SiteMemory]:
    """What the parent round says of those that are still members; nothing if no history is agreed."""
    plan = planned.plan
    if plan.agreed.aggregation.history == 0:
        return {}
    members = {*plan.answering, *plan.unasked, *(exclusion.site for exclusion in plan.excluded)}
    return {said.site: said for said in planned.parent.commit.memory if said.site in members}


def _kept(workplace: Workplace, sha256: str) -> Path:
    return workplace.folder / "spool" / "memory" / f"{sha256}.safetensors"


def _history(said: SiteMemory) -> History:
    if said.signal_bound is None or said.variance is None:
        return History(said.weight, None)
    return History(said.weight, NoiseLaw(said.signal_bound, said.variance))
