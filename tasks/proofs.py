"""What was proven of a run, as values: of a round, and of what was asked about its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedround.privacy.spec import Privacy
from fedround.records import Begun
from fedround.statistics import Release
from fedround.values import Purpose


@dataclass(frozen=True)
class FindingProof:
    """What was proven of a question that made no model."""

    asked: Purpose
    attempt: int
    answers: tuple[str, ...]
    refusals: tuple[str, ...]
    totals: tuple[Release, ...]
    """What all sites said together."""
    signatures: int
    hashes: int
    unseen: tuple[str, ...] = ()
    """Sites whose answers this credential may not read. If there are any, the totals cannot be added up again."""
    lost: tuple[str, ...] = ()
    """Sites whose answers were altered, or are gone, since: as `unseen`."""
    excluded: tuple[str, ...] = ()
    """Members that were not asked, as the agreed policy has it."""
    revealed: tuple[str, ...] = ()
    """Of a sum of masked answers: whose reveals may be read."""


@dataclass(frozen=True)
class RoundProof:
    """What was proven of one round."""

    round: int
    commit: str
    model: str
    log: int
    """The entry of the federation log that held."""
    updates: tuple[str, ...]
    refusals: tuple[str, ...]
    signatures: int
    hashes: int
    aggregation: str = ""
    privacy: Privacy | None = None
    """What the plan asked of every site."""
    partition: str = ""
    """The only rows that the run trains on, which pay alone; empty: all."""
    in_ledger: str = ""
    """Their name in the sites' ledgers."""
    chosen: str = ""
    """What was chosen for the run when it began, in words; empty: nothing."""
    after: Begun | None = None
    """Of round 0: where its model comes from. Nothing is proven of that run but its commit."""
    epsilons: Mapping[str, float | None] = field(default_factory=dict)
    """What each site said it had spent on the run, as far as its answers may be read; None: without privacy."""
    alone: Mapping[str, float | None] = field(default_factory=dict)
    """The same if nobody else's noise counts, where noise is shared."""
    left_out: tuple[str, ...] = ()
    """Sites whose updates the aggregation left out: they are proven as the others are."""
    excluded: tuple[str, ...] = ()
    """Members that were not asked, as the agreed policy has it."""
    revoked_since: tuple[str, ...] = ()
    """Sites whose key was revoked later. It was valid then. Whoever revoked it may know from when on it was not safe."""
    recomputed: bool = False
    """Whether the model was computed again from the sites' stored updates, and is the same, byte for byte."""
    not_recomputed: str = ""
    """Why the model was not computed again, if that was asked for."""
    unseen: tuple[str, ...] = ()
    """Sites whose answers this credential may not read: a site sees its own, the coordinator and an auditor see all."""
    lost: tuple[str, ...] = ()
    """Sites whose answers or tensors were altered, or are gone, since the round was committed. Nothing is proven of those."""
    memory_unseen: bool = False
    """This credential may not read what the coordinator remembers of the sites: a site may not."""
    findings: tuple[FindingProof, ...] = ()
    """What was asked about this round's model, or beside it."""
    revealed: tuple[str, ...] = ()
    """Of a sum of masked answers: whose reveals may be read."""
    regions: Mapping[str, str] = field(default_factory=dict)
    """Whose partial sums were proven; and why a region has none that counts, as the coordinator says. Empty: no regions."""
    shared_by: int | None = None
    """With how many honest members the noise is shared; None: it is each site's own."""
    contribution: str = ""
    """Of what each site is said to have added: "recomputed", or "signed" and why it was not; empty: nothing is said."""
