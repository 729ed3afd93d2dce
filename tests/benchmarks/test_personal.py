"""The table of docs/personalisation.md says what was measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.personal import SITES, WAYS, WORLDS, at_the_sites


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("world", WORLDS)
def test_every_way_serves_every_site(world):
    """An accuracy for each site, and the same again. In one world a second round; the others differ in their rows."""
    sites, rounds = WORLDS[world](0), 2 if world == "other names" else 1
    for way in WAYS.values():
        found = at_the_sites(way, sites, 0, rounds=rounds)
        assert len(found) == SITES
        assert 0 <= min(found) <= max(found) <= 1
    assert found == at_the_sites(way, sites, 0, rounds=rounds)


def test_own_heads_serve_sites_that_call_things_by_other_names():
    sites = WORLDS["other names"](1)
    shared, heads = (np.mean(at_the_sites(WAYS[name], sites, 1, rounds=20)) for name in ("FedAvg", "FedPer"))
    assert shared < 0.35 < 0.6 < heads
