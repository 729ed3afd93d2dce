"""Killed at any instant, the ledger is readable and counts every charge that returned."""

import signal
import subprocess
import sys

from fedround.privacy.ledger import create, read

WRITER = """
import sys
from pathlib import Path
from fedround.privacy.ledger import Charge, charge, read
from fedround.privacy.spec import GaussianCounts
from fedround.types import Purpose

ledger = read(Path(sys.argv[1]))
for number in range(len(ledger.charges), 100_000):
    ledger = charge(ledger, Charge(
        federation="banks", run="spring", round=number, purpose=Purpose.TRAIN, plan=f"{number:064x}",
        mechanisms=(GaussianCounts(noise_std=1e4),), delta_dp=1e-5, utc="2026-03-01T10:00:00Z"), 1.0)
    sys.stdout.write(f"{number}\\n")        # said only after charge returned
    sys.stdout.flush()
"""


def test_sigkill_loses_no_charge_that_returned(tmp_path):
    path = tmp_path / "ledger.jsonl"
    create(path, "loans")
    for charges in (1, 30, 65):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        try:
            first = b"".join(writer.stdout.readline() for _ in range(charges))      # and it goes on, nobody knows how far
        finally:
            writer.send_signal(signal.SIGKILL)
            rest, _ = writer.communicate()
        returned = [int(line) for line in (first + rest).split(b"\n")[:-1]]
        rounds = [c.round for c in read(path).charges]
        assert rounds == list(range(len(rounds)))
        assert returned
        assert returned[-1] in rounds
        assert len(rounds) - 1 - returned[-1] <= 1      # at most the one in flight
