"""Sums of groups at sites, under masks: each group's is read, and a liar moves the model no further than groups differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.history import Committed
from site_workers import summing as site_sums
from tasks.aggregate import aggregate
from tasks.publish import publish
from tasks.recompute import Bench
from tasks.verify import verify_run
from tests import summing
from tests.small_federation import LABELS, NAMES
from tests.summing import Summing

SIX = (*NAMES, "five", "four", "upper")
NINE = (*SIX, "lower", "west", "wide")
ALL_SIX = {"name": "secure_sum", "threshold": 4, "dropouts": 0, "colluders": 0}
ONE_AWAY = {"name": "secure_sum", "threshold": 7, "dropouts": 1, "colluders": 0}
GROUPS = {"groups": {"count": 3, "liars": 1}}


def with_keys(root: Path, names: tuple[str, ...], how: dict[str, object]) -> Summing:
    federation = summing.make(root, names=names, combine=how, quorum=len(names) - how["dropouts"])
    federation.keys()
    return federation


def added(federation: Summing, sites: tuple[str, ...], liar: str | None = None) -> tuple[Committed, np.ndarray]:
    """A round to which these answer; the commit, and how the model changes."""
    planned, honest = federation.plan("spring"), site_sums.summed.in_ring
    for name in sites:
        with pytest.MonkeyPatch.context() as patch:
            if name == liar:
                patch.setattr(site_sums.summed, "in_ring",
                              lambda parts, numbers_S: honest(parts, numbers_S) + np.uint32(1 << 29))
            federation.answer(name, planned)
    collected = federation.revealing(planned)
    done = aggregate(federation.coordinator, planned, collected)
    return publish(federation.coordinator, planned, collected, done), done.result.delta_D


def test_a_liar_in_one_group_of_three_is_left_out_at_every_number(tmp_path_factory: pytest.TempPathFactory,
                                                                  rows_are_judged_here: None):
    federation = with_keys(tmp_path_factory.mktemp("six"), SIX, {**ALL_SIX, **GROUPS})
    assert np.abs(added(federation, SIX, "east")[1]).max() < 1
    proofs = list(verify_run(federation.coordinator.store, "spring", federation.coordinator.identity.key))
    assert proofs[1].revealed == tuple(sorted(SIX))


def test_a_liar_and_one_who_is_away_and_the_same_is_computed_again(tmp_path_factory: pytest.TempPathFactory,
                                                                   rows_are_judged_here: None, tmp_path: Path):
    grouped = with_keys(tmp_path_factory.mktemp("grouped"), NINE, {**ONE_AWAY, **GROUPS})
    lied = grouped.copy(tmp_path / "lied")
    committed, delta_D = added(grouped, NINE[:-1])
    assert committed.commit.missing == ("wide",)
    assert np.abs(added(lied, NINE[:-1], "east")[1]).max() < 4 * np.abs(delta_D).max()
    finding = grouped.concluded(LABELS, sites=NINE)
    assert abs(sum(total.table.sum() for total in finding.totals) - 9 * 80 - 3 * 650) < 300
    key, store = grouped.coordinator.identity.key, grouped.coordinator.store
    proofs = list(verify_run(store, "spring", key, bench=Bench(tmp_path / "bench", store)))
    assert (proofs[1].recomputed, proofs[1].not_recomputed) == (True, "")


def test_without_groups_the_same_lie_is_the_model(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None):
    federation = with_keys(tmp_path_factory.mktemp("whole"), SIX, ALL_SIX)
    assert np.abs(added(federation, SIX, "east")[1]).max() > 100
