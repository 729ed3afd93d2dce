"""A region's partial sum: made, read, judged, and computed again.

The regional coordinator that signs, the coordinator that adds up and the auditor who checks use the same functions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from fedround import codec, layout
from fedround.aggregation.rows import Floats, Row
from fedround.codec import CHUNK_BYTES, Form
from fedround.errors import ChainError, ContractError, TrustError
from fedround.federation import Federation
from fedround.records import Answer, PartialSum
from fedround.regions import sums
from fedround.regions.spec import Region
from fedround.rounds import summed
from fedround.signing import MAX_DOCUMENT_BYTES, digest, unseal
from fedround.values import Digest, Payload
from infra.stores import ObjectStore, judged, publish
from tasks import spool
from tasks.plan import Planned
from tasks.rows import file_of, row_of
from tasks.spool import Workplace
from validation.payloads import Intake

MOST = 99
"""Partial sums that a region may sign for one plan."""

_NORM_TOLERANCE = 1e-9
"""Sums of squares differ in last bits between processors; the sums themselves do not."""


def where(planned: Planned, region: str) -> tuple[str, str, int, int]:
    """What the keys of a region's partial sums of this plan's answers begin with."""
    return region, planned.plan.run, planned.plan.round, planned.plan.attempt


# -- made --------------------------------------------------------------------------------------------------------------


def added_up(workplace: Workplace, planned: Planned, region: str, rows: Sequence[Row]) -> tuple[Path, Payload]:
    """The sum of these rows on local disk, and what a document says of it."""
    return _on_disk(workplace, planned, region, sums.add_up(rows, codec.coordinates(planned.plan.sent)))


def added_masked(workplace: Workplace, planned: Planned, region: str, files: Sequence[Path]) -> tuple[Path, Payload]:
    """The same of the masked vectors in these files."""
    return _on_disk(workplace, planned, region, sums.add_masked(files, _size_bytes(planned) // sums.MASKED_BYTES))


def _on_disk(workplace: Workplace, planned: Planned, region: str,
             blocks: Iterable[Floats | sums.UInt32]) -> tuple[Path, Payload]:
    path = _place(workplace, planned, region)
    with spool.writing(path), path.open("wb") as file:
        sums.written(blocks, file)
    return path, _payload(path)


def _size_bytes(planned: Planned) -> int:
    """Of the numbers of a partial sum."""
    plan, size = planned.plan, codec.coordinates(planned.plan.sent)
    if plan.asks.slot is None:
        return sums.NUMBER_BYTES * size
    return sums.MASKED_BYTES * sum(summed.lengths(plan.asks, size))


def _payload(path: Path) -> Payload:
    whole, chunks = hashlib.sha256(), []
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            whole.update(chunk)
            chunks.append(digest(chunk))
    return Payload(sha256=whole.hexdigest(), size_bytes=path.stat().st_size, chunks=tuple(chunks))


def put_numbers(store: ObjectStore, planned: Planned, region: str, path: Path, sha256: Digest) -> None:
    """Put the numbers where the document will name them: by content."""
    publish(store, layout.partial_numbers(*where(planned, region), sha256), path, sha256=sha256,
            journal=path.with_suffix(".upload"))


def _place(workplace: Workplace, planned: Planned, region: str) -> Path:
    return spool.folder(workplace, planned) / f"{region}.partial"


# -- read and judged ---------------------------------------------------------------------------------------------------


def newest(store: ObjectStore, planned: Planned, region: Region,
           decided: Collection[str] | None = None) -> tuple[PartialSum, Digest] | None:
    """The last partial sum that the region signed for this plan; None: it signed none. They are looked for one by one.

    decided: whose masked answers are added up, if members were asked to reveal already: the last one is meant that counts
    these of its members, and no others.
    Raises TrustError or ContractError if what lies there is not one.
    """
    for count in range(counted(store, planned, region.name), 0, -1):
        found = _read(store, planned, region, count)
        if decided is None or {one.site for one in found[0].counted} == {*decided} & {*region.members}:
            return found
    return None


def counted(store: ObjectStore, planned: Planned, region: str) -> int:
    """How many partial sums the region has signed for this plan."""
    count = 0
    while count < MOST and store.head(layout.partial(*where(planned, region), count + 1)) is not None:
        count += 1
    return count


def named(store: ObjectStore, planned: Planned, region: Region, sha256: Digest) -> PartialSum | None:
    """The partial sum with this digest; None: it is not there (any more)."""
    for count in range(1, counted(store, planned, region.name) + 1):
        document = store.get(layout.partial(*where(planned, region.name), count), max_bytes=MAX_DOCUMENT_BYTES)
        if digest(document) == sha256:
            return judge(document, planned, region)
    return None


def _read(store: ObjectStore, planned: Planned, region: Region, count: int) -> tuple[PartialSum, Digest]:
    key = layout.partial(*where(planned, region.name), count)
    return judged(lambda: store.get(key, max_bytes=MAX_DOCUMENT_BYTES),
                  lambda document: (judge(document, planned, region), digest(document)), f"'{key}'")


def judge(document: bytes, planned: Planned, region: Region) -> PartialSum:
    """The partial sum, if `document` is one by this region's coordinator for this plan, that names each of the region's
    members in the cohort once.

    Raises SignatureError, ChainError or ContractError, naming the region. Whether the sum is right is not judged here.
    """
    plan, source = planned.plan, f"partial sum of region '{region.name}', round {planned.plan.round}"
    said = unseal(document, PartialSum, region.key, source)
    if said.region != region.name or (said.plan, said.log) != (planned.digest, plan.log) or any(
            getattr(said, name) != getattr(plan, name) for name in ("federation", "run", "round", "attempt")):
        raise ChainError(f"{source}: is of another region or plan")
    sites = [one.site for one in said.counted]
    if sites != sorted(sites):
        raise ContractError(f"{source}: its members do not stand in the order of their names")
    everybody = [*sites, *(one.site for one in said.refusals), *(one.site for one in said.rejected), *said.missing]
    if sorted(everybody) != list(region.asked(plan.cohort)):
        raise ContractError(f"{source}: does not name each member that was asked once")
    if (said.numbers is None) != (not sites):
        raise ContractError(f"{source}: has a sum of nobody, or none of somebody")
    size = _size_bytes(planned)
    if said.numbers is not None and (said.numbers.size_bytes, len(said.numbers.chunks)) != (size, -(-size // CHUNK_BYTES)):
        raise ContractError(f"{source}: {said.numbers.size_bytes} bytes of numbers, expected {size}")
    return said


def fetched(workplace: Workplace, planned: Planned, said: PartialSum) -> Path:
    """Bring a partial sum's numbers to local disk, judged chunk by chunk. Raises what `spool.fetch` raises."""
    if said.numbers is None:
        raise ContractError(f"region '{said.region}' counted nobody")
    path = _place(workplace, planned, said.region)
    spool.fetch(workplace.store, layout.partial_numbers(*where(planned, said.region), said.numbers.sha256),
                Intake(Form(b"", said.numbers.size_bytes), said.numbers.sha256,
                       f"partial sum of region '{said.region}'", said.numbers.chunks), path)
    return path


