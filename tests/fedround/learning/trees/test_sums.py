"""What a site says of its leaves: exact, bounded for every row, the same for any partition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning.examples import INPUT, TARGET, Examples
from fedround.learning.persons import persons_of
from fedround.learning.tasks import CLASSIFY
from fedround.learning.trees.outputs import Outputs, grown, outputs
from fedround.learning.trees.server import grow
from fedround.learning.trees.site import summand, sums
from fedround.learning.trees.spec import GROWN, LEAVES, Trees
from fedround.learning.trees.structure import leaves_of, splits
from fedround.privacy.noise import GRID, stream
from fedround.privacy.spec import GaussianUpdate, NoMechanism, RowSum
from tests.fedround.learning.trees.planted import THREE, TREES, F, Silent, nothing, rows, take, trained

WIDE = TREES.model_copy(update={"per_round": 12, "depth": 5})       # noise that can be heard


# -- laws --------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 5), min_size=60, max_size=60), st.sampled_from([CLASSIFY, THREE]))
def test_without_noise_any_partition_gives_the_bytes_of_pooled_training(seed, dealt, task):
    everything = rows(60, seed, task.classes)
    parts = [take(everything, np.flatnonzero(np.array(dealt) == site)) for site in sorted(set(dealt))]
    pooled, federated = trained([everything], task), trained(parts, task)
    assert flatten(federated).tobytes() == flatten(pooled).tobytes()
    assert grown(pooled) == TREES.trees
    assert pooled[LEAVES].any()


def test_weights_that_are_not_numbers_of_rows_give_their_weighted_mean():
    one, other = rows(50, 1), rows(70, 2)
    sent = [flatten(sums(TREES, CLASSIFY, nothing(), part, NoMechanism(), Silent())) for part in (one, other)]
    mean_D = (0.3 * sent[0] + 0.7 * sent[1]).astype(np.float32)
    model = grow(TREES, CLASSIFY, nothing(), mean_D, 1.0, noised=False)
    whole = grow(TREES, CLASSIFY, nothing(), mean_D, None, noised=False)
    assert model[LEAVES] == pytest.approx(whole[LEAVES], abs=1e-6)


HOSTILE = st.one_of(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from([0.0, 3e38, -3e38, 1e-45]))


@settings(max_examples=60, deadline=None)
@given(st.lists(HOSTILE, min_size=F, max_size=F), st.integers(0, 2), st.floats(1e-3, 50), st.sampled_from([CLASSIFY, THREE]),
       HOSTILE, st.integers(0, 11))
def test_one_row_moves_the_sums_by_no_more_than_the_bound(hostile, label, noise_multiplier, task, leaf, grows):
    """Whatever the row and the model are, to the last bit: what moves is whole cells, and sqrt(B) lengths at most."""
    base = nothing(task)
    base[GROWN][0] = min(grows // 4 * 4, 8)
    base[LEAVES][:] = leaf
    many = rows(20, 3, task.classes)
    more = Examples(np.concatenate([many.inputs[INPUT], np.array([hostile], np.float32)]),
                    np.append(many.targets[TARGET], label % task.classes), np.ones(21, bool))
    gone = Examples(more.inputs[INPUT], more.targets[TARGET], np.append(many.counts_N, False))
    mechanism = RowSum(noise_multiplier=noise_multiplier)
    with_it, without = (flatten(sums(TREES, task, base, one, mechanism, Silent())).astype(float) * 21
                        for one in (more, gone))
    length = math.sqrt(TREES.per_round)
    assert np.linalg.norm(with_it - without) <= length * (1 + 1e-5) + 21 * 2 ** -20      # the upload is float32


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(HOSTILE, min_size=F, max_size=F), min_size=1, max_size=12), st.integers(1, 5),
       st.sampled_from([CLASSIFY, THREE]), HOSTILE)
def test_one_person_with_any_number_of_rows_moves_the_sums_by_no_more_than_a_row_may(hostile, most, task, leaf):
    base, many, own = nothing(task), rows(20, 3, task.classes), len(hostile)
    base[LEAVES][:], base[GROWN][0] = leaf, 4
    more = Examples(np.concatenate([many.inputs[INPUT], np.array(hostile, np.float32)]),
                    np.append(many.targets[TARGET], np.arange(own) % task.classes))
    gone = Examples(more.inputs[INPUT], more.targets[TARGET], np.arange(20 + own) < 20)
    whose_N = np.array([f"p{row % 7}" for row in range(20)] + ["she"] * own, dtype=object)
    sent = []
    for one in (more, gone):
        persons = persons_of(whose_N, one.counts_N, most, b"k" * 32)
        mechanism = RowSum(noise_multiplier=3.0, rows_per_person=most)
        sent.append(flatten(sums(TREES, task, base, one, mechanism, Silent(), persons)).astype(float) * len(persons))
    assert np.linalg.norm(sent[0] - sent[1]) <= math.sqrt(TREES.per_round) * (1 + 1e-5) + 8 * 2 ** -20


def test_persons_with_a_row_each_are_as_their_rows_and_a_row_of_nobody_is_used_for_nothing():
    examples, whose_N = rows(40, 8), np.array([f"p{row:02}" for row in range(30)] + [None] * 10, dtype=object)
    mechanism = RowSum(noise_multiplier=2.0, rows_per_person=3)
    persons = persons_of(whose_N, examples.counts_N, 3, b"k" * 32)
    told = flatten(sums(TREES, CLASSIFY, nothing(), examples, mechanism, Silent(), persons))
    alone = flatten(sums(TREES, CLASSIFY, nothing(), take(examples, np.arange(30)), RowSum(noise_multiplier=2.0), Silent()))
    assert told.tobytes() == alone.tobytes()
    summed = [summand(TREES, CLASSIFY, nothing(), some, 1024, Silent(), whose) for some, whose in (
        (examples, persons), (take(examples, np.arange(30)), None))]
    assert summed[0].tobytes() == summed[1].tobytes()


def test_a_person_adds_the_mean_of_her_rows():
    examples, mechanism = rows(6, 4), RowSum(noise_multiplier=2.0, rows_per_person=6)
    hers = persons_of(np.array(["she"] * 6, dtype=object), examples.counts_N, 6, b"k" * 32)
    told, mean = (flatten(sums(TREES, CLASSIFY, nothing(), examples, one, Silent(), whose)) for one, whose in (
        (mechanism, hers), (RowSum(noise_multiplier=2.0), None)))
    assert told == pytest.approx(mean, abs=1e-6)


def test_the_sums_before_they_become_float32_are_whole_cells_and_within_the_bound():
    seen = []

    class Watch(Silent):
        def normal(self, scale, size):
            seen.append(scale)
            return np.zeros(size)

    mechanism = RowSum(noise_multiplier=2.0)
    one = Examples(np.zeros((1, F), np.float32), np.array([1]))
    base = nothing()
    base[LEAVES][:], base[GROWN][0] = -50, 4
    sent = sums(TREES, CLASSIFY, base, one, mechanism, Watch())
    cells = flatten(sent).astype(float) * GRID / (2.0 * math.sqrt(4)) * (1 - 2 ** -30)
    assert seen == [GRID]
    assert np.linalg.norm(cells) * 2.0 <= GRID
    assert np.linalg.norm(cells) * 2.0 >= 0.999 * GRID                                   # nothing is given away either


# -- parity: the naive twin --------------------------------------------------------------------------------------------


def naive_leaf(trees: Trees, tree: int, row) -> int:
    found, node = splits(trees), 0
    while node < trees.leaves - 1:
        node = 2 * node + 1 + int(row[found.feature_TM[tree, node]] > found.threshold_TM[tree, node])
    return node - (trees.leaves - 1)


def test_rows_fall_into_the_leaves_into_which_a_walk_from_the_root_leads():
    features_NF = rows(200, 7).inputs[INPUT]
    found_TN = leaves_of(splits(TREES), features_NF)
    assert found_TN.tolist() == [[naive_leaf(TREES, tree, row) for row in features_NF] for tree in range(TREES.trees)]
    assert len(np.unique(found_TN)) == TREES.leaves


def test_sums_are_those_of_a_loop_over_rows():
    examples, base = rows(80, 8), trained([rows(50, 9)], trees=TREES.model_copy(update={"rounds": 3}))
    base[GROWN][0] = 8
    sent = sums(TREES, CLASSIFY, base, examples, RowSum(noise_multiplier=1.0), Silent())
    expected = np.zeros((4, 8, 1))
    for row, label in zip(examples.inputs[INPUT], examples.targets[TARGET], strict=True):
        output = sum(float(base[LEAVES][tree, naive_leaf(TREES, tree, row), 0]) for tree in range(8))
        for tree in range(8, 12):
            expected[tree - 8, naive_leaf(TREES, tree, row), 0] += 1 / (1 + math.exp(-output)) - label
    assert sent["g"][0] == pytest.approx(expected / 80, abs=1e-6)


def test_the_outputs_of_a_model_that_grew_are_the_same_bits_when_they_are_continued():
    examples, model = rows(100, 10), trained([rows(100, 10)])
    remembered = Outputs()
    for count in (4, 4, 8, 12):
        part = {GROWN: np.array([count], np.float32), LEAVES: model[LEAVES]}
        found = remembered(TREES, part, examples.inputs[INPUT], examples.digest)
        assert found.tobytes() == outputs(TREES, part, examples.inputs[INPUT]).tobytes()
    other = {GROWN: model[GROWN], LEAVES: -model[LEAVES]}
    assert (remembered(TREES, other, examples.inputs[INPUT], examples.digest) == -found).all()


# -- mechanisms --------------------------------------------------------------------------------------------------------


def test_noise_is_as_loud_as_is_charged_for():
    trees = TREES.model_copy(update={"per_round": 4, "depth": 8, "rounds": 1})
    examples, z = rows(400, 11), 3.0
    noised, plain = (flatten(sums(trees, CLASSIFY, nothing(trees=trees), examples, RowSum(noise_multiplier=z), noise))
                     for noise in (stream(bytes(32), b"x"), Silent()))
    std = float(np.std((noised - plain) * 400))
    assert std == pytest.approx(z * math.sqrt(4), rel=0.05)


def test_a_whole_update_is_clipped_and_noised_where_the_site_is_the_unit():
    mechanism = GaussianUpdate(noise_multiplier=1.0, clip_norm=0.01)
    sent = flatten(sums(TREES, CLASSIFY, nothing(), rows(50), mechanism, Silent()))
    assert np.linalg.norm(sent) == pytest.approx(0.01, rel=1e-4)


def test_a_sites_whole_update_is_noised_as_loud_as_is_charged_for():
    examples, mechanism = rows(50), GaussianUpdate(noise_multiplier=3.0, clip_norm=0.25)
    noised, plain = (flatten(sums(WIDE, CLASSIFY, nothing(trees=WIDE), examples, mechanism, noise))
                     for noise in (stream(bytes(32), b"x"), Silent()))
    assert float(np.std(noised - plain)) == pytest.approx(3.0 * 0.25, rel=0.1)


@pytest.mark.parametrize("cells", [2 ** 20, 2 ** 24])
def test_what_a_site_adds_to_a_secure_sum_is_noised_as_it_says(cells):
    noised, plain = (summand(WIDE, CLASSIFY, nothing(trees=WIDE), rows(50), cells, noise)
                     for noise in (stream(bytes(32), b"x"), Silent()))
    assert float(np.std(noised - plain)) == pytest.approx(GRID / cells, rel=0.1)


def test_a_row_that_does_not_count_adds_nothing_and_keeps_its_place():
    examples = rows(30)
    half = Examples(examples.inputs[INPUT], examples.targets[TARGET], np.arange(30) % 2 == 0)
    alone = take(examples, np.arange(0, 30, 2))
    both = [flatten(sums(TREES, CLASSIFY, nothing(), one, RowSum(noise_multiplier=1.0), Silent())) for one in (half, alone)]
    assert both[0] * 2 == pytest.approx(both[1])


def test_when_all_trees_have_grown_no_more_are_asked():
    base = nothing()
    base[GROWN][0] = TREES.trees
    with pytest.raises(ContractError, match="all 12 trees have grown"):
        sums(TREES, CLASSIFY, base, rows(5), NoMechanism(), Silent())
    with pytest.raises(ContractError, match="all 12 trees have grown"):
        grow(TREES, CLASSIFY, base, np.zeros(3 * 4 * 8 * 2, np.float32), None, noised=False)


def test_too_many_rows_for_whole_cells_are_refused():
    with pytest.raises(ContractError, match="too many to be summed exactly"):
        sums(TREES, CLASSIFY, nothing(), rows(64), RowSum(noise_multiplier=1e-6), Silent())
