"""A member overwrites or deletes what it sent after a round was committed with it: no later round needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedround.records import Commit
from tests import small_federation
from tests.small_federation import SmallFederation

AGREED = {
    "a clip norm that follows the gradients": {
        "privacy": {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 3, "adaptive": {"noise_std": 10.0}}},
    "control variates": {
        "training": {"local_steps": 3, "batch_size": 32, "learning_rate": 0.5, "algorithm": {"name": "scaffold"}}},
    "averages, and weights from noised counts": {"aggregation": {
        "rule": {"name": "weighted_mean"}, "history": 0.5, "fairness": {"name": "q_ffl", "q": 2.0, "cap": 3.0}}},
}
"""What makes a round depend on the one before it."""


def emptied(federation: SmallFederation, gone: bool) -> None:
    """Everything that the sites ever sent is other bytes, or no longer there."""
    for path in (federation.root / "store" / "sites").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.unlink() if gone else path.write_bytes(b"?")


@pytest.fixture(scope="module", params=AGREED)
def begun(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None, request) -> tuple[SmallFederation, Commit]:
    """After its first round."""
    federation = small_federation.make(tmp_path_factory.mktemp("begun"), **AGREED[request.param])
    return federation, federation.round()


@pytest.mark.parametrize("gone", [False, True], ids=["overwritten", "deleted"])
def test_the_next_round_goes_on(tmp_path: Path, begun: tuple[SmallFederation, Commit], gone: bool):
    federation, first = begun[0].copy(tmp_path), begun[1]
    emptied(federation, gone)
    second = federation.round()
    assert (second.round, second.base_model) == (2, first.model)
