"""What is reported: only committed values. No record, no tensor, no text that a site or a person typed, no secret."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import Field

from fedround.values import Digest, Name, ToolVersion, Value


class SiteTold(Value):
    """What a commit says of a site."""

    site: Name
    outcome: Literal["used", "left out", "refused", "not admitted", "no answer"]
    influence: float | None = None
    epsilon: float | None = None
    size_bytes: int = 0


class RoundTold(Value):
    """One committed round."""

    federation: Name
    run: Name
    round: Annotated[int, Field(ge=1)]
    commit: Digest
    parent: Digest
    model: Digest
    base_model: Digest
    recipe_digest: Digest
    aggregation: str
    optimizer: str
    privacy: dict[str, str | float | int | None]
    sites: tuple[SiteTold, ...]
    metrics: dict[str, float]
    """As metrics.json in the model store has them."""
    ended_s: float
    """When it was registered, in seconds since 1970; there is no time in a commit."""
    seconds: float
    """How long it took."""
    tool_version: ToolVersion

    def numbers(self) -> dict[str, float]:
        """Everything that is a number of the whole round."""
        spent = [site.epsilon for site in self.sites if site.epsilon is not None]
        return {**self.metrics, **({"epsilon": max(spent)} if spent else {}), "round": float(self.round),
                "sites_used": float(sum(site.outcome == "used" for site in self.sites)),
                "uploaded_bytes": float(sum(site.size_bytes for site in self.sites))}


class Exporter(Protocol):
    """A place that is told of rounds."""

    def __call__(self, rounds: list[RoundTold]) -> int:
        """Tell it of all rounds of one run; returns how many were new to it. May raise anything."""
        ...
