"""The harness of the fuzz tests fails where it must."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.fuzz.apart import apart


@pytest.mark.parametrize(("name", "killed"), [("spins", "SIGXCPU"), ("crashes", "SIGKILL")])
def test_an_input_without_end_and_one_that_kills_are_named(name: str, killed: str):
    def judge(path: Path) -> bool:
        while path.name == "spins":
            pass
        if path.name == "crashes":
            os.kill(os.getpid(), signal.SIGKILL)
        if path.name == "raises":
            raise ZeroDivisionError
        return path.name == "refused"

    said = apart(judge, [Path(one) for one in ("refused", "read", "raises", name, "behind")], most_cpu_s=1)
    assert list(said) == ["refused", "read", "raises", name]
    assert (said["refused"], said["read"], said[name]) == ("True", "False", f"killed by {killed}")
    assert "ZeroDivisionError" in said["raises"]
