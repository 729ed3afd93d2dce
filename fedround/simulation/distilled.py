"""Federated distillation: sites exchange their models' predictions on public rows ("answers") instead of weights.

Sites may then have different models, and what travels grows with the public rows, not with the model. Simulated only: no
live plan asks for it.

Privacy. Answers are computed from a model that saw the records, so they tell of records as the model does; nothing is added
to them before they leave. With an agreement that has privacy under the unit `record`, models are trained by that mechanism,
and answers are post-processing of what it released: a site's epsilon is the agreement's, however many public rows are asked.
This has the accuracy cost of DP-SGD, and small sites lose most: noise is not averaged over sites before the model is used.
Without privacy the answers leave as they are, and a membership test on them works as on the model. Under the unit `site`
nothing is offered: a site's own model never leaves, so there is no update to clip.

Legend: N public rows, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedround.agreement import Agreement
from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.batch import tensors_of
from fedround.learning.examples import Arrays, Examples, rows_in
from fedround.learning.furnished import check_fits
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpSgd, NoMechanism, NoPrivacy, TrainingMechanism
from fedround.rounds.campaign import mechanism_for
from fedround.spoken import how_many
from fedround.values import Value

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Party:
    """A site with a model of its own."""

    recipe: Recipe
    train: Examples


@dataclass(frozen=True, eq=False)
class Teacher:
    """Somebody whose answers are learnt."""

    recipe: Recipe
    model: Tensors
    weight: float = 1.0


class Study(Value):
    """How a model learns from answers: full passes over the public rows with Adam, in batches."""

    passes: Annotated[int, Field(ge=1)] = 5
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.003


USUAL = Study()


@dataclass(frozen=True, eq=False)
class Answered:
    """What a campaign of answers gives."""

    models: Mapping[str, Tensors]
    """Every site's own."""
    answers_NC: Float32
    """The last round's consensus: the mean chance of each class for each public row."""
    sent_bytes: int
    """The answers up and the consensus down, over all rounds and sites, float32; public rows are with everybody before."""


def answer(recipe: Recipe, model: Tensors, public: Arrays) -> Float32:
    """The chance of each class for every row, (N, C). Raises ContractError unless the recipe tells classes apart."""
    import torch

    classes, module = _classes(recipe), recipe.build_model().eval()
    check_fits(recipe, module, model)
    with torch.no_grad():
        chances: Float32 = recipe.task.answers(
            recipe.objective(module).outputs(tensors_of(model), tensors_of(public))).numpy()
    return np.stack([1 - chances, chances], axis=1) if classes == 2 else chances


def consensus(answers: Iterable[tuple[float, Float32]]) -> Float32:
    """The weighted mean of answers, (N, C).

    Of chances, not of logits (FedMD and FedDF mean logits): a chance is at most 1, so one site moves the mean by its share of
    the weight at most, however confident it claims to be.
    """
    weights, answers_SNC = zip(*answers, strict=True)
    mean_NC: Float32 = np.average(np.stack(answers_SNC), axis=0, weights=weights).astype(np.float32)
    return mean_NC


