"""A run's contributions added up, and points for them by the policy that the federation agreed on.

The contribution to a run is the sum over its rounds: what a site added on the way to the last model (Wang et al. 2020,
arXiv:2009.06192). Noise of different rounds is independent, so variances add up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from fedround.contribution.said import WIDTH, Contribution
from fedround.records import Commit, Plan
from fedround.standing import Incentive
from fedround.values import MAX_NUMBER, Name, Value

Rounds = Annotated[int, Field(ge=0, le=MAX_NUMBER)]


class Account(Value):
    """One site over a run, up to its last round with a contribution."""

    site: Name
    value: float
    """The sum of its contributions."""
    low: float | None
    """The interval of the sum, for noise and drawn orders, in 95 of 100 cases; None: the law of the noise is not known."""
    high: float | None
    asked: Rounds
    """In how many rounds."""
    came: Rounds
    """In how many of them its update came in time and was admitted, whatever the aggregation made of it."""
    points: Annotated[float, Field(ge=0)] | None
    """None: no incentive is agreed."""

    @property
    def reliability(self) -> float:
        """The share of rounds in which it came."""
        return self.came / max(1, self.asked)


def accounts(rounds: Sequence[tuple[Plan, Commit]], told: Sequence[Contribution], incentive: Incentive | None) -> tuple[
        Account, ...]:
    """Every site that was asked in these rounds, by name. told: the contributions that are known, of all or some of them."""
    asked = {site: sum(site in plan.cohort for plan, _ in rounds) for plan, _ in rounds for site in plan.cohort}
    came = {site: sum(any(update.site == site for update in commit.updates) for _, commit in rounds) for site in asked}
    own = {site: [one for said in told for one in said.sites if one.site == site] for site in asked}
    value = {site: math.fsum(one.value for one in shares) for site, shares in own.items()}
    points = {} if incentive is None else payout(incentive, value, {site: came[site] / asked[site] for site in asked})

    def account(site: str) -> Account:
        known = all(one.noise_std is not None for one in own[site])
        half = WIDTH * math.sqrt(math.fsum((one.noise_std or 0.0) ** 2 + one.sampling_std ** 2 for one in own[site]))
        return Account(site=site, value=value[site], low=value[site] - half if known else None,
                       high=value[site] + half if known else None, asked=asked[site], came=came[site],
                       points=points.get(site))

    return tuple(account(site) for site in sorted(asked))


def payout(incentive: Incentive, value: Mapping[str, float], reliability: Mapping[str, float]) -> dict[str, float]:
    """The points of each site: the floor for whoever ever came, the rest in proportion to contribution times reliability.

    A contribution below zero counts as zero. If nobody added anything, those who came share alike. They add up to the points
    of the incentive, unless nobody came.
    """
    came = [site for site in sorted(reliability) if reliability[site] > 0]
    earned = {site: max(value[site], 0.0) * reliability[site] for site in came}
    total = math.fsum(earned.values())
    left = 1 - incentive.floor * len(came)
    shares = {site: incentive.floor + left * (earned[site] / total if total > 0 else 1 / len(came)) for site in came}
    return {site: incentive.points * shares.get(site, 0.0) for site in sorted(reliability)}
