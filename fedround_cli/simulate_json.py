"""`fedround simulate --json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedround.learning.tasks import Metrics
    from fedround.simulation.result import Result


def campaign(seed: int, result: Result) -> dict[str, Any]:
    """All that is known of one."""
    return {"seed": seed, "epsilon": result.epsilon, "epsilon_alone": result.epsilon_alone, "sent_bytes": result.sent_bytes,
            "notes": list(result.notes), "apart": result.apart,
            "mechanisms": {site: mechanism.model_dump() for site, mechanism in result.mechanisms.items()},
            "participation": _participation(result),
            "rounds": [{"round": one.number, "asked": one.asked, "unasked": list(one.unasked), "refused": list(one.refused),
                        "lost": list(one.lost), "ended_s": one.ended_s,
                        "left_out": list(one.left_out), "sent_bytes": one.sent_bytes,
                        "received_bytes": one.received_bytes,
                        "test": None if one.test is None else one.test.model_dump(exclude_none=True),
                        "validation": None if one.validation is None else one.validation.model_dump(exclude_none=True)}
                       for one in result.rounds],
            "at_sites": _dumped(result.at_sites), "personal_at_sites": _dumped(result.personal_at_sites)}


def _dumped(reached: Mapping[str, Metrics]) -> dict[str, Any]:
    return {name: found.model_dump(exclude_none=True) for name, found in reached.items()}


def _participation(result: Result) -> dict[str, Any]:
    """For scripts: by site, and what lies elsewhere than agreed; empty if all were asked in each round."""
    found = result.participation
    return {} if found is None else {"moved": found.moved, "by_asking": found.by_asking, "sites": {
        part.site: {"agreed": part.agreed, "share": part.weight, "asked": part.asked, "answered": part.answered,
                    "used": part.used} for part in found.parts}}
