"""Answers instead of weights: other architectures take part, what travels does not grow with a model, and a small student
learns from a large teacher. And what privacy there is.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedround.agreement import Agreement
from fedround.codec import flatten
from fedround.errors import ContractError
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.tasks import Classify
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.distilled import Party, Study, Teacher, answer, consensus, distil, fedmd, study
from fedround.simulation.sites import Site

CLASSES, FEATURES = 4, 8


def recipe(hidden: int, classes: int = CLASSES) -> Recipe:
    outputs = 1 if classes == 2 else classes
    return Recipe(f"mlp-{hidden}", "0" * 64, lambda: nn.Sequential(
        nn.Linear(FEATURES, hidden), nn.Tanh(), nn.Linear(hidden, outputs)), lambda _: None, Classify(classes=classes))


LARGE, SMALL, LINEAR = recipe(64), recipe(6), Recipe("linear", "1" * 64, lambda: nn.Sequential(nn.Linear(FEATURES, CLASSES)),
                                                     lambda _: None, Classify(classes=CLASSES))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def rows(count: int, seed: int, labels: tuple[int, ...] = tuple(range(CLASSES))) -> Examples:
    """Four clouds; a row's label is its cloud."""
    generator = np.random.default_rng(seed)
    label_N = generator.choice(labels, count)
    centres = 1.6 * np.eye(CLASSES, FEATURES)
    return Examples((centres[label_N] + 0.7 * generator.standard_normal((count, FEATURES))).astype(np.float32), label_N)


PUBLIC, TEST = rows(300, seed=1).inputs, rows(600, seed=2)


def agreement(**changes: object) -> Agreement:
    return Agreement.model_validate({
        "name": "answers", "quorum": 1, "privacy": {"unit": "none"}, "aggregation": {"rule": {"name": "weighted_mean"}},
        "training": {"local_steps": 15, "batch_size": 40, "learning_rate": 0.3}} | changes)


def reached(own: Recipe, model) -> float:
    return own.task.metrics(scores(own, model, TEST)).accuracy


def parties() -> dict[str, Party]:
    """Each sees two labels of four; their models are as different as can be."""
    return {"north": Party(LARGE, rows(80, 3, (0, 1))), "south": Party(LINEAR, rows(80, 4, (2, 3))),
            "west": Party(SMALL, rows(80, 5, (0, 2)))}


def test_sites_with_other_architectures_learn_labels_that_they_never_saw():
    how = Study(passes=10, learning_rate=0.01)
    alone = {name: reached(party.recipe, fedmd(agreement(), {name: party}, PUBLIC, rounds=3, seed=0, how=how).models[name])
             for name, party in parties().items()}
    together = fedmd(agreement(), parties(), PUBLIC, rounds=3, seed=0, how=how)
    assert max(alone.values()) < 0.55                       # two labels of four, and no more
    for name, party in parties().items():
        assert reached(party.recipe, together.models[name]) > 0.7
        assert {part: tensor.shape for part, tensor in together.models[name].items()} == {
            part: tensor.shape for part, tensor in initial_tensors(party.recipe, 0).items()}


def test_what_travels_grows_with_public_rows_and_not_with_the_model():
    small, large = (fedmd(agreement(), {name: Party(own, party.train) for name, party in parties().items()}, PUBLIC, rounds=2,
                          seed=0) for own in (SMALL, LARGE))
    few = fedmd(agreement(), parties(), {name: part[:100] for name, part in PUBLIC.items()}, rounds=2, seed=0)
    assert small.sent_bytes == large.sent_bytes == 3 * few.sent_bytes == 2 * 2 * 3 * 300 * CLASSES * 4


def test_a_student_ten_times_smaller_does_nearly_as_well_as_its_teacher():
    sites = {"north": Site(rows(150, 3)), "south": Site(rows(150, 4))}
    teacher = simulate(agreement(), LARGE, sites, rounds=5, chance=Seeded(0)).model
    student = distil(SMALL, [Teacher(LARGE, teacher)], PUBLIC, seed=0, how=Study(passes=30, learning_rate=0.01))
    assert 10 * flatten(student).size < flatten(teacher).size
    assert reached(SMALL, initial_tensors(SMALL, 0)) < 0.5 < 0.8 < reached(LARGE, teacher)
    assert reached(SMALL, student) > reached(LARGE, teacher) - 0.03


