"""What the coordinator says of contributions: a document beside the commit, written once."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedround.aggregation.verdict import Verdict
from fedround.contribution.split import Split
from fedround.errors import ChainError
from fedround.learning.tasks import MetricName
from fedround.records import Commit
from fedround.values import Digest, Name, Round, Signed, ToolVersion, Value

Worth = Annotated[float, Field(ge=0, le=1)]
Added = Annotated[float, Field(ge=-1, le=1)]
Spread = Annotated[float, Field(ge=0, le=2)]

WIDTH = 1.96
"""Half-width of an interval in standard deviations: it holds in 95 of 100 cases."""

_ROUNDING = 1e-9


class SiteShare(Value):
    """What one site's update added to what the round's model is worth."""

    site: Name
    value: Added
    """Its Shapley value; below zero: the model would be worth more without it. Exactly 0 for an update that was left out."""
    noise_std: Spread | None
    """The standard deviation that the noise in the updates alone gives it; None: the law of the noise is not known."""
    sampling_std: Spread
    """What drawing orders adds to that; 0 where every coalition was valued."""
    low: Annotated[float, Field(ge=-9, le=9)] | None
    """An interval around it for noise and drawing together, in 95 of 100 cases. None without `noise_std`."""
    high: Annotated[float, Field(ge=-9, le=9)] | None


class Contribution(Signed):
    """How the worth of a round's model is split between the sites whose updates made it.

    It is a function of what is committed and of the coordinator's public test set. It feeds no weight.
    """

    kind: ClassVar[str] = "contribution"

    federation: Name
    run: Name
    round: Round
    commit: Digest
    metric: MetricName
    test_set: Digest
    """Of the encoded rows on which models were judged (`Examples.digest`)."""
    nobody: Worth
    """What the server's step is worth without any update: the base model and, with momentum, where that drifts by itself."""
    everybody: Worth
    """What the round's model is worth."""
    coalitions: Annotated[int, Field(ge=1, le=10 ** 7)]
    method: Literal["exact", "sampled"]
    draws: Annotated[int, Field(ge=0, le=10 ** 6)]
    """Of noise, each with its negative."""
    sites: Annotated[tuple[SiteShare, ...], Field(min_length=1, max_length=1000)]
    """Of every update that was committed, by name."""
    apart: Annotated[int, Field(ge=0, le=10 ** 6)] | None
    """How many of all pairs of sites with a part in the model differ by more than noise explains, each pair judged alone."""
    pairs: Annotated[int, Field(ge=0, le=10 ** 6)]
    tool_version: ToolVersion


def shares_of(found: Split, commit: Commit, draws: int) -> tuple[SiteShare, ...]:
    """One for every committed update."""
    place = {site: n for n, site in enumerate(found.sites)}
    wide = _wide(draws)

    def one(site: str) -> SiteShare:
        if site not in place:
            return SiteShare(site=site, value=0.0, noise_std=0.0, sampling_std=0.0, low=0.0, high=0.0)
        value, sampling = float(found.share_N[place[site]]), float(found.sampling_N[place[site]])
        if found.noise_NN is None:
            return SiteShare(site=site, value=value, noise_std=None, sampling_std=sampling, low=None, high=None)
        noise = float(found.noise_NN[place[site], place[site]])
        half = ((wide * noise) ** 2 + (WIDTH * sampling) ** 2) ** 0.5
        return SiteShare(site=site, value=value, noise_std=noise, sampling_std=sampling, low=value - half, high=value + half)

    return tuple(one(update.site) for update in commit.updates)


def apart(found: Split, draws: int) -> int | None:
    """How many pairs of sites differ by more than the noise explains."""
    if found.noise_NN is None:
        return None
    far_NN = np.abs(found.share_N[:, None] - found.share_N) > _wide(draws) * found.noise_NN
    return int(np.triu(far_NN, 1).sum())


def check(said: Contribution, commit: Commit, digest: Digest, source: str) -> None:
    """What must hold whatever the rows are. Raises ChainError."""
    if (said.federation, said.run, said.round, said.commit) != (commit.federation, commit.run, commit.round, digest):
        raise ChainError(f"{source}: is about another commit")
    if tuple(one.site for one in said.sites) != tuple(update.site for update in commit.updates):
        raise ChainError(f"{source}: does not name every committed update once")
    for one, update in zip(said.sites, commit.updates, strict=True):
        if update.verdict is not Verdict.USED and one.value != 0:
            raise ChainError(f"{source}: gives '{one.site}' a part in a model that it was left out of")
    if abs(math.fsum(one.value for one in said.sites) - (said.everybody - said.nobody)) > _ROUNDING:
        raise ChainError(f"{source}: its parts do not add up to what the model gained")


def _wide(draws: int) -> float:
    """Half-width of an interval in standard deviations that were found from so many draws (Student's t)."""
    from scipy.stats import t

    return float(t.ppf(0.975, draws))
