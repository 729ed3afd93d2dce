"""A recipe that cannot be trained is known before anything is charged."""

from __future__ import annotations

import pytest

from fedround.errors import ContractError
from fedround.learning import trial
from fedround.learning.examples import Form, Shape
from fedround.learning.spec import Parts
from fedround.learning.trial import SLOW, SOME_SLOW, try_out


def written(forward: str, base: str = "nn.Linear", built: str = "3, 1") -> str:
    """A layer with a forward pass of its own, as an expression."""
    return f"type('Own', ({base},), {{'forward': lambda self, x: {forward}}})({built})"


WORKS = {
    "linear": "nn.Linear(3, 1)",
    "dropout": "nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))",
    "convolution": "nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(2, 1))",
    "embedding": f"nn.Sequential({written('x.long()', 'nn.Module', '')}, nn.Embedding(1, 2), nn.Flatten(), nn.Linear(6, 1))",
    "no zeros": written("nn.Linear.forward(self, x / x.norm(dim=1, keepdim=True))"),
    "in place": written("nn.Linear.forward(self, x.clone().mul_(2))"),
    "lstm": written("nn.LSTM.forward(self, x[:, :, None])[0][:, -1]", "nn.LSTM", "1, 1, batch_first=True"),
    "gru": written("nn.GRU.forward(self, x[:, :, None])[0][:, -1]", "nn.GRU", "1, 1, batch_first=True"),
}
SLOWLY = {"looks at a number": written("nn.Linear.forward(self, x if float(x.sum()) > 5 else 2 * x)")}
PARTLY = {"_weight_norm": "nn.utils.parametrizations.weight_norm(nn.Linear(3, 1))",
          "bilinear": written("nn.Bilinear.forward(self, x, x)", "nn.Bilinear", "3, 3, 1")}
FAILS = {
    "wrong output": ("nn.Linear(3, 2)", "must give one logit for each row"),
    "other features": ("nn.Linear(4, 1)", "RuntimeError"),
    "nan": (written("nn.Linear.forward(self, x) * float('nan')"), "not a finite number"),
    "batch of one": (written("nn.Linear.forward(self, x) if len(x) > 1 else 1 / 0"), "ZeroDivisionError"),
    "batch statistics": ("nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))", "BatchNorm1d"),
    "raises": (written("[][0]"), "IndexError"),
    "exits": (written("exit()"), "SystemExit"),
    "exits when built": ("exit()", "cannot be built \\(SystemExit"),
    "not built": ("nn.Linear(3)", "cannot be built \\(TypeError"),
}
THREE = Form((Shape("x", "float32", (3,)),), (Shape("y", "int64", ()),))


@pytest.mark.parametrize("kind", WORKS)
def test_a_model_that_works_says_nothing(recipe_with, kind):
    assert try_out(recipe_with(WORKS[kind]), THREE) == ()


@pytest.mark.parametrize("kind", SLOWLY)
def test_a_model_that_torch_cannot_map_over_rows_works_with_a_note(recipe_with, kind):
    assert try_out(recipe_with(SLOWLY[kind]), THREE) == (SLOW,)


@pytest.mark.parametrize("kind", PARTLY)
def test_a_function_that_torch_computes_row_after_row_is_named(kind, recipe_with):
    assert try_out(recipe_with(PARTLY[kind]), THREE) == (SOME_SLOW.format(kind),)


@pytest.mark.parametrize("kind", FAILS)
def test_a_model_that_cannot_be_trained_is_a_sentence(recipe_with, kind):
    model, says = FAILS[kind]
    with pytest.raises(ContractError, match=says) as refused:
        try_out(recipe_with(model), THREE)
    assert "recipe 'small'" in str(refused.value)


def test_statistics_of_batches_are_well_where_no_record_is_promised_anything(recipe_with):
    recipe = recipe_with("nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))")
    assert try_out(recipe, THREE, Parts(private=("1.*",)), per_record=False) == ()


def test_it_is_tried_once(recipe_with, monkeypatch):
    try_out(recipe_with(WORKS["linear"]), THREE)
    monkeypatch.setattr(trial, "_try", lambda *_: pytest.fail("again"))
    assert try_out(recipe_with(WORKS["linear"]), THREE) == ()
