"""Adapters on a tiny transformer: they begin as the model, they alone train, privately too, and they can be worked in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedround.codec import coordinates, flatten, schema_of
from fedround.errors import ContractError
from fedround.learning.batch import batch_of
from fedround.learning.examples import Examples
from fedround.learning.gradients import Clip, RowGradients, clipped_sum
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.lora import LoRALinear, adapt, merge
from fedround.learning.objective import Objective
from fedround.learning.parts import furnish
from fedround.learning.recipe import Recipe, initial
from fedround.learning.spec import LocalTraining, Parts
from fedround.learning.train import train
from fedround.privacy.noise import FINE, stream
from fedround.privacy.spec import DpSgd, NoMechanism
from tests.transformer import ADAPTED, Transformer, build_adapted, sentences

FACTORS = ("lora_A", "lora_B")


@pytest.fixture
def recipe() -> Recipe:
    return Recipe("tiny-transformer", "0" * 64, build_adapted, lambda rows: rows)


def logits(model: nn.Module, rows: Examples) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.from_numpy(rows.inputs["x"])).numpy()


def furnished(recipe: Recipe, *parts) -> nn.Module:
    model = recipe.build_model()
    for part in parts:
        furnish(model, part)
    return model


def learn(recipe: Recipe, rows: Examples, mechanism, steps: int = 3, rate: float = 0.5):
    base, rest = initial(recipe, 0)
    training = LocalTraining(local_steps=steps, batch_size=40, learning_rate=rate)
    return base, rest, train(recipe, Lesson(base, rows, rest), training, mechanism, stream(bytes(32), b"a plan"), UNGUARDED)


def test_an_adapted_model_begins_as_the_model_it_adapts():
    torch.manual_seed(0)
    model, rows = Transformer(), sentences(20, 0)
    before = logits(model, rows)
    assert np.array_equal(logits(adapt(model, ADAPTED, rank=2), rows), before)
    assert sum(isinstance(layer, LoRALinear) for layer in model.modules()) == 4


def test_only_adapters_and_the_named_head_train_and_travel(recipe):
    base, rest, result = learn(recipe, sentences(80, 1), NoMechanism())
    assert all(name.endswith(FACTORS) or name.startswith("head.") for name in base)
    assert {*result.delta} == {*base}
    assert len(base) == 4 * 2 + 2
    assert all(array.any() for name, array in result.delta.items() if name.endswith("lora_B"))
    assert len(flatten(base)) < len(flatten(rest.frozen)) / 20
    assert rest.private == {}
    assert not any(name.endswith(FACTORS) for name in rest.frozen)


@pytest.mark.parametrize("mechanism", [
    NoMechanism(), DpSgd(noise_multiplier=0.5, clip_norm=1.0, sampling_rate=0.5, steps=60)], ids=["plain", "dp_sgd"])
def test_trained_adapters_worked_into_their_layers_give_the_same_logits(recipe, mechanism):
    rows = sentences(80, 1)
    base, rest, result = learn(recipe, rows, mechanism, steps=60)
    after = {name: base[name] + result.delta[name] for name in base}
    model = furnished(recipe, after, rest.frozen)
    adapted, before = logits(model, rows), logits(furnished(recipe, base, rest.frozen), rows)
    assert np.abs(adapted - before).max() > 0.05
    merged = merge(model)
    assert not any(isinstance(layer, LoRALinear) for layer in merged.modules())
    assert {name for name, _ in merged.named_parameters()} == {name for name, _ in Transformer().named_parameters()}
    assert logits(merged, rows) == pytest.approx(adapted, abs=2e-5)


def test_adapters_learn_what_the_frozen_model_did_not_know(recipe):
    rows = sentences(300, 1)
    base, rest, result = learn(recipe, rows, NoMechanism(), steps=300, rate=0.3)
    after = {name: base[name] + result.delta[name] for name in base}
    found = logits(furnished(recipe, after, rest.frozen), sentences(200, 2))[:, 0] > 0
    assert float((found == sentences(200, 2).targets["y"]).mean()) > 0.9


def test_each_rows_gradient_is_clipped_over_the_adapters_alone(recipe):
    """Against a loop that knows one row at a time; the frozen model's gradients, far larger, take no room in the norm."""
    rows, (base, rest) = sentences(12, 3), initial(recipe, 0)
    generator = np.random.default_rng(0)
    base = {name: array + generator.normal(0, 0.3, array.shape).astype(np.float32) for name, array in base.items()}
    model = furnished(recipe, base, rest.frozen)
    clip, total = Clip(0.05, 0.05 / FINE), np.zeros(coordinates(schema_of(base)))
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for features, label in zip(torch.from_numpy(rows.inputs["x"]), torch.from_numpy(rows.targets["y"]), strict=True):
        loss = nn.functional.binary_cross_entropy_with_logits(model(features[None])[0, 0], label.float())
        gradients = torch.autograd.grad(loss, [trained[name] for name in sorted(trained)])
        vector = torch.cat([gradient.reshape(-1) for gradient in gradients]).double().numpy()
        total += vector * min(1.0, 0.05 / np.linalg.norm(vector))
    parameters = {name: torch.from_numpy(array) for name, array in base.items()}
    cells, _ = clipped_sum(RowGradients(Objective(model.requires_grad_(False))), parameters, batch_of(rows), clip)
    assert cells * clip.cell == pytest.approx(total, abs=1e-5)


def test_a_warm_start_fits_an_adapted_model_by_the_names_of_the_plain_one(recipe):
    torch.manual_seed(5)
    trained = {name: value.detach().numpy() for name, value in Transformer().named_parameters()}
    base, rest = initial(recipe, 0, start=trained)
    assert all(np.array_equal(rest.frozen[name], trained[name]) for name in rest.frozen)
    assert np.array_equal(base["head.weight"], trained["head.weight"])
    assert not base["blocks.0.query.lora_B"].any()


def test_parts_go_with_adapters(recipe):
    """Adapters travel, every site has a head of its own."""
    base, rest = initial(recipe, 0, Parts(private=("head.*",)))
    assert {*rest.private} == {"head.weight", "head.bias"}
    assert all(name.endswith(FACTORS) for name in base)


def test_what_cannot_be_adapted_is_said():
    with pytest.raises(ContractError, match="no linear layer fits the pattern 'query'"):
        adapt(Transformer(), ["query"], rank=2)
    with pytest.raises(ContractError, match="rank from 1 to 32, got 33"):
        adapt(Transformer(), ADAPTED, rank=33)
    with pytest.raises(ContractError, match="no parameter fits the pattern 'top"):
        adapt(Transformer(), ADAPTED, rank=2, also=["top.*"])
    with pytest.raises(ContractError, match="one linear layer"):
        adapt(nn.Linear(3, 3), ["*"], rank=1)


def test_alpha_scales_what_adapters_add():
    torch.manual_seed(0)
    layer = LoRALinear(6, 5, rank=2, alpha=8.0, bias=False)
    nn.init.normal_(layer.lora_B)
    rows = torch.randn(7, 6)
    assert torch.allclose(layer(rows), rows @ (layer.weight + 4 * layer.lora_B @ layer.lora_A).T, atol=1e-5)
    assert torch.allclose(layer.merged()(rows), layer(rows), atol=1e-5)
