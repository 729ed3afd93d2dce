"""What a federation watches: public columns and edges, agreed before any site counts anything."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedround.privacy.spec import GaussianCounts, NoMechanism, NoPrivacy, Privacy, SitePrivacy
from fedround.statistics.base import AskedNoise
from fedround.statistics.group_counts import GroupCounts
from fedround.statistics.histogram import Histogram, Number
from fedround.statistics.levels import Level, Levels
from fedround.statistics.partitions import Partitions
from fedround.statistics.scores import Scores, Share
from fedround.values import ColumnName, Value

MOST_CELLS = 50
TRUTH = "truth, given the score"
"""What is compared beside the columns, where a model's calibration is watched."""


class Watched(Value):
    """A column, and the cells in which its values are counted: between edges, or by value."""

    column: ColumnName
    edges: Annotated[tuple[Number, ...], Field(max_length=MOST_CELLS)] = ()
    values: Annotated[tuple[Level, ...], Field(max_length=MOST_CELLS)] = ()

    @model_validator(mode="after")
    def _check_cells(self) -> Self:
        if bool(self.edges) == bool(self.values):
            raise ValueError(f"column '{self.column}' is watched by edges or by values: give one of them")
        self.counted(1.0)
        return self

    def counted(self, noise_std: float) -> Histogram | GroupCounts:
        """What sites are asked."""
        if self.edges:
            return Histogram(column=self.column, edges=self.edges, noise_std=noise_std)
        return GroupCounts(by=(Levels(column=self.column, values=self.values),), noise_std=noise_std)


class DriftWatch(Value):
    """[drift] of a federation file. Sites count the columns every so many rounds; each count is noised and charged."""

    columns: Annotated[tuple[Watched, ...], Field(min_length=1, max_length=32)]
    every: Annotated[int, Field(ge=1, le=10_000)] = 1
    """After every so many rounds of a campaign."""
    noise_std: AskedNoise = 20.0
    """Of the noise that each site adds to each count."""
    reference: Annotated[int, Field(ge=1, le=1000)] = 1
    """The first so many measurements together are what later ones are compared with."""
    false_alarms: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """How probable any false alarm is in all measurements of a run together, if nothing drifts."""
    measurements: Annotated[int, Field(ge=2, le=10_000)] | None = None
    """How many measurements `false_alarms` is promised for; None: as many as a campaign has."""
    partitions: Partitions | None = None
    """How rows are told apart. Then each measurement counts the rows of one partition, a week say, and only these pay;
    campaigns measure nothing, and a run of its own does ('fedround drift run', or a schedule). None: all rows are counted.
    """
    calibration: Annotated[tuple[Share, ...], Field(max_length=MOST_CELLS)] = ()
    """The edges between cells of scores, in which held-out rows are counted by what is true: whether a model's scores still
    mean what they meant (concept drift). Empty: no model is watched.
    """
    method: Literal["jensenshannon"] = "jensenshannon"
    """Evidently's word for how far two histograms are apart."""

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"a column is watched twice, or is called '{TRUTH}' beside a calibration, which is called so")
        if self.partitions is not None and self.measurements is None:
            raise ValueError("partitions go on for ever: say for how many measurements false_alarms is")
        if self.calibration and self.partitions is None:
            raise ValueError("calibration is one model's, and each round of a campaign has another model: agree on "
                             "partitions, and watch in the run whose model is in use ('fedround drift run --run NAME')")
        self._of_scores()
        return self

    @property
    def statistics(self) -> tuple[Histogram | GroupCounts | Scores, ...]:
        """What a measurement asks, one for each of `names`."""
        return *(watched.counted(self.noise_std) for watched in self.columns), *self._of_scores()

    @property
    def names(self) -> tuple[str, ...]:
        """What is compared: the columns, and `TRUTH`."""
        return *(watched.column for watched in self.columns), *([TRUTH] if self.calibration else [])

    def _of_scores(self) -> tuple[Scores, ...]:
        edges = self.calibration
        return (Scores(bins=len(edges) + 1, edges=edges, noise_std=self.noise_std),) if edges else ()

    def is_due(self, number: int) -> bool:
        """Whether the columns are counted after this round."""
        return self.partitions is None and number > 0 and number % self.every == 0

    def times(self, rounds: int) -> int:
        """How often they are counted in a campaign."""
        return 0 if self.partitions is not None else rounds // self.every

    def releases(self, rounds: int) -> tuple[GaussianCounts | NoMechanism, ...]:
        """All that a campaign releases for it."""
        return self.once * self.times(rounds)

    @property
    def once(self) -> tuple[GaussianCounts | NoMechanism, ...]:
        """What one measurement releases."""
        return tuple(one.mechanism for one in self.statistics)

    def objection_to(self, privacy: Privacy) -> str | None:
        """Why it cannot be agreed together with this privacy; None if it can."""
        if isinstance(privacy, SitePrivacy):
            return "under the unit 'site' no counts leave: agree on another unit, or watch nothing"
        if isinstance(privacy, NoPrivacy):
            return None if self.measurements is not None else "without privacy.rounds, say for how many measurements it is"
        if self.noise_std == 0:
            return "noise_std is 0, so the counts leave unprotected: raise it above 0"
        if self.partitions is None and self.times(privacy.rounds) == 0:
            return f"every {self.every} rounds is never in a campaign of {privacy.rounds}"
        return None

    def level(self, rounds: int) -> float:
        """The chance of a false alarm that one measurement may have (Bonferroni over the measurements)."""
        return self.false_alarms / max(1, (self.measurements or self.times(rounds)) - self.reference)
