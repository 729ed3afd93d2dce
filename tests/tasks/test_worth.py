"""The promise in other words, on the round's page: never better than it is."""

from __future__ import annotations

import re

import pytest

from fedround.agreement import Agreement
from fedround.privacy.accounting import epsilon
from fedround.privacy.calibration import gaussian_delta
from fedround.privacy.spec import GaussianUpdate
from fedround.records import Update
from fedround.rounds.campaign import beside, mechanism_for
from fedround.terms import Terms
from fedround.values import parse
from tasks.worth import in_words
from tests.small_federation import settings


def terms(**changes: object) -> Terms:
    return parse(Agreement, settings(**changes), "settings").terms()


def at(agreed: Terms, rows: int) -> Update:
    mechanism = mechanism_for(agreed.privacy, agreed.training, agreed.evaluation, rows)
    return Update.model_construct(mechanism=mechanism, rows=None)


def test_epsilon_at_other_deltas_is_never_below_what_it_is_at_any_site():
    agreed = terms()
    updates = {"small": at(agreed, 150), "large": at(agreed, 900)}
    told = in_words(agreed, updates)
    for delta in (1e-4, 1e-6, 1e-8):
        (said,) = re.findall(rf"([\d.]+) at {delta:g}\b", told)
        exact = max(epsilon([*[update.mechanism] * 3, *beside(agreed.privacy, agreed.evaluation)], delta)
                    for update in updates.values())
        assert exact <= float(said) < 1.4 * exact
    assert "at most 8 at delta 1e-05" in told
    mu = float(re.findall(r"mu ([\d.]+)", told)[0])
    assert gaussian_delta(8.0, mu) == pytest.approx(1e-5, rel=0.05)
    assert "delta times a site's rows: at most 0.009" in told


def test_of_the_unit_site_nothing_tells_rows_and_without_privacy_there_is_nothing_to_say():
    by_site = terms(privacy={"unit": "site", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3})
    told = in_words(by_site, {"north": Update.model_construct(
        mechanism=GaussianUpdate(noise_multiplier=2.0, clip_norm=1.0), rows=None)})
    assert told.startswith("the whole campaign costs one site an epsilon of at most 8")
    assert "rows" not in told
    assert in_words(terms(privacy={"unit": "none"}), {"north": at(terms(), 200)}) == ""
