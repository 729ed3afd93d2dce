"""What a model says of rows: a number in [0, 1] for each, and whether it is true."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fedround.errors import ContractError
from fedround.learning.evaluate import scores
from fedround.learning.examples import INPUT, Examples
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.tasks import Classify


def test_one_tensor_with_two_names_has_the_given_numbers_in_both_places(examples):
    """Its second name is not among the tensors that travel."""
    def build() -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Tanh(), torch.nn.Linear(3, 3, bias=False),
                                    torch.nn.Linear(3, 1, bias=False))
        model[2].weight = model[0].weight
        return model

    recipe = Recipe("tied", "0" * 64, build, lambda rows: rows, Classify())
    tensors = {"0.weight": np.eye(3, dtype=np.float32) * 2, "3.weight": np.ones((1, 3), np.float32)}
    expected_N = (2 * np.tanh(2 * examples.inputs[INPUT])).sum(1)
    assert scores(recipe, tensors, examples)["score"] == pytest.approx(1 / (1 + np.exp(-expected_N)), abs=1e-6)


def test_scores_are_probabilities_one_for_each_row(recipe, examples):
    tensors = initial_tensors(recipe, 0)
    marks = scores(recipe, tensors, examples)["score"]
    assert marks.shape == (len(examples),)
    assert marks.dtype == np.float64
    assert ((marks > 0) & (marks < 1)).all()
    a, w, b, v = (tensors[name] for name in ("0.bias", "0.weight", "2.bias", "2.weight"))
    by_hand = 1 / (1 + np.exp(-(np.tanh(examples.inputs["x"] @ w.T + a) @ v.T + b)[:, 0]))
    assert marks == pytest.approx(by_hand, abs=1e-6)


def test_no_rows_no_scores(recipe):
    empty = Examples(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert len(scores(recipe, initial_tensors(recipe, 0), empty)) == 0


def test_a_model_with_two_outputs_is_refused(recipe_with, examples):
    recipe = recipe_with("nn.Linear(3, 2)")
    with pytest.raises(ContractError, match="one logit for each row"):
        scores(recipe, initial_tensors(recipe, 0), examples)


def test_of_three_classes_the_chance_of_the_predicted_one_is_scored_against_whether_it_is_right(three_classes, three_labels):
    tensors = initial_tensors(three_classes, 0)
    told = scores(three_classes, tensors, three_labels)
    a, w, b, v = (tensors[name] for name in ("0.bias", "0.weight", "2.bias", "2.weight"))
    logits_NC = np.tanh(three_labels.inputs["x"] @ w.T + a) @ v.T + b
    chances_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)
    assert told["score"] == pytest.approx(chances_NC.max(axis=1), abs=1e-6)
    right_N = chances_NC.argmax(axis=1) == three_labels.targets["y"]
    assert np.array_equal(told["truth"], right_N)
    assert 0 < right_N.mean() < 1
    found = three_classes.task.metrics(told)
    assert (found.accuracy, found.rows) == (right_N.mean(), 60)


def test_a_model_with_fewer_logits_than_classes_and_other_labels_are_refused(three_classes, recipe_with, three_labels):
    narrow = dataclasses.replace(recipe_with("nn.Linear(3, 1)"), task=Classify(classes=3))
    with pytest.raises(ContractError, match="3 logits for each row"):
        scores(narrow, initial_tensors(narrow, 0), three_labels)
    two = dataclasses.replace(three_classes, task=Classify(classes=2))
    with pytest.raises(ContractError, match="from 0 to 1"):
        scores(two, initial_tensors(two, 0), three_labels)


# -- a row is in one count ---------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(recipe_with) -> tuple[Recipe, dict[str, np.ndarray], Examples]:
    """A base model whose logits are roundings: weights of ten million, and rows at right angles to them."""
    generator = np.random.default_rng(2)
    recipe = recipe_with("nn.Linear(57, 1)")
    weight_F = (generator.normal(size=57) * 1e7).astype(np.float32)
    x_NF = generator.normal(size=(300, 57)).astype(np.float32)
    x_NF[:, -1] = -(x_NF[:, :-1].astype(float) @ weight_F[:-1].astype(float) / weight_F[-1])
    return recipe, {"weight": weight_F[None], "bias": np.zeros(1, np.float32)}, Examples(x_NF, np.arange(300) % 2)


@pytest.mark.parametrize("gone", [0, 1, 128, 298, 299])
def test_a_row_that_leaves_moves_no_other_score_under_a_hostile_model(hostile, gone):
    """Rows are scored in chunks of one size: the last ones of a product of all rows are computed by other instructions, on
    processors with AVX-512 at least.
    """
    recipe, tensors, rows = hostile
    whole, others = scores(recipe, tensors, rows), np.arange(300) != gone
    assert len(np.unique(whole["score"].round())) == 2, "roundings decide on which side of one half a score is"
    left = scores(recipe, tensors, Examples(rows.inputs["x"][others], rows.targets["y"][others]))
    nothing = scores(recipe, tensors, Examples(np.where(others[:, None], rows.inputs["x"], 0), rows.targets["y"], others))
    for told in (left, nothing):
        assert np.array_equal(told["score"], whole["score"][others])
        assert np.array_equal(told["truth"], whole["truth"][others])


def test_attack_a_model_that_looks_at_the_whole_batch_sees_one_row(recipe_with, examples):
    """Normalising by the mean of a batch, written by hand, so that no check of layers finds it."""
    recipe = recipe_with("type('Pools', (nn.Linear,), {'forward': lambda self, x: "
                         "nn.Linear.forward(self, x - x.mean(0))})(3, 1)")
    tensors = initial_tensors(recipe, 0)
    alone = 1 / (1 + np.exp(-float(tensors["bias"][0])))
    assert scores(recipe, tensors, examples)["score"] == pytest.approx(alone)


def test_attack_a_row_on_which_the_model_raises_an_error_counts_for_nothing(recipe_with, examples):
    recipe = recipe_with("nn.Sequential(type('Whole', (nn.Module,), {'forward': lambda self, x: x.abs().long()})(), "
                         "nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 1))")
    tensors = initial_tensors(recipe, 0)
    whole = scores(recipe, tensors, examples)
    x_NF = examples.inputs["x"].copy()
    x_NF[7, 1] = 77
    told = scores(recipe, tensors, Examples(x_NF, examples.targets["y"]))
    assert np.array_equal(told["score"], np.delete(whole["score"], 7))


def test_a_model_that_torch_cannot_map_over_rows_scores_them_one_by_one(recipe_with, examples):
    recipe = recipe_with("type('Recurrent', (nn.LSTM,), {'forward': lambda self, x: "
                         "nn.LSTM.forward(self, x[:, :, None])[0][:, -1]})(1, 1, batch_first=True)")
    tensors = initial_tensors(recipe, 0)
    model = recipe.build_model()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    with torch.no_grad():
        expected = torch.sigmoid(model(torch.from_numpy(examples.inputs["x"])))[:, 0].numpy()
    assert scores(recipe, tensors, examples)["score"] == pytest.approx(expected, abs=1e-6)
