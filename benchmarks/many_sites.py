"""Plain steps of many sites at once, for judging methods before they are built: which parameters stay at a site, which are
trained in a step, and whose are averaged.

S sites, B rows of a batch, R the most rows of a site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import torch

from fedround.learning.examples import Examples

Weights = dict[str, torch.Tensor]
"""Parameters by name, (S, ...) each."""
Forward = Callable[[Mapping[str, torch.Tensor], torch.Tensor], torch.Tensor]
"""Weights and rows, (S, B, features), to logits, (S, B, outputs)."""
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits and labels, (S, B), to losses, (S, B)."""


@dataclass(frozen=True)
class Plan:
    """What is done in every round."""

    private: tuple[str, ...] = ()
    """Patterns of parameters that stay at their sites."""
    frozen: tuple[str, ...] = ()
    """Patterns of parameters that nobody trains."""
    phases: tuple[tuple[int, str], ...] = ((10, "*"),)
    """Steps, and the pattern of what is trained in them."""
    rounds: int = 30
    batch: int = 20
    rate: float = 0.1
    counts: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """How often a site's rows count in the average of a parameter, (S, ...); once, where it says nothing."""


def linear(weights: Mapping[str, torch.Tensor], name: str, x_SBI: torch.Tensor) -> torch.Tensor:
    """A layer of every site's own, with an adapter if there is one."""
    y_SBO = torch.baddbmm(weights[f"{name}.bias"][:, None], x_SBI, weights[f"{name}.weight"].transpose(1, 2))
    if f"{name}.A" in weights:
        inner = x_SBI @ weights[f"{name}.A"].transpose(1, 2)
        y_SBO = y_SBO + inner @ weights[f"{name}.B"].transpose(1, 2)
    return y_SBO


def everywhere(model: Mapping[str, np.ndarray | torch.Tensor], sites: int) -> Weights:
    """The same parameters at every site."""
    return {name: torch.as_tensor(one)[None].repeat(sites, *([1] * np.ndim(one))) for name, one in model.items()}


def trained(begin: Weights, rows: Sequence[Examples], forward: Forward, loss: Loss, plan: Plan, seed: int, *,
            alone: bool = False) -> Weights:
    """The weights of every site after the plan; alone: nothing is averaged."""
    generator = torch.Generator().manual_seed(seed)
    x_SRI, y_SR, count_S = _padded(rows)
    weights = {name: one.clone() for name, one in begin.items()}
    for _ in range(plan.rounds):
        for steps, pattern in plan.phases:
            names = [name for name in weights if fnmatchcase(name, pattern) and not _fits(name, plan.frozen)]
            for _ in range(steps):
                _step(weights, names, x_SRI, y_SR, count_S, forward, loss, plan, generator)
        for name in () if alone else [name for name in weights if not _fits(name, (*plan.private, *plan.frozen))]:
            share = count_S.reshape(-1, *([1] * (weights[name].ndim - 1))) * plan.counts.get(name, torch.ones(1))
            mean = (share * weights[name]).sum(0) / share.sum(0)
            weights[name] = mean[None].repeat(len(rows), *([1] * mean.ndim))
    return weights


def logits_of(weights: Weights, place: int, rows: Examples, forward: Forward) -> np.ndarray:
    """One site's model on these rows, (rows, outputs)."""
    own = {name: value[place:place + 1] for name, value in weights.items()}
    with torch.no_grad():
        return forward(own, torch.from_numpy(rows.inputs["x"])[None])[0].numpy()


def accuracy(weights: Weights, rows: Sequence[Examples], forward: Forward) -> float:
    """The mean over the sites, each on rows of its own."""
    found = []
    for place, one in enumerate(rows):
        logit_BO = logits_of(weights, place, one, forward)
        said_B = logit_BO.argmax(1) if logit_BO.shape[1] > 1 else logit_BO[:, 0] > 0
        found.append(float((said_B == one.targets["y"]).mean()))
    return float(np.mean(found))


def auc(weights: Weights, rows: Sequence[Examples], forward: Forward) -> float:
    """The same, as AUC."""
    from sklearn.metrics import roc_auc_score

    return float(np.mean([roc_auc_score(one.targets["y"], logits_of(weights, place, one, forward)[:, 0])
                          for place, one in enumerate(rows)]))


def _step(weights: Weights, names: list[str], x_SRI: torch.Tensor, y_SR: torch.Tensor, count_S: torch.Tensor,
          forward: Forward, loss: Loss, plan: Plan, generator: torch.Generator) -> None:
    place_SB = (torch.rand(len(count_S), plan.batch, generator=generator) * count_S[:, None]).long()
    site_S1 = torch.arange(len(count_S))[:, None]
    learning = {name: weights[name].requires_grad_() for name in names}
    total = loss(forward(weights, x_SRI[site_S1, place_SB]), y_SR[site_S1, place_SB]).mean(1).sum()
    gradients = torch.autograd.grad(total, list(learning.values()))
    for name, gradient in zip(names, gradients, strict=True):
        weights[name] = (weights[name] - plan.rate * gradient).detach()


def _padded(rows: Sequence[Examples]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    most = max(len(one) for one in rows)
    x_SRI = torch.zeros(len(rows), most, rows[0].inputs["x"].shape[1])
    y_SR = torch.zeros(len(rows), most, dtype=torch.long)
    for place, one in enumerate(rows):
        x_SRI[place, :len(one)] = torch.from_numpy(one.inputs["x"])
        y_SR[place, :len(one)] = torch.from_numpy(np.asarray(one.targets["y"], np.int64))
    return x_SRI, y_SR, torch.tensor([len(one) for one in rows])


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
