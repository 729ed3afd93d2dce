"""What a site says of its leaves: exact, bounded for every row, the same for any partition."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning.examples import INPUT, TARGET, Examples
from fedround.learning.persons import persons_of
from fedround.learning.tasks import CLASSIFY, Classify, Count, NextToken, Regress, Survive
from fedround.learning.trees.losses import outputs_of, slopes
from fedround.learning.trees.outputs import Outputs, grown, outputs
from fedround.learning.trees.server import grow
from fedround.learning.trees.site import summand, sums
from fedround.learning.trees.spec import GROWN, LEAVES, Axis, Trees
from fedround.learning.trees.structure import leaves_of, splits
from fedround.learning.trees.xgboost import to_xgboost
from fedround.privacy.noise import GRID, stream
from fedround.privacy.spec import GaussianUpdate, NoMechanism, RowSum

F = 3
TREES = Trees(rounds=3, per_round=4, depth=3, learning_rate=0.3, l2=0.01,
              axes=(Axis(), Axis(low=-2, high=2), Axis(either=True)))
WIDE = TREES.model_copy(update={"per_round": 12, "depth": 5})       # noise that can be heard
THREE = Classify(classes=3)
FIRST_FEATURES, FIRST_THRESHOLDS = [2, 0, 1, 0, 1, 0, 0], [0.591447, 0.574268]


class Silent:
    """Noise that is not there: what is added up is seen."""

    def random(self, size):
        return np.zeros(size)

    def normal(self, scale, size):
        return np.zeros(size)


def rows(count: int, seed: int = 0, classes: int = 2) -> Examples:
    generator = np.random.default_rng(seed)
    features_NF = generator.normal(size=(count, F)).astype(np.float32)
    return Examples(features_NF, (generator.random(count) * classes).astype(np.int64))


def take(examples: Examples, places) -> Examples:
    return Examples(examples.inputs[INPUT][places], examples.targets[TARGET][places], examples.counts_N[places])


def nothing(task=CLASSIFY, trees: Trees = TREES):
    return {GROWN: np.zeros(1, np.float32), LEAVES: np.zeros((trees.trees, trees.leaves, outputs_of(task)), np.float32)}


def trained(parts: list[Examples], task=CLASSIFY, trees: Trees = TREES):
    """Without noise, every part a site that counts by its rows, as the engine's weighted mean has it."""
    model, weight_N = nothing(task, trees), np.array([len(part) for part in parts], float)
    for _ in range(trees.rounds):
        sent_ND = np.stack([flatten(sums(trees, task, model, part, NoMechanism(), Silent())) for part in parts])
        mean_D = (weight_N @ sent_ND.astype(float) / weight_N.sum()).astype(np.float32)
        model = grow(trees, task, model, mean_D, weight_N.sum(), noised=False)
    return model


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


@given(st.floats(0, 1), st.integers(0, 1))
def test_a_row_of_two_classes_is_never_longer_than_one(chance, label):
    output = np.array([[math.log(max(chance, 1e-300)) - math.log1p(-min(chance, 1 - 1e-16))]])
    g, h = slopes(CLASSIFY, output, {TARGET: np.array([label])})
    assert g[0, 0] ** 2 + CLASSIFY.steepness.curvature ** 2 * h[0, 0] ** 2 <= 1 + 1e-12


@given(st.lists(st.floats(-40, 40), min_size=3, max_size=3), st.integers(0, 2))
def test_a_row_of_more_classes_is_never_longer_than_the_square_root_of_two(output, label):
    g_NK, h_NK = slopes(THREE, np.array([output]), {TARGET: np.array([label])})
    bound = THREE.steepness
    assert np.sum(g_NK ** 2) + bound.curvature ** 2 * np.sum(h_NK ** 2) <= bound.length ** 2 + 1e-12


SPENT = {TARGET: np.array([1.0, 5, 9, 3, 7], np.float32)}
NUMBERS = {
    "squared": (Regress(bounds=(0.0, 10.0)), SPENT),
    "huber": (Regress(bounds=(0.0, 10.0), loss="huber"), SPENT),
    "quantile": (Regress(bounds=(0.0, 10.0), loss="quantile", quantile=0.9), SPENT),
    "count": (Count(max=20.0), {TARGET: np.array([0.0, 1, 2, 5, 9], np.float32)}),
    "survival": (Survive(edges=(1.0, 2.0, 4.0)), {"time": np.array([0.5, 1.5, 1.0, 9, 3], np.float32),
                                                  "event": np.array([1, 1, 0, 1, 0])})}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_counts_and_times_have_the_slopes_of_their_loss(name):
    import torch

    task, targets = NUMBERS[name]
    raw_NK = np.random.default_rng(3).normal(size=(5, outputs_of(task)))
    raw = torch.from_numpy(raw_NK).requires_grad_()
    task.losses(task.outputs(raw, 5), {key: torch.from_numpy(array) for key, array in targets.items()}).sum().backward()
    g_NK, h_NK = slopes(task, raw_NK, targets)
    assert g_NK == pytest.approx(raw.grad.numpy(), abs=1e-6)
    assert (h_NK >= 0).all()


