"""OpenTelemetry: a trace for the run, a span for every round, one JSON document a line. Needs the extra `traces`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import IO, Any

from infra.exporters.base import RoundTold


def to_traces(path: Path, rounds: list[RoundTold]) -> int:
    """path: of the file; spans of rounds that it has already are not written again."""
    known = _known(path)
    new = [told for told in rounds if told.commit not in known]
    with path.open("a") as file:
        for told in new:
            _tell(told, file)
    return len(new)


def _tell(told: RoundTold, file: IO[str]) -> None:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Named(IdGenerator):
        """The ids of a trace and its spans. The same run and round always give the same ids, whoever exports them."""

        def generate_trace_id(self) -> int:
            return int(hashlib.sha256(f"{told.federation}/{told.run}".encode()).hexdigest()[:32], 16)

        def generate_span_id(self) -> int:
            return int(told.commit[:16], 16)

    provider = TracerProvider(resource=Resource({"service.name": "fedround", "service.namespace": told.federation}),
                              id_generator=Named(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=file, formatter=_line)))
    attributes: dict[str, Any] = {
        "fedround.run": told.run, "fedround.round": told.round, "fedround.commit": told.commit, "fedround.model": told.model,
        **{f"fedround.{name}": value for name, value in told.numbers().items() if name != "round"}}
    begun_s = told.ended_s - told.seconds
    span = provider.get_tracer("fedround", told.tool_version).start_span(
        "federated-round", attributes=attributes, start_time=int(begun_s * 1e9))
    for site in told.sites:
        span.add_event(site.outcome, {"fedround.site": site.site}, timestamp=int(told.ended_s * 1e9))
    span.end(end_time=int(told.ended_s * 1e9))
    provider.shutdown()


def _line(span: Any) -> str:
    return json.dumps(json.loads(span.to_json())) + "\n"


def _known(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {json.loads(line)["attributes"]["fedround.commit"] for line in path.read_text().splitlines() if line}
