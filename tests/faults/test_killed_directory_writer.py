"""A writer that is killed half way leaves nothing that a reader can see, and nothing in the next writer's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from infra.stores import DirectoryStore

WRITER = """
import sys
from pathlib import Path
from infra.stores import DirectoryStore
DirectoryStore(Path(sys.argv[1])).put_once("sites/a/delta", Path(sys.argv[2]))
"""


def test_a_killed_writer_leaves_no_object(tmp_path: Path) -> None:
    store, pipe = DirectoryStore(tmp_path / "store"), tmp_path / "body"
    store.put_once("sites/a/plan", b"1")
    os.mkfifo(pipe)                                  # a body whose end never comes: the writer waits in the middle
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "store"), str(pipe)])
    with pipe.open("wb") as body:
        body.write(b"x" * 3_000_000)
        body.flush()
        unfinished = list((tmp_path / "store" / "+unfinished").iterdir())
        assert unfinished, "the writer was expected to be in the middle of its work"
        os.kill(writer.pid, signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
    assert store.head("sites/a/delta") is None
    assert list(store.list("")) == ["sites/a/plan"]
    assert store.put_once("sites/a/delta", b"whole") is True
    assert store.get("sites/a/delta") == b"whole"
