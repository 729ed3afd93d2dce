"""The card of synthetic rows: signed by the coordinator that drew them, beside the file."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from fedround.privacy.accounting import LARGEST_EPSILON
from fedround.synthetic.blueprint import Blueprint
from fedround.synthetic.clouds import Clouds
from fedround.values import LARGEST_WHOLE, Attempt, ColumnName, Digest, Name, Round, Signed, ToolVersion

NOT_PROMISED = (
    "what columns have in common beyond the pairs named here is not in the rows, nor how a number lies within its cell; "
    "noise has moved every share; a rule about rows may not hold; no model, test or publication may rest on them alone")

NOT_PROMISED_OF_CLOUDS = (
    "every label's rows spread alike around its middle, and evenly to all sides: what makes single rows sharp, or of several "
    "kinds, is not in them; noise has moved every number; no model, test or publication may rest on them alone")


class Synthetic(Signed):
    """Which released numbers rows were drawn from, how, and what they are good for. Everybody with the finding, the blueprint
    and the seed draws the same rows.
    """

    kind: ClassVar[str] = "synthetic"

    federation: Name
    run: Name
    round: Round
    attempt: Attempt
    plan: Digest
    """Of the question whose finding was read."""
    blueprint: Blueprint | Clouds
    """What the rows look like, in full: who has the card needs nothing else to draw them again."""
    pairs: Annotated[tuple[Annotated[tuple[ColumnName, ...], Field(min_length=2, max_length=2)], ...], Field(max_length=60)]
    """What columns have in common, and no more; none of clouds."""
    noise_std: Annotated[float, Field(ge=0, le=1e9)]
    """Of the noise in each cell of all sites' tables, in records; 0: none."""
    epsilon: Annotated[float, Field(ge=0, le=LARGEST_EPSILON)] | None
    """Of this question alone, at each site, with the federation's delta and unit. None: without a promise."""
    rows: Annotated[int, Field(ge=1, le=10 ** 7)]
    seed: Annotated[int, Field(ge=0, le=LARGEST_WHOLE)]
    file: Digest
    """SHA-256 of the file's bytes."""
    not_promised: Annotated[str, StringConstraints(max_length=1000)] = NOT_PROMISED
    tool_version: ToolVersion