def study(recipe: Recipe, model: Tensors, public: Arrays, answers_NC: Float32, how: Study, seed: int) -> Tensors:
    """The model after it has learnt to give these answers (cross-entropy with soft labels: Hinton et al. 2015,
    arXiv:1503.02531, at temperature 1). Deterministic in `seed`. Raises ContractError unless answers fit rows and recipe.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    classes, rows = _classes(recipe), rows_in(public)
    if answers_NC.shape != (rows, classes):
        raise ContractError(f"recipe '{recipe.name}': answers are of shape {answers_NC.shape}, expected ({rows}, {classes})")
    module = recipe.build_model()
    check_fits(recipe, module, model)
    objective, generator = recipe.objective(module), np.random.default_rng(seed)
    weights = {name: torch.from_numpy(tensor.copy()).requires_grad_() for name, tensor in model.items()}
    descent = torch.optim.Adam(weights.values(), lr=how.learning_rate)
    inputs, answers = tensors_of(public), torch.from_numpy(answers_NC)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)         # for dropout and the like inside the model
        for _ in range(how.passes):
            order = torch.from_numpy(generator.permutation(rows))
            for some in torch.split(order, how.batch_size):
                logits: Any = objective.outputs(weights, {name: part[some] for name, part in inputs.items()})
                loss = (binary_cross_entropy_with_logits(logits, answers[some, 1]) if classes == 2
                        else cross_entropy(logits, answers[some]))
                descent.zero_grad()
                torch.autograd.backward(loss)
                descent.step()
    return {name: part.detach().numpy() for name, part in weights.items()}


def fedmd(agreement: Agreement, parties: Mapping[str, Party], public: Arrays, *, rounds: int, seed: int,
          how: Study = USUAL) -> Answered:
    """FedMD (Li and Wang 2019, arXiv:1910.03581): in every round each site trains its own model on its own rows by
    `agreement.training` and answers the public rows; then it learns the consensus of all answers, weighted by rows.

    Aggregation rule, server optimizer, compression and quorum of the agreement mean nothing here.
    Deterministic in `seed`. Raises ContractError for privacy that no `DpSgd` keeps, or that lasts for fewer rounds, and
    unless all recipes tell the same classes apart.
    """
    training, mechanisms = agreement.training, _mechanisms(agreement, parties, rounds)
    if not isinstance(training, LocalTraining):
        raise ContractError("a site that learns a consensus takes gradient steps: agree on these, not on trees")
    models = {name: initial_tensors(party.recipe, seed) for name, party in parties.items()}
    for number in range(1, rounds + 1):
        for name, party in parties.items():
            delta = train(party.recipe, Lesson(models[name], party.train), training, mechanisms[name],
                          stream(bytes(32), f"{seed} {number} {name}".encode()), UNGUARDED).delta
            models[name] = {part: models[name][part] + delta[part] for part in delta}
        agreed_NC = consensus((len(party.train), answer(party.recipe, models[name], public))
                              for name, party in parties.items())
        for name, party in parties.items():
            models[name] = study(party.recipe, models[name], public, agreed_NC, how, number)
    return Answered(models, agreed_NC, 2 * rounds * len(parties) * agreed_NC.nbytes)


def distil(student: Recipe, teachers: Iterable[Teacher], public: Arrays, *, seed: int, start: Tensors | None = None,
           how: Study = USUAL) -> Tensors:
    """A model that answers as the teachers do together.

    With one teacher and a smaller recipe: a student for small machines. With the models of all sites after a round, and their
    mean as `start`: the server's step of FedDF (Lin et al. 2020, arXiv:2006.07242). It uses only the teachers' answers, so a
    student of private models is as private as they are.
    """
    agreed_NC = consensus((teacher.weight, answer(teacher.recipe, teacher.model, public)) for teacher in teachers)
    return study(student, initial_tensors(student, seed) if start is None else start, public, agreed_NC, how, seed)


def _classes(recipe: Recipe) -> int:
    if recipe.task.labels is None:
        raise ContractError(f"recipe '{recipe.name}' learns {recipe.task.in_words}: only the chances of classes can be "
                            "answered and studied, so it takes TASK = Classify(classes=…)")
    return recipe.task.labels


def _mechanisms(agreement: Agreement, parties: Mapping[str, Party], rounds: int) -> dict[str, TrainingMechanism]:
    privacy = agreement.privacy
    if len({party.recipe.task for party in parties.values()}) != 1 or rounds < 1:
        raise ContractError("answers can be compared if there are sites, a round at least, and the same classes in every "
                            "recipe")
    if not isinstance(privacy, NoPrivacy) and privacy.rounds < rounds:
        raise ContractError(f"the privacy that was agreed pays for {how_many(privacy.rounds, 'round')}, {rounds} are asked")
    found = {name: mechanism_for(privacy, agreement.training, agreement.evaluation, len(party.train), drift=agreement.drift)
             for name, party in parties.items()}
    if not all(isinstance(mechanism, NoMechanism) or (isinstance(mechanism, DpSgd) and mechanism.count_noise_std is None)
               for mechanism in found.values()):
        raise ContractError("answers leave without noise of their own, so the model must be private when it is trained: "
                            "agree on unit 'record' with the mechanism 'dp_sgd' and a fixed clip norm, or on unit 'none'")
    return found
