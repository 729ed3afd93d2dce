"""Bounds of a policy on what was looked for in a model."""

from __future__ import annotations

import pytest

from fedround.learning.triggers import Trigger
from fedround.privacy.spec import NoPrivacy
from fedround.promotion import ModelEvidence, Performance, Policy, judge

QUICK = Performance(size_bytes=100, p95_ms=1.0, public=None)


@pytest.mark.parametrize(("share", "passed"), [(None, False), (0.61, False), (0.6, True), (0.0, True)])
def test_a_mark_that_turns_too_many_rows_and_one_that_was_not_looked_for_are_refused(share, passed):
    found = None if share is None else Trigger(share=share, label=1, features=(3, 7), values=(1.0, 1.0), rows=100)
    evidence = ModelEvidence(privacy=NoPrivacy(), epsilon=None, float32=QUICK, int8=QUICK, difference=0.0,
                             checked_rows=10_000, trigger=found)
    (judged,) = judge(Policy(max_trigger=0.6), evidence, None)
    assert judged.passed is passed
    assert judged.what == "share of public rows that 4 features turn to one label"
    assert judge(Policy(), evidence, None) == ()
