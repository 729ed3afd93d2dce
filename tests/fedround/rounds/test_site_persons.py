"""A site's half of a round where persons are the unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedround.agreement import Agreement
from fedround.errors import ContractError
from fedround.learning.guard import UNGUARDED
from fedround.records import Measure, Train
from fedround.rounds.offer import offer
from fedround.rounds.site import (
    Inputs,
    declare,
    units_at,
    work,
)
from fedround.statistics import Bands, Decisions, Importance
from tests.fedround.rounds.at_a_site import AGES, RECORD, SCORES, SEED, Draws, agreed, inputs


def persons_of_rows(agreement: Agreement, whose: list[int], ages: list[float]) -> Inputs:
    """Forty rows to train on and forty held out."""
    given_ = inputs(agreement)
    return replace(given_, column={"age": np.array(ages, float), "customer": np.array(whose)}.__getitem__)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_attack_a_person_with_fifty_rows_is_in_no_table_with_more_than_are_paid_for(most):
    """Fifty of all eighty rows are hers, most of them held out; the others have one each."""
    agreement = agreed(privacy={**RECORD, "unit": "person", "person": "customer", "rows_per_person": most})
    hers = [row >= 30 for row in range(80)]
    given_ = persons_of_rows(agreement, [-1 if own else row for row, own in enumerate(hers)],
                             [80.0 if own else 10.0 for own in hers])
    decided = Decisions(noise_std=1e-3, model="0" * 64, of=Bands(column="age", edges=(20.0, 40.0)), threshold=0.5)
    width = given_.validation.table_NF.shape[1]
    columns = Importance(noise_std=1e-3, model="0" * 64, judged=SCORES.model_copy(update={"noise_std": 0.0}),
                         of=({"column": "a", "places": (0,)},), public=((0.0,) * width, (1.0,) * width))
    quiet = AGES.model_copy(update={"noise_std": 1e-3}), SCORES.model_copy(update={"noise_std": 1e-3}), decided, columns
    terms = agreement.terms()
    offered = offer(Measure(statistics=quiet), terms, 31, lambda _: True)
    worked = work(Measure(statistics=quiet), terms, 1, SEED, given_, offered, Draws([]), UNGUARDED)
    ages, scored, decisions, replaced = (np.rint(one.table) for one in worked.releases)
    assert ages.tolist() == [30, 0, most, 0]
    assert scored.sum() == decisions.sum() == decisions[2].sum() == most        # all forty that are held out are hers
    assert [table.sum() for table in replaced] == [most, most]
    assert tuple(one.mechanism for one in worked.releases) == offered.mechanisms
    assert {one.mechanism.rows_per_person for one in worked.releases} == {most}


def test_batches_are_drawn_from_rows_or_from_persons_who_have_some_to_train_on():
    by_person = agreed(privacy={**RECORD, "unit": "person", "person": "customer", "rows_per_person": 4})
    given_ = persons_of_rows(by_person, [row % 10 if row < 40 else row for row in range(80)], [10.0] * 80)
    assert units_at(by_person.privacy, given_.train, given_.column) == 10
    assert units_at(agreed(privacy=RECORD).privacy, given_.train, given_.column) == 40


def test_a_column_that_is_not_one_of_all_rows_is_read_for_nothing():
    given_ = replace(inputs(agreed()), column={"age": np.ones(79)}.__getitem__)
    decided = Decisions(noise_std=1.0, model="0" * 64, of=Bands(column="age", edges=(20.0,)), threshold=0.5)
    asks = Measure(statistics=(decided,))
    with pytest.raises(ContractError, match="79 values, and there are 40 rows to train on and 40 held out"):
        work(asks, agreed().terms(), 1, SEED, given_, offer(asks, agreed().terms(), 40, lambda _: True), Draws([]), UNGUARDED)


def test_what_a_person_is_trained_on_is_drawn_clipped_and_said_by_persons():
    agreement = agreed(privacy={**RECORD, "unit": "person", "person": "customer", "rows_per_person": 4})
    given_ = persons_of_rows(agreement, [row % 10 for row in range(80)], [10.0] * 80)
    offered = offer(Train(), agreement.terms(), 10, lambda _: True)
    worked = work(Train(), agreement.terms(), 1, SEED, given_, offered, Draws([]), UNGUARDED)
    assert worked.declared == declare(offered.training, agreement.training, 10, 3, None)
    assert worked.declared.rows == 10               # fewer persons than a batch: the noise is divided by their number
    assert {lot.mechanism.rows_per_person for lot in offered.campaign(())} == {4}
