"""What all questions of an analyst have in common: groups, a filter, and how much noise, or which error is wished for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from fedround.analytics import readings
from fedround.analytics.estimates import Table
from fedround.errors import ContractError
from fedround.privacy.spec import QUIETEST
from fedround.statistics import Release, Statistic
from fedround.statistics.base import LOUDEST, AskedNoise
from fedround.statistics.grouped import By
from fedround.statistics.where import Where
from fedround.values import Value


class Asked(Value):
    """What all queries have in common."""

    ungrouped: ClassVar[str | None] = None
    """Why groups cannot be asked for; None: they can."""
    by: By = ()
    where: Where = ()
    noise_std: AskedNoise | None = None
    """Of the noise at each site, beside one record's longest contribution (`NoisedSum.noise_std`)."""
    error: Annotated[float, Field(gt=0, le=1e15)] | None = None
    """The half-width that all sites' answer may have, in the answer's own unit: the most noise that keeps it is taken."""

    @model_validator(mode="after")
    def _check_noise(self) -> Self:
        if self.noise_std is not None and self.error is not None:
            raise ValueError("give noise_std or error, not both")
        return self

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.by and self.ungrouped is not None:
            raise ValueError(self.ungrouped)
        return self

    def statistics(self, noise_std: float) -> tuple[Statistic, ...]:
        """What sites are asked for."""
        raise NotImplementedError

    def read(self, releases: Sequence[Release]) -> tuple[Table, ...]:
        """The answer, from what was released for `statistics`, in their order."""
        return tuple(table for release in releases for table in readings.read(release))

    def expected_error(self, noise_std: float, sites: int, records: int | None) -> float | None:
        """The half-width (95 %) of all sites' answer, at most, if so many records are in its smallest group; None: not known
        beforehand.
        """
        return None

    def noise(self, sites: int, records: int | None, default: float) -> float:
        """The noise to ask for. Raises ContractError if the error that is wished for cannot be promised beforehand."""
        if self.error is None:
            return default if self.noise_std is None else self.noise_std
        alone = self.expected_error(1.0, sites, records)
        if alone is None:
            raise ContractError(f"{self.name}: this error cannot be promised beforehand: say of how many records the "
                                "smallest group is (--records), or give the noise")
        if (wished := self.error / alone) < QUIETEST:
            raise ContractError(f"{self.name}: an error of {self.error:g} needs noise below {QUIETEST:g}, which no site has")
        return min(wished, float(LOUDEST))

    @property
    def name(self) -> str:
        """Of the question, for messages."""
        return str(getattr(self, "what", ""))
