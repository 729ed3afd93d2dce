"""The coordinator's own update, for rules that ask for one."""

from __future__ import annotations

import numpy as np
import pytest

from fedround.errors import ContractError
from tasks.aggregate import aggregate
from tasks.root import root_update
from tests import small_federation
from tests.small_federation import NAMES, SmallFederation

FLTRUST = {"rule": {"name": "fltrust"}}


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    federation = small_federation.make(tmp_path_factory.mktemp("trusting"), aggregation=FLTRUST, root_set="root.parquet",
                                       units=("record", "none"), privacy={"unit": "none"})
    small_federation.rows(200, 77).to_parquet(federation.root / "coordinator" / "root.parquet")
    return federation


def test_a_missing_root_set_is_refused_before_any_site_is_asked(tmp_path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path, aggregation=FLTRUST)
    with pytest.raises(ContractError, match="'fltrust' compares every update with the coordinator's own: name a file"):
        federation.plan()
    assert not list(federation.coordinator.store.list("runs/spring/rounds/00001/"))


def test_the_same_plan_gives_the_same_update_and_another_plan_another(trusting: SmallFederation):
    one, other = trusting.plan("one"), trusting.plan("other")
    first, again, second = (root_update(trusting.coordinator, planned.plan, planned.digest).array_D
                            for planned in (one, one, other))
    assert first.tobytes() == again.tobytes() != second.tobytes()
    assert np.linalg.norm(first) > 0


def test_no_rule_that_does_not_ask_gets_one(federation: SmallFederation):
    planned = federation.plan()
    assert root_update(federation.coordinator, planned.plan, planned.digest) is None


def test_who_pulls_the_other_way_has_no_share(trusting: SmallFederation):
    planned = trusting.plan("against")
    for name in NAMES:
        trusting.answer(name, planned)
    trusting.lie("east", planned, lambda update_D: -update_D)
    standings = aggregate(trusting.coordinator, planned, trusting.collect(planned)).result.standings
    assert standings["east"].influence == 0
    assert standings["north"].influence > 0
