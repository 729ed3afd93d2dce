"""What became of one update in the aggregation, as a value that a commit can hold."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """Whether a row entered the aggregate, and why not."""

    USED = "used"
    NOT_FINITE = "not_finite"    # NaN or infinity
    NORM = "norm"                # too long or too short for any honest update
    GATE = "gate"                # left out by the gate: it goes together with others, or against them, more than noise can
    FEW = "few"                  # of the model that its site chose there are fewer updates than the rule bears
    NOISE = "noise"              # left out by the gate: its noise is missing, or does not fit its declared law
