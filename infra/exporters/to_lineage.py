"""OpenLineage: a file with one event for every round, from its base model and the sites' updates to its model. Needs the
extra `lineage`.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

from infra.exporters.base import RoundTold

_PRODUCER = "https://fedround.invalid/exporters/lineage"
_SPACE = uuid.UUID("6f1c1a3e-0c83-5d5c-9b2a-3f4f8e1d7a10")


def to_lineage(path: Path, rounds: list[RoundTold]) -> int:
    """path: of the file; events of rounds that it has already are not written again."""
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.transport.file import FileConfig, FileTransport

    known = _known(path)
    new = [told for told in rounds if _id(told) not in known]
    client = OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=str(path), append=True)))
    for told in new:
        space = f"fedround://{told.federation}"
        updates = [InputDataset(f"{space}/sites/{site.site}", f"{told.run}/{told.round}/update")
                   for site in told.sites if site.outcome == "used"]
        client.emit(RunEvent(
            eventType=RunState.COMPLETE, eventTime=datetime.fromtimestamp(told.ended_s, UTC).isoformat(),
            run=Run(runId=_id(told)), job=Job(namespace=space, name=told.run), producer=_PRODUCER,
            inputs=[InputDataset(space, f"models/{told.base_model}"), *updates],
            outputs=[OutputDataset(space, f"models/{told.model}")]))
    return len(new)


def _id(told: RoundTold) -> str:
    return str(uuid.uuid5(_SPACE, told.commit))


def _known(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {json.loads(line)["run"]["runId"] for line in path.read_text().splitlines() if line}
