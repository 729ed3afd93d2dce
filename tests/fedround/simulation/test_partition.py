"""Every row is dealt to exactly one site, whatever the partition; each makes sites unlike in its own way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.simulation.partition import (
    Column,
    Dirichlet,
    Features,
    Iid,
    Quantity,
    Shards,
    deal,
    parse_partition,
    take,
)

PARTITIONS = st.one_of(
    st.just(Iid()), st.builds(Dirichlet, concentration=st.floats(1e-3, 100)), st.builds(Shards, each=st.integers(1, 2)),
    st.builds(Quantity, concentration=st.floats(1e-3, 100)), st.builds(Features, strength=st.floats(0, 1)))


def rows_of(count: int, classes: int = 4, seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    return Examples(generator.normal(size=(count, 3)).astype(np.float32), generator.integers(0, classes, count))


@settings(max_examples=150)
@given(PARTITIONS, st.integers(40, 120), st.integers(1, 20), st.integers(0, 5))
def test_every_row_goes_to_exactly_one_site_and_every_site_gets_one(how, count, sites, seed):
    parts = deal(how, rows_of(count), sites, seed)
    assert len(parts) == sites
    assert min(map(len, parts.values())) >= 1
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(count))
    assert list(parts) == sorted(parts), "names sort as sites are numbered"


@given(PARTITIONS, st.integers(0, 3))
@settings(max_examples=30)
def test_same_seed_same_parts_another_seed_others(how, seed):
    one, same, other = (deal(how, rows_of(80), 5, number) for number in (seed, seed, seed + 1))
    assert all(np.array_equal(one[site], same[site]) for site in one)
    if not isinstance(how, Features) or how.strength < 0.5:
        assert any(not np.array_equal(one[site], other[site]) for site in one)


def label_counts(how, rows, sites) -> list[np.ndarray]:
    """How many rows of each label every site has."""
    return [np.bincount(rows.targets["y"][places], minlength=4) for places in deal(how, rows, sites, 1).values()]


def unevenness(how, rows, sites=20) -> float:
    """Mean total variation between a site's labels and all labels."""
    overall = np.bincount(rows.targets["y"]) / len(rows)
    return float(np.mean([np.abs(count / count.sum() - overall).sum() / 2 for count in label_counts(how, rows, sites)]))


def test_small_concentrations_and_shards_make_labels_uneven_and_large_ones_do_not():
    rows = rows_of(8000)
    assert unevenness(Iid(), rows) < unevenness(Dirichlet(concentration=100.0), rows) < 0.1
    assert unevenness(Dirichlet(concentration=0.5), rows) > 0.2
    assert unevenness(Dirichlet(concentration=0.05), rows) > 0.5
    shards = label_counts(Shards(each=2), rows, 20)
    assert max(int((count > 0).sum()) for count in shards) <= 4
    assert np.mean([np.sort(count)[-2:].sum() / count.sum() for count in shards]) > 0.9


def test_quantity_skews_sizes_and_not_labels():
    rows = rows_of(20_000)
    sizes = [len(places) for places in deal(Quantity(concentration=0.5), rows, 10, 1).values()]
    assert max(sizes) > 10 * min(sizes)
    large = deal(Quantity(concentration=0.5), rows, 10, 1)["site-" + f"{1 + int(np.argmax(sizes)):02d}"]
    assert np.bincount(rows.targets["y"][large]) / len(large) == pytest.approx([0.25] * 4, abs=0.03)


def test_features_separate_sites_along_one_direction_and_strength_zero_does_not():
    rows = rows_of(2000)
    rows.inputs["x"][:, 1] *= 5          # the principal direction
    sorted_, shuffled = (deal(Features(strength=strength), rows, 4, 1) for strength in (1.0, 0.0))
    means = [[float(take(rows, places).inputs["x"][:, 1].mean()) for places in parts.values()]
             for parts in (sorted_, shuffled)]
    assert np.ptp(means[0]) > 10
    assert np.ptp(means[1]) < 1.5


def test_a_column_gives_one_site_for_each_value():
    column = np.array(["Basel", "VA Long Beach", "Basel", "Zürich"], dtype=object)
    parts = deal(Column(column="hospital"), rows_of(4), 99, 0, column)
    assert {site: places.tolist() for site, places in parts.items()} == {"basel": [0, 2], "va-long-beach": [1], "z-rich": [3]}
    with pytest.raises(ContractError, match="must be given"):
        deal(Column(column="hospital"), rows_of(4), 99, 0)
    with pytest.raises(ContractError, match="no distinct site names"):
        deal(Column(column="hospital"), rows_of(2), 99, 0, np.array(["a b", "a-b"], dtype=object))


def test_impossible_deals_are_refused():
    with pytest.raises(ContractError, match="one each at least"):
        deal(Iid(), rows_of(4), 5, 0)
    with pytest.raises(ContractError, match="a row each at least"):
        deal(Shards(each=3), rows_of(5), 2, 0)


@pytest.mark.parametrize(("text", "how"), [
    ("iid", Iid()), ("dirichlet:0.1", Dirichlet(concentration=0.1)), ("dirichlet:1", Dirichlet(concentration=1.0)),
    ("shards:3", Shards(each=3)), ("quantity", Quantity()), ("features:0.25", Features(strength=0.25)),
    ("column:hospital", Column(column="hospital"))])
def test_partitions_in_words(text, how):
    assert parse_partition(text) == how


@pytest.mark.parametrize("text", ["", "even", "dirichlet:0", "dirichlet:-1", "dirichlet:many", "dirichlet:nan", "shards:1.5",
                                  "features:2", "iid:3", "column"])
def test_partitions_that_are_none(text):
    with pytest.raises(ContractError, match="expected iid, dirichlet"):
        parse_partition(text)
