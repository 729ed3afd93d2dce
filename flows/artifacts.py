"""What the Prefect UI shows of a round and of a finding.

Of a round: a table, a plot of the run so far, and links to every site's flow run. Of a finding: its tables.
"""

from __future__ import annotations

from prefect.artifacts import acreate_markdown_artifact

from fedround.drift.judge import Drift
from fedround.records import Finding
from fedround.spoken import how_many
from tasks.coordinator import Coordinator
from tasks.invite import InvitedRuns
from tasks.report import records
from tasks.reporting import RoundRecord, render_finding, render_markdown
from tasks.reporting.drift import in_a_sentence, render_drift
from tasks.requests import TrainingRequest

_BAR = 20


async def show(coordinator: Coordinator, record: RoundRecord, invited: InvitedRuns) -> None:
    """Publish the round's artifact; its versions are the rounds of the run."""
    links = "\n".join(f"* [{site}](/runs/flow-run/{run})" for site, run in sorted(invited.runs.items()))
    await acreate_markdown_artifact(
        key=f"run-{record.run}", description=f"Round {record.round} of run {record.run}",
        markdown=f"{render_markdown(records(coordinator, record.run))}\n\n### Flow runs of the sites\n\n{links}\n")


async def show_campaign(coordinator: Coordinator, request: TrainingRequest, done: int) -> None:
    """Publish where a campaign stands, and what came of it. The artifact's versions are its rounds."""
    full, stands = min(_BAR, _BAR * done // request.rounds), f"{done} of {how_many(request.rounds, 'round')}"
    found = records(coordinator, request.run)
    said = render_markdown(found) if found and done >= request.rounds else ""
    pools = "\n".join(f"* [{site.name}](/work-pools/work-pool/{site.name})" for site in coordinator.federation.sites)
    rounds = (f"[Every round](/artifacts/key/run-{request.run}) · " if found else "") + "[all flow runs](/runs)"
    await acreate_markdown_artifact(
        key=f"campaign-{request.run}", description=f"Campaign {request.run}: {stands}",
        markdown=f"## {'█' * full}{'░' * (_BAR - full)} {stands}\n\n{rounds}\n\n{said}\n\n### Sites\n\n{pools}\n")


async def show_contribution(run: str, table: str) -> None:
    """Publish what the sites added to a run's models, and their points."""
    await acreate_markdown_artifact(key=f"contribution-{run}", description=f"What the sites added in run {run}",
                                    markdown=table)


async def show_drift(run: str, drift: Drift) -> None:
    """Publish what a measurement of drift says. The artifact's versions are the measurements of the run."""
    await acreate_markdown_artifact(key=f"drift-{run}", description=f"Drift in run {run}: {in_a_sentence(drift)}",
                                    markdown=render_drift(drift))


async def show_finding(finding: Finding) -> None:
    """Publish the result of a measurement. The artifact's versions are the measurements of the run."""
    await acreate_markdown_artifact(
        key=f"measured-{finding.run}", description=f"Counted at the sites, round {finding.round} of run {finding.run}",
        markdown=render_finding(finding))
