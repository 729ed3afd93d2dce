"""What two members do together, step by step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

LabelEpsilon = Annotated[float, Field(ge=0.01, le=20)]
"""What one label pays when it is told with chance e^epsilon / (1 + e^epsilon), and the other one is told otherwise."""

Levels = Annotated[int, Field(ge=2, le=256)]
"""How many values a score can have: it tells at most log2 of them, in bits, about one row."""

Step = Literal["channel", "blinded", "matched", "labels", "scores"]
TRAINING: tuple[Step, ...] = ("channel", "blinded", "matched", "labels", "scores")
"""Which customers both have; then labels from the one, and scores from the other."""
SCORING: tuple[Step, ...] = ("channel", "blinded", "matched", "scores")
"""The same of other customers, with what was learnt before."""

Gives = Literal["ids", "labels", "scores"]
"""What a site lets one peer know: which customers both have, randomised labels of these, scores of these."""

Learner = Literal["trees", "network"]
"""What gives scores."""
