"""What travels, what stays and what rests: training a model in parts is training it, and only what leaves differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedround.codec import flatten, schema_of, unflatten
from fedround.errors import ContractError
from fedround.learning.algorithms import FedProx, Scaffold
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.parts import Rest, divide
from fedround.learning.recipe import Recipe, initial, schemas
from fedround.learning.spec import LocalTraining, Parts
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianUpdate, NoMechanism

HEAD = Parts(private=("2.*",))
TRAINING = LocalTraining(local_steps=3, batch_size=20, learning_rate=0.5, momentum=0.5, algorithm=FedProx(mu=0.1))
NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")
PER_RECORD = [DpSgd(noise_multiplier=1.0, clip_norm=0.5, sampling_rate=0.5, steps=3),
              DpSgd(noise_multiplier=1.0, count_noise_std=5.0, clip_norm=0.5, sampling_rate=0.5, steps=3),
              DpFtrl(noise_multiplier=1.0, clip_norm=0.5, batch_size=10, steps=3)]
UPDATE = GaussianUpdate(noise_multiplier=1.0, clip_norm=0.5)
NORMED = "nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))"
NORMS = Parts(private=("1.*",))


def trained(recipe: Recipe, parts: Parts, examples: Examples, mechanism, training: LocalTraining = TRAINING):
    base, rest = initial(recipe, 0, parts, per_record=mechanism in PER_RECORD)
    return base, rest, learn(recipe, base, examples, mechanism, training, rest=rest)


def learn(recipe, base, examples, mechanism, training=TRAINING, **more):
    return train(recipe, Lesson(base, examples, **more), training, mechanism, stream(bytes(32), b"a plan"), UNGUARDED)


@given(role=st.lists(st.sampled_from(("shared", "private", "frozen")), min_size=4, max_size=4))
@settings(max_examples=40)
def test_every_parameter_has_one_role_and_something_travels(role):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    named = {kind: tuple(name for name, its in zip(NAMES, role, strict=True) if its == kind)
             for kind in ("private", "frozen")}
    if "shared" not in role:
        with pytest.raises(ContractError, match="nothing would travel"):
            divide(model, Parts(**named), "small")
        return
    found = divide(model, Parts(**named), "small")
    assert sorted(spec.name for part in (found.shared, found.private, found.frozen) for spec in part) == sorted(NAMES)
    assert [spec.name for spec in found.private] == sorted(named["private"])
    assert [spec.name for spec in found.frozen] == sorted(named["frozen"])


@pytest.mark.parametrize("mechanism", [NoMechanism(), *PER_RECORD], ids=lambda how: how.kind)
def test_a_private_part_is_trained_clipped_and_noised_as_if_it_travelled(recipe, examples, mechanism):
    """To the bit. So under record privacy what stays is covered by the same promise, and may steer later updates."""
    base, rest, parted = trained(recipe, HEAD, examples, mechanism)
    whole_base, nothing, whole = trained(recipe, Parts(), examples, mechanism)
    assert nothing.whole == {}
    assert {*base} == {"0.weight", "0.bias"}
    assert {*rest.private} == {"2.weight", "2.bias"}
    for name in base:
        assert np.array_equal(parted.delta[name], whole.delta[name])
    for name in rest.private:
        assert parted.private[name] - whole_base[name] == pytest.approx(whole.delta[name], abs=1e-6)
        assert not np.array_equal(parted.private[name], rest.private[name])
    assert {*parted.delta} == {*base}
    assert parted.within_clip == whole.within_clip


def test_scaffold_corrects_what_travels_and_nothing_else(recipe, examples):
    training = LocalTraining(local_steps=3, batch_size=20, learning_rate=0.5, algorithm=Scaffold())
    base, rest = initial(recipe, 0, HEAD)
    shift = np.random.default_rng(0).normal(size=len(flatten(base))).astype(np.float32)
    parted = learn(recipe, base, examples, PER_RECORD[0], training, rest=rest, shift_D=shift)
    everywhere = {**unflatten(shift, schema_of(base)), **{name: np.zeros_like(array) for name, array in rest.private.items()}}
    whole = learn(recipe, {**base, **rest.private}, examples, PER_RECORD[0], training, shift_D=flatten(everywhere))
    assert all(np.array_equal(parted.delta[name], whole.delta[name]) for name in base)
    for name in rest.private:
        assert parted.private[name] - rest.private[name] == pytest.approx(whole.delta[name], abs=1e-6)


def test_under_site_privacy_only_what_leaves_is_clipped_and_noised(recipe, examples):
    _, _, plain = trained(recipe, HEAD, examples, NoMechanism())
    _, _, noised = trained(recipe, HEAD, examples, UPDATE)
    assert all(np.array_equal(noised.private[name], plain.private[name]) for name in plain.private)
    assert np.abs(flatten(noised.delta) - flatten(plain.delta)).min() > 1e-4


@pytest.mark.parametrize("mechanism", [NoMechanism(), *PER_RECORD, UPDATE], ids=lambda how: how.kind)
def test_frozen_tensors_are_used_and_are_not_trained(recipe, examples, mechanism):
    parts = Parts(private=("2.bias",), frozen=("0.*",))
    base, rest, result = trained(recipe, parts, examples, mechanism)
    assert {*base} == {*result.delta} == {"2.weight"}
    assert {*result.private} == {"2.bias"}
    other = Rest(rest.private, {name: array + 1 for name, array in rest.frozen.items()})
    again = learn(recipe, base, examples, mechanism, rest=other)
    assert not np.array_equal(again.delta["2.weight"], result.delta["2.weight"])


def test_a_parameter_that_the_recipe_does_not_train_is_frozen_without_being_named(recipe_with, examples):
    recipe = recipe_with("nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.Tanh(), nn.Linear(4, 1))")
    base, rest, result = trained(recipe, Parts(), examples, NoMechanism())
    assert {*base} == {"2.weight", "2.bias"}
    assert {*rest.frozen} == {"0.weight", "0.bias"}
    assert result.private == {}
    with pytest.raises(ContractError, match="differ in 0"):
        learn(recipe, base, examples, NoMechanism())
    with pytest.raises(ContractError, match="does not train '0.bias'"):
        learn(recipe, {**base, **rest.frozen}, examples, NoMechanism())


@pytest.mark.parametrize(("parts", "says"), [
    (Parts(private=("head.*",)), "no parameter that fits the pattern 'head"),
    (Parts(frozen=("body.*",)), "no parameter that fits the pattern 'body"),
    (Parts(private=("2.*",), frozen=("2.bias",)), "'2.bias' would be private, which is trained, and frozen"),
    (Parts(private=("*",)), "nothing would travel"),
])
def test_parts_that_do_not_fit_the_model_are_refused(recipe, parts, says):
    with pytest.raises(ContractError, match=says):
        schemas(recipe, parts)


def test_private_normalisation_keeps_its_statistics_from_round_to_round(recipe_with, examples):
    """FedBN: scale, shift, mean and variance of a layer are the site's own; the next round goes on with them."""
    recipe = recipe_with(NORMED)
    base, rest, result = trained(recipe, NORMS, examples, NoMechanism())
    assert {*result.private} == {"1.weight", "1.bias", "1.running_mean", "1.running_var"}
    assert not {*result.delta} & {*result.private}
    assert not np.array_equal(result.private["1.running_mean"], rest.private["1.running_mean"])
    one, other = (scores(recipe, {**base, **private}, examples) for private in (rest.private, result.private))
    assert not np.array_equal(one["score"], other["score"])


