"""What a promotion asks the sites first, started from the command line."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.coordinator import Coordinator


def compare_groups(coordinator: Coordinator, run: str, number: int) -> None:
    """Have the sites count decisions by group, unless nothing is watched or they were asked before."""
    from tasks.compare_groups import question

    if (request := question(coordinator, run, number)) is not None:
        from fedround_cli.campaign import show_campaign

        asyncio.run(show_campaign(coordinator, "federated-measurement", request.model_dump(mode="json", exclude_none=True)))
