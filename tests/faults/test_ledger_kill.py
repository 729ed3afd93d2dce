"""Killed at any instant, the ledger is readable and counts every charge that returned."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fedround.privacy.ledger import Charge, charge, create, read
from fedround.privacy.spec import GaussianCounts


def charge_without_end(path: Path, said: int) -> None:
    """Charge round after round, and say each one's number after `charge` has returned."""
    ledger = read(path)
    for number in range(len(ledger.charges), 100_000):
        ledger = charge(ledger, Charge(
            federation="banks", run="spring", round=number, purpose="train", plan=f"{number:064x}",
            mechanisms=(GaussianCounts(noise_std=1e4),), delta_dp=1e-5, utc="2026-03-01T10:00:00Z"), 1.0)
        os.write(said, b"%d\n" % number)


def test_sigkill_loses_no_charge_that_returned(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    create(path, "loans")
    for charges in (1, 4, 9):
        heard, said = os.pipe()
        writer = os.fork()
        if writer == 0:
            try:
                charge_without_end(path, said)
            finally:
                os._exit(1)
        os.close(said)
        with open(heard, "rb") as pipe:
            returned = [int(pipe.readline()) for _ in range(charges)]     # and it goes on, nobody knows how far
            os.kill(writer, signal.SIGKILL)
            returned += map(int, pipe)
        assert os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) == -signal.SIGKILL
        rounds = [c.round for c in read(path).charges]
        assert rounds == list(range(len(rounds)))
        assert returned[-1] in rounds
        assert len(rounds) - 1 - returned[-1] <= 1      # at most the one in flight