def test_a_batch_of_one_row_has_no_statistics_and_teaches_nothing(recipe_with, examples):
    recipe, one = recipe_with(NORMED), Examples(examples.inputs["x"][:1], examples.targets["y"][:1])
    _, rest, result = trained(recipe, NORMS, one, NoMechanism(), LocalTraining(local_steps=2))
    assert not flatten(result.delta).any()
    assert np.array_equal(result.private["1.running_var"], rest.private["1.running_var"])


@pytest.mark.parametrize(("parts", "mechanism"), [(NORMS, PER_RECORD[0]), (Parts(), NoMechanism()),
                                                  (Parts(private=("1.weight",)), NoMechanism())])
def test_batch_statistics_are_refused_where_they_would_mix_protected_records_or_travel(recipe_with, parts, mechanism):
    recipe = recipe_with(NORMED)
    with pytest.raises(ContractError, match="'1' is BatchNorm1d"):
        initial(recipe, 0, parts, per_record=mechanism in PER_RECORD)


def test_training_itself_refuses_batch_statistics_under_record_privacy(recipe_with, examples):
    recipe = recipe_with(NORMED)
    base, rest = initial(recipe, 0, NORMS, per_record=False)
    with pytest.raises(ContractError, match="'1' is BatchNorm1d"):
        learn(recipe, base, examples, PER_RECORD[0], rest=rest)
