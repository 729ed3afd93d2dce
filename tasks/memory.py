"""What the coordinator remembers of every site: a moving average of its uploads, on which gate, mixing and rule work.

It (`fedround.aggregation.history`) is computed from what left the sites anyway, so it costs no privacy. Tensors lie in the
store under their digest, which the commit names: a coordinator that is killed, and an auditor, find them there. Averages
are read, blended and written in blocks, one site after the other: memory grows neither with sites nor with coordinates.

A site that misses a round, or whose upload was left out of the aggregate, keeps the average it had; a site that joins
begins anew. What was left out is forgotten: it neither shifts the average nor its noise law.

An average hides what is wrong with one upload, a forgotten noise above all. So an upload whose length does not fit its own
law is shown to the gate as it is, instead of the average.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedround import codec, layout
from fedround.aggregation.engine import Standing
from fedround.aggregation.gate import fits_its_law
from fedround.aggregation.history import History, blend, with_upload
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import FileNumbers, Numbers, Row
from fedround.aggregation.verdict import Verdict
from fedround.codec import Schema
from fedround.types import SiteMemory, TensorSpec
from infra.stores import publish as put
from tasks import spool
from tasks.plan import Planned
from tasks.spool import Bench
from validation.payloads import Intake

_BLOCK = 1 << 18


@dataclass(frozen=True)
class Remembered:
    """A site's average with this round's upload in it, and the row that the engine sees."""

    memory: SiteMemory
    """What a commit would name."""
    row: Row
    """The average; or the upload, if that alone does not fit its law."""
    path: Path


def recall(planned: Planned) -> dict[str, SiteMemory]:
    """What the parent round remembered of every site; nothing where no history is agreed."""
    if planned.plan.aggregation.history == 0:
        return {}
    return {memory.site: memory for memory in planned.parent.commit.memory}


def remember(bench: Bench, planned: Planned, row: Row, old: SiteMemory | None) -> Remembered:
    """Blend a site's upload into its average, on local disk. Same bytes for the same upload and the same past."""
    how, coordinates = planned.plan.aggregation, codec.coordinates(planned.plan.tensors)
    schema = flat_schema("average", coordinates)
    history = with_upload(None if old is None else _history(old), row.law, how.history)
    path = spool.folder(bench, planned) / f"{row.site}.average.safetensors"
    past = None if old is None else numbers(bench, old.average, schema)
    (sha256, norm), law = _write(path, schema, past, row.numbers, history), history.law
    memory = SiteMemory(site=row.site, average=sha256, weight=history.weight,
                        signal_bound=None if law is None else law.signal_bound,
                        variance=None if law is None else law.variance)
    if not fits_its_law(norm, row.law, how.gate, coordinates):
        return Remembered(memory, row, path)
    return Remembered(memory, Row(row.site, row.weight, FileNumbers(path, len(codec.header(schema))), law), path)


def remain(planned: Planned, remembered: Mapping[str, Remembered],
           standings: Mapping[str, Standing]) -> tuple[SiteMemory, ...]:
    """What the next round recalls: new averages of the sites that were used, the old ones of the other members."""
    members = {*planned.plan.cohort, *(exclusion.site for exclusion in planned.plan.excluded)}
    past = {site: memory for site, memory in recall(planned).items() if site in members}
    used = {site: new.memory for site, new in remembered.items() if standings[site].verdict is Verdict.USED}
    return tuple(memory for _, memory in sorted({**past, **used}.items()))


def publish(bench: Bench, remembered: Mapping[str, Remembered], memory: tuple[SiteMemory, ...]) -> None:
    """Put the new averages where the commit will name them. They stay on local disk, too: the next round finds them there."""
    for site in memory:
        if (new := remembered.get(site.site)) is not None and new.memory == site:
            put(bench.store, layout.memory(site.average), new.path, sha256=site.average)
            kept = _kept(bench, site.average)
            with spool.writing(kept):
                new.path.replace(kept)


def forget(bench: Bench, memory: tuple[SiteMemory, ...]) -> None:
    """Drop local copies that the last commit does not name; in the store they stay."""
    named = {_kept(bench, site.average) for site in memory}
    for path in set(_kept(bench, "").parent.glob("*")) - named:
        path.unlink()


def flat_schema(name: str, *shape: int) -> Schema:
    """One tensor."""
    return (TensorSpec(name=name, shape=shape),)


def numbers(bench: Bench, sha256: str, schema: Schema) -> Numbers:
    """Something remembered, spooled and checked. Raises TrustError if the stored bytes are others."""
    path = _kept(bench, sha256)
    intake = Intake(codec.form(schema), sha256, f"'{layout.memory(sha256)}'")
    spool.fetch(bench.store, layout.memory(sha256), intake, path)
    return FileNumbers(path, intake.offset)


def _kept(bench: Bench, sha256: str) -> Path:
    return bench.folder / "spool" / "memory" / f"{sha256}.safetensors"


def _write(path: Path, schema: Schema, past: Numbers | None, upload: Numbers, history: History) -> tuple[str, float]:
    """Returns the file's SHA-256, and the L2 norm of the upload."""
    head, coordinates = codec.header(schema), codec.coordinates(schema)
    hasher, squares = hashlib.sha256(head), 0.0
    with spool.writing(path), path.open("wb") as file:
        file.write(head)
        for start in range(0, coordinates, _BLOCK):
            block_B = _read(upload, start, min(_BLOCK, coordinates - start))
            squares += float(np.square(block_B, dtype=np.float64).sum())
            past_B = None if past is None else _read(past, start, len(block_B))
            data = blend(past_B, block_B, history).astype("<f4").tobytes()
            hasher.update(data)
            file.write(data)
    return hasher.hexdigest(), math.sqrt(squares)


def _read(source: Numbers, start: int, count: int) -> npt.NDArray[np.float32]:
    block_B = np.empty(count, dtype=np.float32)
    source.read(start, block_B)
    return block_B


def _history(memory: SiteMemory) -> History:
    known = memory.signal_bound is not None and memory.variance is not None
    return History(memory.weight, NoiseLaw(memory.signal_bound, memory.variance) if known else None)
