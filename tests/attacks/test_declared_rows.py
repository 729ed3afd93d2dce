"""A member that declares more rows than it was agreed to have may add less noise, and counts no more than was agreed.

Weights are agreed when a site is enrolled. But a lower sampling rate calls for less noise, and mixing measures inner products
in units of noise. So the number of rows can be agreed, too. Where it is not, less noise than the median's makes nobody
nearer.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fedround.aggregation.engine import ArrayNumbers, Row, aggregate
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.spec import default_aggregation
from fedround.agreement import Agreement
from fedround.errors import ContractError
from fedround.learning.law import law_of
from fedround.learning.spec import LocalTraining
from fedround.privacy.spec import DpFtrl, DpSgd, Mechanism, RowSum
from fedround.rounds.campaign import mechanism_for, misfit
from fedround_examples.banks.split import STORY
from tests import small_federation
from tests.small_federation import NAMES, SmallFederation
from validation import updates

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
def test_the_plans_promise_alone_cannot_tell_more_rows_from_a_larger_site(rows: int) -> None:
    assert misfit(agreement().terms(9), mechanism(MORE * rows)) is None
    assert law(MORE * rows).std < law(rows).std / 1.5


# -- where the number of rows is agreed ----------------------------------------------------------------------------------


@pytest.fixture
def federation(tmp_path: Path, rows_are_judged_here: None) -> SmallFederation:
    """Three sites; 200 rows are agreed with each, and each has as many, about."""
    made = small_federation.make(tmp_path)
    path = made.root / "coordinator" / "federation.toml"
    path.write_text(re.sub(r"(weight = [0-9.]+)", r"\1\nrows = 200", path.read_text()))
    return made


@pytest.mark.parametrize(("times", "admitted"), [(1.4, True), (1.6, False)])
def test_an_answer_made_as_if_of_many_more_rows_than_agreed_is_not_admitted_and_the_round_goes_on(
        federation: SmallFederation, times: float, admitted: bool) -> None:
    planned = federation.plan()
    for name in NAMES:
        assert federation.answer(name, planned) == "update"
    own = federation.collect(planned).answers["east"].update
    assert own is not None
    rate = planned.plan.agreed.training.batch_size / (200 * times)
    federation.lie("east", planned, lambda update_D: update_D,
                   mechanism=own.mechanism.model_copy(update={"sampling_rate": rate}))
    collected = federation.collect(planned)
    assert ("east" in collected.admitted) is admitted
    if not admitted:
        assert re.search(r"'east' round 1: made as if of \d+ rows, agreed are 200, and 1.5 times as many at most",
                         collected.rejected["east"].reason)
    assert set(collected.admitted) >= {"north", "south"}


@pytest.mark.parametrize(("mechanism", "rows", "found"), [
    (DpFtrl(noise_multiplier=1.0, clip_norm=1.0, batch_size=50, steps=10), None, 500),
    (DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=1.0, steps=10), 301, 301),
    (RowSum(noise_multiplier=1.0), 300, 300)])
def test_also_where_batches_are_fixed_or_all_rows_are_one_batch(mechanism: Mechanism, rows: int | None, found: int) -> None:
    update = SimpleNamespace(mechanism=mechanism, rows=rows)
    training = LocalTraining(batch_size=400)
    updates._check_size(update, training, found, "site 'east'")
    with pytest.raises(ContractError, match=f"as if of {found} rows, agreed are {found // 2}"):
        updates._check_size(update, training, found // 2, "site 'east'")


# -- where it is not -----------------------------------------------------------------------------------------------------


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
