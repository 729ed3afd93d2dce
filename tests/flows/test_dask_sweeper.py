"""The aggregation's passes on two real Dask workers: the same bytes as in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from fedround.aggregation.engine import Aggregate, FileNumbers, Row, aggregate
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rules import CoordinateMedian, SpectralFilter, TrimmedMean
from fedround.aggregation.spec import Aggregation, Gate, NearestNeighbourMixing
from fedround.aggregation.sweep import SLAB
from fedround.errors import SetupError
from flows.dask_sweeper import dask_sweeper, ranges
from infra.stack import LocalStack

if TYPE_CHECKING:
    from distributed import LocalCluster

SIZE = 3 * SLAB + 1234
HOWS = [Gate(f=1) >> NearestNeighbourMixing(f=1, near="inner_product") >> TrimmedMean(f=1),
        Aggregation(rule=CoordinateMedian()), Aggregation(rule=SpectralFilter(f=1))]


@given(coordinates=st.integers(1, 40 * SLAB), parts=st.integers(1, 50))
def test_ranges_cover_every_coordinate_once_and_begin_at_slabs(coordinates: int, parts: int):
    found = ranges(coordinates, parts)
    assert [low for low, _ in found] == [0, *(high for _, high in found[:-1])]
    assert found[-1][1] == coordinates
    assert all(low % SLAB == 0 and low < high for low, high in found)
    assert len(found) <= parts


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as two:
        yield two


def same_bits(one: Aggregate, other: Aggregate) -> bool:
    return one.delta_D.tobytes() == other.delta_D.tobytes() and repr(one.standings) == repr(other.standings)


@pytest.mark.stack
@pytest.mark.parametrize("how", HOWS, ids=str)
def test_two_workers_make_the_same_bytes(how: Aggregation, cluster: LocalCluster, stack: LocalStack, tmp_path: Path):
    for n in range(6):
        np.random.default_rng(n).standard_normal(SIZE, dtype=np.float32).tofile(tmp_path / str(n))
    with temporary_settings({PREFECT_API_URL: stack.start(lambda _: None).api_url}):
        there = aggregated_on_dask(cluster.scheduler_address, tmp_path, how)
    assert same_bits(there, aggregate(rows_in(tmp_path), how, SIZE))


def rows_in(folder: Path) -> list[Row]:
    law = NoiseLaw(signal_bound=1.0, variance=1.0)
    return [Row(f"site-{n}", 1.0, FileNumbers(folder / str(n), 0), law) for n in range(6)]


@flow(name="one-round-on-dask", persist_result=False)
def aggregated_on_dask(address: str, folder: Path, how: Aggregation) -> Aggregate:
    """As in a round: inside of a flow that stands in a module."""
    with dask_sweeper(address, 64 << 20) as sweeper:
        return aggregate(rows_in(folder), how, SIZE, sweeper=sweeper)


def test_nobody_listens():
    with pytest.raises(SetupError, match="no Dask scheduler answers"), dask_sweeper("tcp://127.0.0.1:9", 1 << 20):
        pass