@pytest.mark.parametrize("name", NUMBERS)
def test_trees_learn_numbers_counts_and_times_and_pooled_is_federated(name):
    task, targets = NUMBERS[name]
    generator = np.random.default_rng(4)
    features_NF, place_N = generator.normal(size=(120, F)).astype(np.float32), generator.integers(0, 5, 120)
    features_NF[:, 0] = place_N / 5
    everything = Examples(features_NF, {key: array[place_N] for key, array in targets.items()})
    parts = [everything.at(slice(start, start + 30)) for start in range(0, 120, 30)]
    pooled = trained([everything], task)
    assert flatten(trained(parts, task)).tobytes() == flatten(pooled).tobytes()
    before, after = (_mean_loss(task, model, everything) for model in (nothing(task), pooled))
    assert after < before


def _mean_loss(task, model, examples) -> float:
    import torch

    raw = torch.from_numpy(outputs(TREES, model, examples.inputs[INPUT]))
    return float(task.losses(task.outputs(raw, len(examples)),
                             {key: torch.from_numpy(array) for key, array in examples.targets.items()}).mean())


def test_a_task_that_is_no_number_of_a_row_is_refused_in_words():
    with pytest.raises(ContractError, match="take a model of your own"):
        outputs_of(NextToken(vocabulary=5))


def test_derivatives_are_those_of_the_loss():
    for task in (CLASSIFY, THREE):
        outputs_NK, labels_N = np.random.default_rng(0).normal(size=(5, outputs_of(task))), np.arange(5) % task.classes
        g_NK, h_NK = slopes(task, outputs_NK, {TARGET: labels_N})
        for place in np.ndindex(outputs_NK.shape):
            up, down = outputs_NK.copy(), outputs_NK.copy()
            up[place] += 1e-5
            down[place] -= 1e-5
            assert g_NK[place] == pytest.approx((_loss(task, up, labels_N) - _loss(task, down, labels_N)) / 2e-5, abs=1e-8)
            above, below = (slopes(task, moved, {TARGET: labels_N})[0][place] for moved in (up, down))
            assert h_NK[place] == pytest.approx((above - below) / 2e-5, abs=1e-8)


def _loss(task, output_NK, labels_N) -> float:
    if task.classes == 2:
        sign_N = 2 * labels_N - 1
        return float(np.log1p(np.exp(-sign_N * output_NK[:, 0])).sum())
    return float((np.log(np.exp(output_NK).sum(axis=1)) - output_NK[np.arange(len(labels_N)), labels_N]).sum())


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


def test_xgboost_s_file_says_the_same_trees():
    """An independent walk of the JSON, as its readers walk: left below the condition."""
    for task in (CLASSIFY, THREE):
        model = trained([rows(120, 1, task.classes)], task)
        learner = json.loads(to_xgboost(TREES, task, model, ["a", "b", "c"]))["learner"]
        x_NF = rows(40, 2).inputs[INPUT]
        x_NF[:12, 0] = splits(TREES).threshold_TM[:, 0]          # on a threshold
        found = np.zeros((40, outputs_of(task)))
        booster = learner["gradient_booster"]["model"]
        for tree, output in zip(booster["trees"], booster["tree_info"], strict=True):
            assert np.isclose(sum(tree["sum_hessian"][-TREES.leaves:]), 1)
            for place, row in enumerate(x_NF):
                node = 0
                while tree["left_children"][node] >= 0:
                    below = row[tree["split_indices"][node]] < np.float32(tree["split_conditions"][node])
                    node = tree["left_children" if below else "right_children"][node]
                found[place, output] += tree["split_conditions"][node]
        assert found == pytest.approx(outputs(TREES, model, x_NF), abs=1e-6)
        assert len(booster["trees"]) == TREES.trees * outputs_of(task)


@pytest.mark.parametrize("task", [CLASSIFY, THREE, Regress(bounds=(-3, 50)), Count(max=20), Survive(edges=(1, 2, 5))],
                         ids=lambda task: f"{task.kind}-{outputs_of(task)}")
