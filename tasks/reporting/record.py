"""What a report is made of. Everything in it may be shown to every member: no record, no tensor, no secret."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from fedround.errors import ContractError

Outcome = Literal["updated", "left_out", "refused", "rejected", "missing", "excluded"]


@dataclass(frozen=True)
class SiteRow:
    """What one site did in one round. None: not known, or does not apply."""

    site: str
    outcome: Outcome
    """updated: it is in the aggregate; left_out: the aggregation found fault with its numbers; refused: the site said no;
    rejected: the coordinator did; missing: no answer; excluded: it was not asked, by the reputation policy."""
    note: str
    """The reason, as the site or the coordinator worded it. Shown, never trusted."""
    weight: float
    checks: tuple[str, ...] = ()
    """The ids of the data contract's checks that failed."""
    verdict: str | None = None
    """What the aggregation made of its update: "used", or why it left it out."""
    norm: float | None = None
    """L2 norm of the update, or with a history of the site's moving average."""
    distance: float | None = None
    """L2 distance of that from the aggregate."""
    influence: float | None = None
    """The site's share of the aggregate."""
    epsilon: float | None = None
    """Spent on this run so far."""
    local_auc: float | None = None
    """AUC of this round's model on the site's own validation rows, from noised counts; known a round later."""
    local_accuracy: float | None = None
    """Its accuracy there, where the recipe has more than two classes."""
    local_rows: float | None = None
    """How many validation rows that is, by the same noised counts."""

    def __post_init__(self) -> None:
        _check_finite(self, f"site '{self.site}'")


@dataclass(frozen=True)
class RoundRecord:
    """One committed round."""

    federation: str
    run: str
    round: int
    model: str
    """SHA-256 of the model that the round made."""
    parent: str | None
    """SHA-256 of the model that it started from."""
    aggregation: str
    optimizer: str
    privacy: str
    """The whole promise in a sentence: unit, neighbouring relation, epsilon, delta and accountant."""
    quorum: int
    seconds: float
    metrics: Mapping[str, float]
    """On the public test set: 'auc', 'recall_at_20_fpr', 'accuracy'; others are shown under their own names."""
    sites: tuple[SiteRow, ...]
    epsilon_limit: float | None = None
    """What each site may spend on this run; None without differential privacy."""
    reputation: str = "off"
    """When a member is not asked for a while."""
    note: str = ""
    """Why the gate did less than it was asked to."""
    near: tuple[str, ...] = ()
    """The sites whose updates were compared, in the order of `distances`."""
    distances: tuple[tuple[float, ...], ...] = ()
    """L2 distance between every two of these updates."""
    training: str = ""
    """What every site did."""
    compression: str = "none"
    """How updates were made smaller before they left."""
    uploaded_bytes: int = 0
    """All updates of the round together."""
    estimated: bool = False
    """Whether these distances are estimates, from a sample of the model."""

    def __post_init__(self) -> None:
        _check_finite(self, f"round {self.round}")
        if not all(math.isfinite(distance) for row in self.distances for distance in row):
            raise ContractError(f"report of round {self.round}: a distance is not a finite number")
        if [len(row) for row in self.distances] != [len(self.near)] * len(self.near):
            raise ContractError(f"report of round {self.round}: expected the distances of {len(self.near)} sites")
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ContractError(f"report of round {self.round}: metric '{name}' is not a finite number")

    @property
    def updates(self) -> int:
        """How many sites are in the aggregate."""
        return sum(row.outcome == "updated" for row in self.sites)

    @property
    def largest_epsilon(self) -> float | None:
        """The most that any site has spent, or None if no site told."""
        return max((row.epsilon for row in self.sites if row.epsilon is not None), default=None)


def check_campaign(records: Sequence[RoundRecord]) -> RoundRecord:
    """The last of `records`. Raises ContractError unless they are rounds of one run, in order."""
    if not records:
        raise ContractError("a report needs at least one round")
    if len({(record.federation, record.run) for record in records}) > 1:
        raise ContractError("a report is about one run of one federation; these records are of several")
    numbers = [record.round for record in records]
    if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
        raise ContractError(f"the rounds of a report must ascend, got {numbers}")
    return records[-1]


def _check_finite(record: SiteRow | RoundRecord, source: str) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ContractError(f"report of {source}: {field.name} is not a finite number; leave it out (None) instead")
