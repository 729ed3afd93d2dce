"""Whatever language and width a terminal has, a command says all that it has to say."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.table import Table

from fedround_cli.terminal import Terminal, show_plainly

KEY = "ed25519:" + "0123456789abcdef" * 4
WORDS = "✓ ε ≤ 5 at δ = 1e-5 · 12 × 3 – “done” … Zürich ✗ Łódź 銀行 20\u202f000"


def printed(encoding: str, *objects: object) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show_plainly(stream)
    terminal = Terminal()
    terminal.file = stream
    terminal.print(*objects)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "cp1252", "koi8-r", "shift_jis", "utf-8", "utf-16"])
def test_a_sign_that_the_terminal_has_not_is_shown_by_a_plainer_one(encoding: str):
    said = printed(encoding, WORDS)
    assert "5 at" in said
    assert "1e-5" in said
    assert encoding not in ("utf-8", "utf-16") or said == WORDS + "\n"
    assert encoding != "ascii" or said == '+ e < 5 at d = 1e-5 . 12 x 3 - "done" . Z?rich x ??d? ?? 20 000\n'


@pytest.mark.parametrize("columns", [None, "40", "60", "80", "200"])
def test_a_table_loses_no_sign(columns: str | None, monkeypatch: pytest.MonkeyPatch):
    """In a pipe, a name stays in one piece: scripts look for it. A terminal that is too narrow for words gets lists."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    head = ("site", "key", "what it said of itself")
    rows = [("a-site-with-a-long-name" * 2, f"{KEY}{row}", "words and words and words") for row in range(3)]
    table = Table(*head, title="members")
    for row in rows:
        table.add_row(*row)
    lines = printed("utf-8", table).splitlines()
    cells = [line.split("│")[1:-1] for line in lines if line.startswith("│")]
    if columns in {"40", "60"}:
        beside = lines[1].index("a-site")
        values = [line[beside:].replace(" ", "") for line in lines[1:]]
        assert "".join(values) == "".join("".join(row).replace(" ", "") for row in rows)
    else:
        for column, wanted in enumerate(zip(*rows, strict=True)):
            shown = "".join(line[column].replace(" ", "") for line in cells)
            assert shown == "".join(wanted).replace(" ", "")
    if columns is None:
        assert sum(KEY in line for line in lines) == 3
    else:
        assert max(len(line) for line in lines) <= int(columns)


@pytest.mark.parametrize("columns", ["60", "80", "120", "200"])
def test_no_tag_and_no_digest_is_cut(columns: str, monkeypatch: pytest.MonkeyPatch):
    """`models list` had columns of four letters at 60: "spri", "ng/r", "ound"."""
    monkeypatch.setenv("COLUMNS", columns)
    head = ("version", "model", "Accuracy", "AUC", "Calibration error", "Log loss", "PR-AUC", "Recall at 20 %")
    table = Table(*head, title="models")
    for row in range(2):
        table.add_row(f"spring/round-0000{row}", f"{row}60cf712176d27e9", *[f"0.{row}57{n}" for n in range(6)])
    text = printed("utf-8", table)
    for row in range(2):
        for word in (f"spring/round-0000{row}", f"{row}60cf712176d27e9", *[f"0.{row}57{n}" for n in range(6)]):
            assert word in text
    for word in " ".join(head).split():
        assert word in text
    assert max(map(len, text.splitlines())) <= int(columns)


@pytest.mark.parametrize("surroundings", [
    {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["an encoding", "a locale"])
def test_help_is_shown_where_signs_are_few(surroundings: dict[str, str]):
    done = subprocess.run([sys.executable, "-m", "fedround_cli.main", "privacy", "plan", "--help"], capture_output=True,
                          env={**os.environ, **surroundings}, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"--rows" in done.stdout