def test_an_ensemble_teaches_what_no_teacher_knows_and_the_mean_of_models_is_a_start():
    """The server's step of FedDF: the clients' models, each of two labels, as teachers of one for four."""
    base = initial_tensors(SMALL, 0)
    own = {labels: simulate(agreement(), SMALL, {"site": Site(rows(100, 6, labels))}, rounds=4, chance=Seeded(0),
                            model=base).model for labels in ((0, 1), (2, 3))}
    mean = {name: np.mean([model[name] for model in own.values()], axis=0) for name in base}
    fused = distil(SMALL, [Teacher(SMALL, model) for model in own.values()], PUBLIC, seed=0, start=mean,
                   how=Study(passes=30, learning_rate=0.01))
    assert max(reached(SMALL, model) for model in own.values()) < 0.55
    assert reached(SMALL, fused) > 0.65


@given(st.integers(0, 2**31), st.floats(0.1, 10), st.floats(-1e6, 1e6))
def test_a_site_moves_the_consensus_by_its_weight_at_most_however_sure_it_is(seed, weight, push):
    generator = np.random.default_rng(seed)
    honest = [(float(generator.uniform(0.1, 10)), generator.dirichlet(np.ones(3), 5).astype(np.float32)) for _ in range(3)]
    liar = np.zeros((5, 3), np.float32)
    liar[:, 0 if push < 0 else 2] = 1
    share = weight / (weight + sum(own for own, _ in honest))
    moved = np.abs(consensus([*honest, (weight, liar)]) - consensus(honest)).max()
    assert moved <= share + 1e-6


def test_answers_are_chances_for_two_classes_and_for_more():
    for own, classes in ((recipe(5, 2), 2), (SMALL, CLASSES)):
        model = initial_tensors(own, 0)
        answers = answer(own, model, PUBLIC)
        assert answers.shape == (300, classes)
        assert answers.sum(axis=1) == pytest.approx(1, abs=1e-5)
        told = scores(own, model, Examples(PUBLIC, np.zeros(300, np.int64)))["score"]
        assert (answers[:, 1] if classes == 2 else answers.max(axis=1)) == pytest.approx(told, abs=1e-6)


def test_two_classes_are_learnt_from_answers_too():
    own, features = recipe(5, 2), rows(300, 1, (0, 1))
    answers = np.eye(2, dtype=np.float32)[features.targets["y"]]
    model = study(own, initial_tensors(own, 0), features.inputs, answers, Study(passes=20, learning_rate=0.02), seed=0)
    assert own.task.metrics(scores(own, model, rows(300, 2, (0, 1)))).auc > 0.9


# -- privacy -----------------------------------------------------------------------------------------------------------

RECORD = {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}


def test_with_privacy_models_are_trained_by_the_agreed_mechanism_and_that_costs():
    """The noise is there: answers with it are another thing than without, and teach less."""
    few = agreement(training={"local_steps": 3, "batch_size": 80, "learning_rate": 0.3}, privacy=RECORD)
    private = fedmd(few, parties(), PUBLIC, rounds=3, seed=0)
    open_ = fedmd(few.model_copy(update={"privacy": agreement().privacy}), parties(), PUBLIC, rounds=3, seed=0)
    assert np.abs(private.answers_NC - open_.answers_NC).mean() > 0.02
    again = fedmd(few, parties(), PUBLIC, rounds=3, seed=0)
    assert np.array_equal(private.answers_NC, again.answers_NC)


@pytest.mark.parametrize(("privacy", "says"), [
    (RECORD | {"unit": "site"}, "dp_sgd"), (RECORD | {"mechanism": "dp_ftrl"}, "dp_sgd"),
    (RECORD | {"adaptive": {"quantile": 0.5}}, "dp_sgd"), (RECORD | {"rounds": 2}, "pays for 2 rounds")],
    ids=["site", "dp-ftrl", "adaptive", "too few rounds"])
def test_privacy_that_answers_would_not_keep_is_refused(privacy, says):
    plan = agreement(training={"local_steps": 3, "batch_size": 20, "learning_rate": 0.3}, privacy=privacy)
    with pytest.raises(ContractError, match=says):
        fedmd(plan, parties(), PUBLIC, rounds=3, seed=0)


def test_answers_that_cannot_be_compared_are_refused():
    with pytest.raises(ContractError, match="the same classes"):
        fedmd(agreement(), {**parties(), "east": Party(recipe(5, 2), rows(20, 0, (0, 1)))}, PUBLIC, rounds=1, seed=0)
    with pytest.raises(ContractError, match="answers are of shape"):
        study(SMALL, initial_tensors(SMALL, 0), PUBLIC, np.ones((300, 3), np.float32), Study(), seed=0)
