"""What `verify` proves of a model, as a value that travels with it."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from pydantic import Field

from fedround import __version__
from fedround.errors import LostError
from fedround.values import Digest, Name, PublicKey, ToolVersion, Value
from infra.stores import ObjectStore
from tasks.verify import RoundProof, verify_run


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
    """The most that a site said it had spent on the run."""
    unseen: tuple[Name, ...]
    """Sites whose answers could not be read: there the coordinator's signature vouches."""
    lost: tuple[Name, ...] = ()
    """Sites whose answers were altered, or were gone, since they were committed: there, too."""
    tool_version: ToolVersion


def certified(store: ObjectStore, run: str, coordinator: str, until: int) -> Certificate:
    """Prove the run up to a round. Raises what `verify_run` raises, but for what members altered since: that, the certificate
    says.
    """
    proofs = list[RoundProof]()
    with suppress(LostError):
        for proof in verify_run(store, run, coordinator, until):
            proofs.append(proof)
    last, everything = proofs[-1], [*proofs, *(found for proof in proofs for found in proof.findings)]
    asked = [proof for proof in proofs if proof.round > 0]
    spent = [value for proof in asked for value in proof.epsilons.values() if value is not None]
    return Certificate(
        run=run, round=last.round, model=last.model, commit=last.commit, coordinator=coordinator, log=last.log,
        signatures=sum(proof.signatures for proof in everything), hashes=sum(proof.hashes for proof in everything),
        sites=tuple(sorted({site for proof in asked for site in proof.updates})),
        rules=tuple(dict.fromkeys(proof.aggregation for proof in asked)), epsilon=max(spent, default=None),
        unseen=tuple(sorted({site for proof in everything for site in proof.unseen})),
        lost=tuple(sorted({site for proof in everything for site in proof.lost})), tool_version=__version__)