# -- computed again ----------------------------------------------------------------------------------------------------


def check_again(workplace: Workplace, planned: Planned, members: Federation, said: PartialSum,
                answers: Mapping[str, Answer]) -> None:
    """Compute a partial sum again from what its members sent. Raises TrustError if it is not what the region signed.

    answers: those that it counts, admitted.
    """
    source, again = f"region '{said.region}', {planned.in_words}", f"{said.region}.again"
    wrong_sum = TrustError(f"{source}: its coordinator signed a partial sum that what its members sent does not add up to")
    if planned.plan.asks.slot is not None:
        if any(one.norm is not None for one in said.counted):
            raise TrustError(f"{source}: its coordinator says how long masked answers are")
        files = [file_of(workplace, planned, one.site, payload)
                 for one in said.counted if (payload := answers[one.site].payload) is not None]
        if files and added_masked(workplace, planned, again, files)[1] != said.numbers:
            raise wrong_sum
        return
    rows = [row_of(workplace, planned, one.site, update, members.site(one.site).weight)
            for one in said.counted if (update := answers[one.site].update) is not None]
    size = codec.coordinates(planned.plan.sent)
    norm_of = sums.norms(rows, size)
    if wrong := sums.left_out(norm_of):
        site = min(wrong)
        raise TrustError(f"{source}: its coordinator counted '{site}', whose update {wrong[site]}")
    for one in said.counted:
        if one.norm is None or not math.isclose(one.norm, norm_of[one.site], rel_tol=_NORM_TOLERANCE):
            raise TrustError(f"{source}: its coordinator says another length of the update of '{one.site}' than it has")
    if rows and added_up(workplace, planned, again, rows)[1] != said.numbers:
        raise wrong_sum
