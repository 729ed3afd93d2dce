"""What lies in a site's folder, what its operator is asked to approve, and what the operator's terminal shows."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.table import Table

from fedround_cli.terminal import Terminal, boxed
from site_workers import approval, audit, outbox
from site_workers.safe import Safe
from tests.fuzz.parser import Parser, as_file

_ABOUT = {"plan": "0" * 64, "site": "lund", "asked": "train"}
_ANSWER = json.dumps({"kind": "answer", "body": _ABOUT | {
    "update": {"payload": {"sha256": "1" * 64, "size_bytes": 3}, "mechanism": {"kind": "none"}}}}).encode()
_REFUSAL = json.dumps({"kind": "refusal", "body": _ABOUT | {"reason": "budget"}}).encode()
_RECIPE = b"""NAME = "r"
def build_model(): return None
def features(rows): return rows
def labels(rows): return rows
"""
_OBEYED = set("\x1b\x9b\r\x07\x00\x08\u202e\u2066\u2028\ufeff") | {chr(code) for code in range(0xd800, 0xe000)}


def _kept(path: Path) -> object:
    """All that anybody asks an outbox for."""
    safe = Safe(path.parents[5], bytes(32), False)
    found = [(entry.kind, entry.body, entry.payload, list(audit._objects(entry))) for entry in outbox.entries(safe)]
    return found, outbox.updates(safe, "spring", 9), outbox.refusals(safe, ("budget",)), list(outbox.unsent(safe))


def _log() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder, now = Path(name), datetime(2026, 1, 1, tzinfo=UTC)
        audit.begin(Safe(folder, bytes(32), False), "lund", now, folder / "ledger.jsonl")
        audit.record(folder, audit.Started(utc=audit.utc(now), policy="0" * 64, version="0.1.0"),
                     audit.Decided(utc=audit.utc(now), plan="1" * 64, decision="carry out"))
        return (folder / "audit.jsonl").read_bytes()


def _shown(data: bytes) -> None:
    """Text is refused by nobody: it is shown, and not obeyed."""
    text, file = data.decode("utf-8", "surrogateescape"), io.StringIO()
    console = Terminal()
    console.file = file
    table = Table("site", text, title=text)
    table.add_row(text, "x")
    for draw in (lambda: console.say("[bold]note[/] {}", text), lambda: console.print(f"[bold]{text}[/]"),
                 lambda: console.print(table), lambda: console.print(boxed(text, title=text))):
        draw()
    if obeyed := _OBEYED & set(file.getvalue()):
        raise AssertionError(f"the terminal is given {sorted(map(hex, map(ord, obeyed)))}")


SITES: Mapping[str, Parser] = {
    "outbox answer": Parser(partial(as_file, _kept, "outbox/spring/train/00001/01/answer.json"), _ANSWER),
    "outbox refusal": Parser(partial(as_file, _kept, "outbox/spring/train/00001/01-refusal-0001/answer.json"), _REFUSAL),
    "audit": Parser(partial(as_file, lambda path: audit.read(path.parent), "audit.jsonl"), _log()),
    "recipe": Parser(lambda data: approval.examine("recipe", data, "it"), _RECIPE),
    "terminal": Parser(_shown, "site 'lund' refused: [/x] \\[bold] é".encode()),
}
