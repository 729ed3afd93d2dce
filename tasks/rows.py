"""An admitted update as a row of the aggregation: on local disk, expanded if it was compressed, with the law of its noise."""

from __future__ import annotations

from pathlib import Path

from fedround import codec, layout
from fedround.aggregation.noise_law import law_of
from fedround.aggregation.rows import FileNumbers, Row
from fedround.compression import wire
from fedround.compression.law import law_of_what_arrives
from fedround.records import Update
from tasks import spool
from tasks.plan import Planned
from tasks.spool import Bench
from validation.payloads import Intake, intake_of


def row_of(bench: Bench, planned: Planned, update: Update, weight: float) -> Row:
    """Bring the update's payload to local disk, judging it chunk by chunk.

    Raises what `spool.fetch` raises; CodecError if it is compressed and not the one valid file of its numbers; ContractError
    if its law cannot be told and the plan has a gate.
    """
    plan, source = planned.plan, f"site '{update.site}' round {planned.plan.round}"
    path, intake = spool.folder(bench, planned) / f"{update.site}.safetensors", intake_of(update, plan)
    spool.fetch(bench.store, layout.delta(update.site, plan.run, plan.round, plan.attempt), intake, path)
    law = law_of(update.mechanism, plan.training, update.rows, update.steps)
    if plan.compression is None:
        return Row(update.site, weight, FileNumbers(path, intake.offset), law)
    size, read, whole = codec.coordinates(plan.tensors), _reader(path, intake), path.with_suffix(".expanded")
    with spool.writing(whole), whole.open("wb") as file:
        for block_B in wire.expand(read, plan.compression, size, bytes.fromhex(planned.digest), source):
            file.write(block_B.astype("<f4").tobytes())
    return Row(update.site, weight, FileNumbers(whole, 0), law_of_what_arrives(
        plan.compression, law, read, size, source, is_judged=plan.aggregation.gate is not None))


def _reader(path: Path, intake: Intake) -> wire.Read:
    def read(start: int, count: int) -> bytes:
        with path.open("rb") as file:
            file.seek(intake.offset + start)
            return file.read(count)

    return read
