"""What `verify` proves of a model, as a value that travels with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated

from pydantic import Field

from fedround import __version__
from fedround.errors import LostError
from fedround.privacy.spec import NoPrivacy
from fedround.records import Begun
from fedround.values import Digest, Name, PublicKey, ToolVersion, Value
from infra.stores import ObjectStore
from tasks.proofs import FindingProof, RoundProof
from tasks.verify import verify_run


class Certificate(Value):
    """A model's lineage, proven back to round 0 when the bundle was made. Whoever has the store can prove it again."""

    run: Name
    round: Annotated[int, Field(ge=0)]
    model: Digest
    commit: Digest
    coordinator: PublicKey
    log: Annotated[int, Field(ge=1)]
    """The entry of the federation log that held in the last round."""
    signatures: Annotated[int, Field(ge=1)]
    hashes: Annotated[int, Field(ge=1)]
    sites: tuple[Name, ...]
    """Whose updates are in it."""
    rules: tuple[str, ...]
    epsilon: Annotated[float, Field(ge=0)] | None
    """The most that a site said it had spent on the run, and on those before it that the same rows pay for. None: without
    privacy in one of them, or not known.
    """
    epsilon_alone: Annotated[float, Field(ge=0)] | None = None
    """The same if nobody else's noise counts, in this run, where noise is shared."""
    unseen: tuple[Name, ...]
    """Sites whose answers could not be read: there the coordinator's signature vouches."""
    lost: tuple[Name, ...] = ()
    """Sites whose answers were altered, or were gone, since they were committed: there, too."""
    after: tuple[Begun, ...] = ()
    """With which run's model it began, that one with which, and so on. They are proven, too."""
    tool_version: ToolVersion


def certified(store: ObjectStore, run: str, coordinator: str, until: int) -> Certificate:
    """Prove the run up to a round, and the runs before it with whose models it began.

    Raises what `verify_run` raises, but for what members altered since: that, the certificate says.
    """
    lineage = list(_lineage(store, run, coordinator, until))
    proofs = [proof for one in lineage for proof in one]
    last = lineage[0][-1]
    everything: list[RoundProof | FindingProof] = [*proofs, *(found for proof in proofs for found in proof.findings)]
    asked = [proof for proof in proofs if proof.round > 0]
    return Certificate(
        run=run, round=last.round, model=last.model, commit=last.commit, coordinator=coordinator, log=last.log,
        signatures=sum(proof.signatures for proof in everything), hashes=sum(proof.hashes for proof in everything),
        sites=tuple(sorted({site for proof in asked for site in proof.updates})),
        rules=tuple(dict.fromkeys(proof.aggregation for proof in asked)), epsilon=_spent(lineage),
        epsilon_alone=max((found for proof in asked for found in proof.alone.values() if found is not None), default=None),
        unseen=tuple(sorted({site for proof in everything for site in proof.unseen})),
        lost=tuple(sorted({site for proof in everything for site in proof.lost})),
        after=tuple(begun for one in lineage if (begun := one[0].after) is not None), tool_version=__version__)


def _lineage(store: ObjectStore, run: str, coordinator: str, until: int) -> Iterator[list[RoundProof]]:
    """The proofs of the run, of the one with whose model it began, and so on. A run names the other's commit by its digest,
    so there is an end.
    """
    while True:
        proofs = list[RoundProof]()
        with suppress(LostError):
            for proof in verify_run(store, run, coordinator, until):
                proofs.append(proof)
        yield proofs
        begun = proofs[0].after
        if begun is None:
            return
        run, until = begun.run, begun.round


def _spent(lineage: Sequence[Sequence[RoundProof]]) -> float | None:
    """As `Certificate.epsilon`. Of one record: partitions that are told apart in one way have none in common."""
    units, spent = set[str](), defaultdict[str, float](float)
    for proofs in lineage:
        said = [value for proof in proofs for value in proof.epsilons.values() if value is not None]
        promised = [proof.privacy for proof in proofs if proof.privacy is not None]
        units |= {privacy.unit for privacy in promised}
        if not said or any(isinstance(privacy, NoPrivacy) for privacy in promised):
            return None
        spent[proofs[0].in_ledger] += max(said)
    if len(units) > 1:
        return None
    of_all, ways = spent.pop("", 0.0), {name.rpartition("-")[2] for name in spent}
    return of_all + (max(spent.values()) if len(ways) == 1 else sum(spent.values()))
