"""The benchmark of contracts runs, and compares the same verdicts."""

from __future__ import annotations

import sys

from benchmarks import contracts


def test_both_sides_say_the_same_of_the_rows(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["contracts", "--rows", "2000", "--parts", "2"])
    contracts.main()
    told = capsys.readouterr().out
    assert "the same verdicts: yes" in told
    assert "| contract check |" in told
