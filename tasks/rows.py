"""An admitted update as a row of the aggregation: on local disk, expanded if it was compressed, with the law of its noise."""

from __future__ import annotations

from pathlib import Path

from fedround import codec, layout
from fedround.aggregation.rows import FileNumbers, Row
from fedround.codec import Form
from fedround.compression import wire
from fedround.records import Update
from fedround.rounds import server
from fedround.values import Payload
from tasks import spool
from tasks.plan import Planned
from tasks.spool import Workplace
from validation.payloads import Intake, intake_of


def row_of(workplace: Workplace, planned: Planned, site: str, update: Update, weight: float) -> Row:
    """Bring the update's payload to local disk, and judge it chunk by chunk.

    Raises what `spool.fetch` raises. Raises CodecError if it is compressed and is not the one valid file for its numbers;
    ContractError if the law of its noise is unknown and the plan has a gate.
    """
    asked = planned.of(site)
    plan, source = asked.plan, f"site '{site}' round {asked.plan.round}"
    path, intake = spool.folder(workplace, planned) / f"{site}.safetensors", intake_of(update, plan, site)
    spool.fetch(workplace.store, layout.delta(site, plan.run, plan.round, plan.attempt), intake, path)
    size, read, numbers = codec.coordinates(plan.sent), _reader(path, intake), FileNumbers(path, intake.offset)
    if (how := plan.agreed.compression) is not None:
        numbers = FileNumbers(path.with_suffix(".expanded"), 0)
        with spool.writing(numbers.path), numbers.path.open("wb") as file:
            for block_B in wire.expand(read, how, size, bytes.fromhex(asked.digest), source):
                file.write(block_B.astype("<f4").tobytes())
    return Row(site, weight, numbers, server.law(plan.agreed, update, read, size, source))


def file_of(workplace: Workplace, planned: Planned, site: str, payload: Payload) -> Path:
    """Bring what an answer carries for secure sums to local disk, judged chunk by chunk. Raises what `spool.fetch` raises."""
    plan = planned.plan
    source, path = f"site '{site}' round {plan.round}: its file", spool.folder(workplace, planned) / f"{site}.bin"
    spool.fetch(workplace.store, layout.payload(site, plan.run, plan.round, plan.attempt, plan.asks.kind),
                Intake(Form(b"", payload.size_bytes), payload.sha256, source, payload.chunks), path)
    return path


def _reader(path: Path, intake: Intake) -> wire.Read:
    def read(start: int, count: int) -> bytes:
        with path.open("rb") as file:
            file.seek(intake.offset + start)
            return file.read(count)

    return read
