"""fedround status: what runs, who serves, and what the round in progress waits for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedround.errors import FedroundError
from fedround.spoken import how_many
from fedround_cli.folders import DEFAULT_COORDINATOR, DEFAULT_HOME, CoordinatorFolder, Home
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from flows.members import Member
    from tasks.progress import Progress

_IDLE = ("done", "failed")


@command
def status(home: Home = DEFAULT_HOME, folder: CoordinatorFolder = DEFAULT_COORDINATOR, as_json: AsJson = False) -> None:
    """Show the servers and processes of this machine, every member with its last sign of life, and what the round in progress
    waits for, and until when.

    Members are shown where the coordinator's folder is.
    """
    from dataclasses import asdict

    from infra.stack import LocalStack
    from infra.stack.processes import recorded
    from tasks.progress import read_progress

    info, progress, processes = LocalStack.find(home), read_progress(folder), recorded(home)
    members, problem = _members(folder)
    if as_json:
        print_json({"stack": None if info is None else asdict(info), "processes": processes,
                    "excluded": () if progress is None else progress.excluded,
                    "members": [asdict(member) for member in members], "problem": problem or None,
                    "progress": None if progress is None else progress.model_dump(mode="json")})
        return
    if progress is not None:
        _show_progress(progress, datetime.now(UTC))
    if problem:
        out.say("[yellow]members[/] {}", problem)
    if members:
        _show_members(members, datetime.now(UTC))
    if info is None:
        out.say("no servers run from {}; start them with [bold]fedround up[/] or [bold]fedround demo --keep[/]", home)
    else:
        _show_parts({**info.pids, **processes}, {"prefect": info.ui_url, "s3": info.s3_endpoint})


def _members(folder: Path) -> tuple[list[Member], str]:
    """The federation's members, or in words why they cannot be shown; neither where no coordinator's folder is."""
    import asyncio

    if not (folder / "coordinator.toml").exists():
        return [], ""
    try:
        from flows.service import look_at_members

        return asyncio.run(look_at_members(folder)), ""
    except FedroundError as error:
        return [], str(error)


def _show_progress(progress: Progress, now: datetime) -> None:
    about = f"round {progress.round} of run '{progress.run}'"
    if progress.stage in _IDLE:
        out.say("no round is in progress; the last was {}: {}{}", about, progress.stage,
                f": {progress.problem}" if progress.problem else "")
    elif progress.waiting and progress.until is not None:
        late = progress.until < now
        out.say("[bold]{}[/]: {}; {} of {} have answered; waits for {} {} {} UTC", about, progress.stage,
                progress.cohort - len(progress.waiting), how_many(progress.cohort, "site"), ", ".join(progress.waiting),
                "and should have gone on at" if late else "until", f"{progress.until:%H:%M:%S}")
    else:
        out.say("[bold]{}[/]: {}", about, progress.stage)
    for site in progress.excluded:
        out.say("[yellow]not asked[/]: {}", site)


def _show_members(members: list[Member], now: datetime) -> None:
    from rich.table import Table

    table = Table("member", "serves", "last sign of life")
    for member in members:
        table.add_row(member.name, "yes" if member.serves else "no", _ago(member.seen, now))
    out.print(table)


def _ago(seen: datetime | None, now: datetime) -> str:
    if seen is None:
        return "never"
    seconds = max(0, round((now - seen).total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}s ago"
    return f"{seconds} s ago"


def _show_parts(pids: dict[str, int], where: dict[str, str]) -> None:
    from rich.table import Table

    table = Table("part", "where", "process")
    for name, pid in pids.items():
        table.add_row(name, where.get(name, ""), str(pid))
    out.print(table)