def test_xgboost_itself_reads_the_file_and_predicts_what_the_model_answers(task):
    """Also of a model that has not grown all of its trees, and on thresholds."""
    xgboost, torch = pytest.importorskip("xgboost"), pytest.importorskip("torch")
    generator, width = np.random.default_rng(5), outputs_of(task)
    model = nothing(task)
    model[GROWN][0] = 8
    model[LEAVES][:8] = generator.normal(scale=0.05, size=(8, TREES.leaves, width))
    x_NF = rows(300, 6).inputs[INPUT]
    x_NF[:12, 0] = splits(TREES).threshold_TM[:, 0]
    booster = xgboost.Booster()
    booster.load_model(bytearray(to_xgboost(TREES, task, model, ["a", "b = [1]", "c < 2"])))
    assert booster.num_boosted_rounds() == 8
    found = booster.predict(xgboost.DMatrix(x_NF, feature_names=booster.feature_names))
    if task.kind == "survive":                  # XGBoost tells the chance of an event in each interval
        found = np.cumprod(1 - found, axis=1)
    raw_NK = torch.from_numpy(outputs(TREES, model, x_NF))
    answers = task.answers(raw_NK if width > 1 else raw_NK[:, 0]).numpy()
    assert np.ptp(answers, axis=0).min() > 0
    assert found == pytest.approx(answers, rel=1e-5, abs=1e-6)


# -- structure ---------------------------------------------------------------------------------------------------------


def test_structure_is_a_function_of_public_settings_alone_and_grows_at_its_end():
    """No argument holds a row; settings that do not belong to the structure do not change it."""
    few, many = splits(TREES), splits(TREES.model_copy(update={"rounds": 9, "learning_rate": 1.0, "l2": 1.0}))
    assert many.threshold_TM[:TREES.trees].tobytes() == few.threshold_TM.tobytes()
    assert many.feature_TM[:TREES.trees].tobytes() == few.feature_TM.tobytes()
    assert (splits(TREES.model_copy(update={"seed": 1})).threshold_TM != few.threshold_TM).any()


def test_structure_is_the_same_in_every_version():
    found = splits(TREES)
    assert found.feature_TM[0].tolist() == FIRST_FEATURES
    assert found.threshold_TM[0, :2].tolist() == pytest.approx(FIRST_THRESHOLDS, abs=1e-6)


def test_a_split_divides_what_the_splits_above_it_have_left():
    trees = Trees(rounds=50, per_round=1, depth=3, axes=(Axis(either=True), Axis(either=True), Axis(either=True), Axis()))
    found, repeated = splits(trees), 0
    for feature_M, threshold_M in zip(found.feature_TM, found.threshold_TM, strict=True):
        for node in range(1, 7):
            below, low, high = node, 0.0, 1.0
            while below:
                above = (below - 1) // 2
                if feature_M[above] == feature_M[node]:
                    repeated += feature_M[node] < 3
                    at, is_right = threshold_M[above], below % 2 == 0
                    low, high = (max(low, at), high) if is_right else (low, min(high, at))
                below = above
            if feature_M[node] == 3:
                assert low < threshold_M[node] < high
    assert repeated < 10        # of 300 nodes: what is 0 or 1 is asked about once; a fourth of them would be, by chance


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([-1, 1]))
def test_what_should_rise_rises_and_what_should_fall_falls_whatever_the_rows_say(seed, sign):
    """The labels are against it, or chance; every tree keeps it, and so does their sum."""
    trees = TREES.model_copy(update={"axes": (Axis(low=-3, high=3, rises=sign), Axis(low=-3, high=3), Axis(low=-3, high=3))})
    examples = rows(80, seed)
    against_N = (examples.inputs[INPUT][:, 0] * sign < 0).astype(np.int64) if seed % 2 else examples.targets[TARGET]
    model = trained([Examples(examples.inputs[INPUT], against_N)], trees=trees)
    walk_NF = np.repeat(examples.inputs[INPUT][:10], 40, axis=0)
    walk_NF[:, 0] = np.tile(np.linspace(-3, 3, 40), 10)
    steps = np.diff(outputs(trees, model, walk_NF)[:, 0].reshape(10, 40), axis=1) * sign
    assert steps.min() >= -1e-9
    assert seed % 2 or model[LEAVES].any()


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


def test_more_classes_grow_as_many_outputs_in_every_tree():
    model = trained([rows(90, 5, 3)], THREE)
    assert model[LEAVES].shape == (TREES.trees, TREES.leaves, 3)
    assert grown(model) == TREES.trees
    assert all(model[LEAVES][:, :, output].any() for output in range(3))
