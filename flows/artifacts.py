"""What the Prefect UI shows of a round and of a finding.

Of a round: a table, a plot of the run so far, and links to every site's flow run. Of a finding: its tables.
"""

from __future__ import annotations

from prefect.artifacts import acreate_markdown_artifact

from fedround.drift.judge import Drift
from fedround.records import Finding
from tasks.coordinator import Coordinator
from tasks.invite import Invitation
from tasks.report import records
from tasks.reporting import RoundRecord, render_finding, render_markdown
from tasks.reporting.drift import in_a_sentence, render_drift


async def show(coordinator: Coordinator, record: RoundRecord, invited: Invitation) -> None:
    """Publish the round's artifact; its versions are the rounds of the run."""
    links = "\n".join(f"* [{site}](/runs/flow-run/{run})" for site, run in sorted(invited.runs.items()))
    await acreate_markdown_artifact(
        key=f"run-{record.run}", description=f"Round {record.round} of run {record.run}",
        markdown=f"{render_markdown(records(coordinator, record.run))}\n\n### Flow runs of the sites\n\n{links}\n")


async def show_drift(run: str, drift: Drift) -> None:
    """Publish what a measurement of drift says. The artifact's versions are the measurements of the run."""
    await acreate_markdown_artifact(key=f"drift-{run}", description=f"Drift in run {run}: {in_a_sentence(drift)}",
                                    markdown=render_drift(drift))


async def show_finding(finding: Finding) -> None:
    """Publish the result of a measurement. The artifact's versions are the measurements of the run."""
    await acreate_markdown_artifact(
        key=f"measured-{finding.run}", description=f"Counted at the sites, round {finding.round} of run {finding.run}",
        markdown=render_finding(finding))
