"""A member that declares more rows than it was agreed to have may add less noise, and counts no more than was agreed.

Weights are agreed when a site is enrolled. But a lower sampling rate calls for less noise, admission has no other measure of
it, and mixing measures inner products in units of noise.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from fedround.aggregation.engine import ArrayNumbers, Row, aggregate
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.spec import default_aggregation
from fedround.agreement import Agreement
from fedround.learning.law import law_of
from fedround.privacy.spec import Mechanism
from fedround.rounds.campaign import mechanism_for, misfit
from fedround_examples.banks.split import STORY

D, MORE = 2000, 10
ROWS = (3200, 3200, 3200, 3200, 1000, 1000, 1000, 1000, 320, 320, 320, 320)
WEIGHTS = [float(rows) for rows in ROWS]


@functools.cache
def agreement() -> Agreement:
    return STORY.settings()


@functools.cache
def mechanism(rows: int) -> Mechanism:
    agreed = agreement()
    return mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, rows)


def law(rows: int) -> NoiseLaw:
    found = law_of(mechanism(rows), agreement().training)
    assert found is not None
    return found


@pytest.mark.parametrize("rows", [320, 3200])
def test_admission_cannot_tell_more_rows_from_a_larger_site(rows: int) -> None:
    assert misfit(agreement().terms(9), mechanism(MORE * rows)) is None
    assert law(MORE * rows).std < law(rows).std / 1.5


def influence(liars: tuple[int, ...], times: int) -> float:
    """What these sites are of the result, over eight rounds, when they push one way with just the noise that they declare."""
    how, found = default_aggregation(9, noise_is_declared=True, rounds=20), []
    push_D = np.random.default_rng(3).standard_normal(D)
    push_D /= np.linalg.norm(push_D)
    for seed in range(8):
        generator, rows = np.random.default_rng(seed), []
        for place, size in enumerate(ROWS):
            own = law(size * times if place in liars else size)
            x_D = own.std * generator.standard_normal(D) + (push_D if place in liars else np.eye(1, D)[0])
            rows.append(Row(f"site-{place:02d}", WEIGHTS[place], ArrayNumbers(x_D.astype(np.float32)), own))
        standings = aggregate(rows, how, D).standings
        found.append(sum(standings[f"site-{place:02d}"].influence for place in liars))
    return float(np.mean(found))


@pytest.mark.parametrize("liars", [(4, 5), (10, 11)], ids=["two middle sites", "two small ones"])
def test_who_declares_more_rows_than_were_agreed_on_counts_less(liars: tuple[int, ...]) -> None:
    """Measured in units of their own noise, they counted more."""
    assert influence(liars, MORE) < influence(liars, 1)


def test_the_largest_sites_never_count_more_than_was_agreed_whatever_they_declare() -> None:
    """Really less noise keeps a row in more neighbourhoods, as it would at a larger site. The agreed weight bounds it."""
    assert influence((0, 1), MORE) < 0.8 * (WEIGHTS[0] + WEIGHTS[1]) / sum(WEIGHTS)
