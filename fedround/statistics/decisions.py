"""What a model decides about rows that a site holds out, by group: the groups of one attribute, the truth, the decision.

N records, G groups.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fedround.privacy.entries import Rows
from fedround.privacy.spec import Mechanism
from fedround.spoken import how_many
from fedround.statistics.base import AskedNoise, Axis, Evidence, Float64, Int64
from fedround.statistics.counts import Counts
from fedround.statistics.histogram import Number, Ranges
from fedround.statistics.levels import Levels
from fedround.statistics.scores import Share, one_each
from fedround.values import Digest, Value


class Bands(Ranges):
    """Ranges of a column of numbers that make groups. Records without a number are one group more."""

    edges: Annotated[tuple[Number, ...], Field(min_length=1, max_length=50)]


class Thresholds(Value):
    """A threshold of its own for each group of one attribute: a mitigation. Who decides must know the attribute."""

    of: Levels | Bands
    at: Annotated[tuple[Share, ...], Field(min_length=2, max_length=1001)]
    """In the order of the groups; the last is for all other records."""

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if len(self.at) != len(self.of.labels):
            raise ValueError(f"'{self.of.column}' has {len(self.of.labels)} groups, all others included, and {len(self.at)} "
                             "thresholds")
        return self


class Decisions(Counts):
    """Held-out records by group, truth (label 0, label 1) and decision (no, yes): yes if the chance of label 1 reaches
    `threshold`, or the record's own group's.

    For tasks with two labels. The model is named by its digest, and a plan that names it is about that model.
    """

    word: ClassVar[str] = "decisions"
    in_words: ClassVar[str] = "counts of decisions by group"
    rows: ClassVar[Rows] = "validation"
    reads_model: ClassVar[bool] = True
    kind: Literal["decisions"] = "decisions"
    model: Digest
    of: Levels | Bands
    threshold: Share
    own: Thresholds | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(group, truth, decision)."""
        return len(self.of.labels), 2, 2

    @property
    def axes(self) -> tuple[Axis, ...]:
        """As `Counts`."""
        return Axis(self.of.column, self.of.labels), Axis("true", ("no", "yes")), Axis("decision", ("no", "yes"))

    @property
    def columns(self) -> tuple[str, ...]:
        """As `Counts`."""
        own = () if self.own is None else (self.own.of.column,)
        return tuple(dict.fromkeys((self.of.column, *own)))

    def cells(self, evidence: Evidence) -> Int64:
        """As `Counts`."""
        chance_N, truth_N = one_each(evidence.scores())
        group_N = self.of.group(evidence.held_out(self.of.column))
        yes_N = chance_N >= self._limits(evidence)
        flat_N = np.ravel_multi_index((group_N, truth_N, yes_N.astype(np.int64)), self.shape)
        return np.bincount(flat_N, minlength=4 * self.shape[0]).reshape(self.shape)

    def _limits(self, evidence: Evidence) -> float | Float64:
        if self.own is None:
            return self.threshold
        return np.array(self.own.at)[self.own.of.group(evidence.held_out(self.own.of.column))]


class Watched(Value):
    """An attribute that a federation watches. It need not be a feature of the model."""

    of: Levels | Bands
    words: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=40)], ...], Field(max_length=1000)] = ()
    """What the groups are called in reports, in their order; empty: as `of` says."""
    noise_std: AskedNoise
    """Of the noise that every site adds to each count."""

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        if self.words and len(self.words) != len(self.of.labels) - 1:
            raise ValueError(f"'{self.of.column}' has {how_many(len(self.of.labels) - 1, 'group')} and "
                             f"{how_many(len(self.words), 'word')} for them")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """What each group is called, and last all other records."""
        return (*self.words, self.of.labels[-1]) if self.words else self.of.labels


class Groups(Value):
    """[groups] of a federation file: between which groups the model's decisions are compared before it is promoted.

    Every site counts its held-out rows once for each attribute, and its ledger pays for each.
    """

    threshold: Share
    """The chance of label 1 from which on the model's answer is yes."""
    own: Thresholds | None = None
    """Groups that have a threshold of their own instead; None: one for all."""
    watched: Annotated[tuple[Watched, ...], Field(min_length=1, max_length=10)]
    promotions: Annotated[int, Field(ge=1, le=100)] = 1
    """How many models of one campaign may be compared: for so many the campaign sets privacy aside."""
    smallest: Annotated[int, Field(ge=1, le=1_000_000)] = 30
    """Of fewer records nothing is said."""

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if len({one.of.column for one in self.watched}) < len(self.watched):
            raise ValueError("an attribute is watched twice")
        return self

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """What one comparison releases."""
        return tuple(asked.mechanism for asked in self.about("0" * 64))

    def about(self, model: Digest) -> tuple[Decisions, ...]:
        """What sites are asked about this model."""
        return tuple(Decisions(noise_std=one.noise_std, model=model, of=one.of, threshold=self.threshold, own=self.own)
                     for one in self.watched)
