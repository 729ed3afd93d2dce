"""Split learning at a cut layer: unprotected. What goes over the cut tells labels, and something of every row.

The site with the columns has the bottom half of a network and sends its last layer, the cut, of every row; the site with the
labels has the top half, which also reads its own columns, and sends back the gradient of each row's cut. Both halves learn
(Gupta and Raskar 2018, arXiv:1810.06060).

Promised: nothing. The gradient of a row's cut is that row's own, so whoever has the bottom half reads labels in it
(`by_norm`, `by_direction`: Li et al. 2021, arXiv:2102.08504). No question asks sites for it: it is here to be measured
(docs/vertical.md), and not in the package.

N rows, D columns, C numbers of the cut, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Weights = Mapping[str, Float64]

CUT, HIDDEN = 8, 32
_BETA_1, _BETA_2, _TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True, eq=False)
class Half:
    """One side's network of one hidden layer, and the state of its optimizer (Adam)."""

    weights: Weights
    first: Weights
    second: Weights
    steps: int = 0

    @classmethod
    def new(cls, inputs: int, outputs: int, seed: int) -> Half:
        """As it begins (He et al. 2015)."""
        generator = np.random.default_rng(seed)
        weights = {"in": generator.normal(size=(inputs, HIDDEN)) * np.sqrt(2 / inputs), "b": np.zeros(HIDDEN),
                   "out": generator.normal(size=(HIDDEN, outputs)) * np.sqrt(1 / HIDDEN), "c": np.zeros(outputs)}
        nothing = {name: np.zeros_like(value) for name, value in weights.items()}
        return cls(weights, nothing, nothing)

    def forward(self, input_ND: Float64) -> Float64:
        """What this half makes of each row, (N, outputs)."""
        return self._hidden(input_ND) @ self.weights["out"] + self.weights["c"]

    def step(self, input_ND: Float64, gradient_NO: Float64, rate: float) -> tuple[Half, Float64]:
        """The half after one step against the sum of the rows' gradients of its output; and of each row's input, (N, D)."""
        hidden_NH = self._hidden(input_ND)
        back_NH = (gradient_NO @ self.weights["out"].T) * (hidden_NH > 0)
        found = {"in": input_ND.T @ back_NH, "b": back_NH.sum(axis=0), "out": hidden_NH.T @ gradient_NO,
                 "c": gradient_NO.sum(axis=0)}
        steps = self.steps + 1
        first = {name: _BETA_1 * self.first[name] + (1 - _BETA_1) * g for name, g in found.items()}
        second = {name: _BETA_2 * self.second[name] + (1 - _BETA_2) * g ** 2 for name, g in found.items()}
        moved = {name: value - rate * (first[name] / (1 - _BETA_1 ** steps)) / (
            np.sqrt(second[name] / (1 - _BETA_2 ** steps)) + _TINY) for name, value in self.weights.items()}
        return Half(moved, first, second, steps), back_NH @ self.weights["in"].T

    def _hidden(self, input_ND: Float64) -> Float64:
        return np.maximum(input_ND @ self.weights["in"] + self.weights["b"], 0.0)


def top_step(top: Half, own_ND: Float64, cut_NC: Float64, label_N: npt.NDArray[np.int8], rate: float) -> tuple[Half, Float64]:
    """The top half after one step on these rows, and what it sends back: the gradient of each row's cut, (N, C)."""
    input_NE = np.column_stack([own_ND, cut_NC])
    chance_N1 = 1 / (1 + np.exp(-top.forward(input_NE)))
    gradient_N1 = (chance_N1 - label_N[:, None]) / len(label_N)
    moved, back_NE = top.step(input_NE, gradient_N1, rate)
    return moved, back_NE[:, own_ND.shape[1]:]


# -- what is read in what goes over the cut ----------------------------------------------------------------------------


def by_norm(gradient_NC: Float64) -> Float64:
    """A guess of each row's label, (N,), larger for the rarer one: a model is surer of the common label, so the rarer one's
    gradients are longer (Li et al. 2021, "norm attack").
    """
    return np.asarray(np.linalg.norm(gradient_NC, axis=1), dtype=np.float64)


def by_direction(gradient_NC: Float64, known: int) -> Float64:
    """A guess of each row's label, (N,), larger for that of the row `known`: gradients of one label point one way (Li et al.
    2021, "direction attack", by one row of the rarer label that the attacker happens to know).
    """
    direction_C = gradient_NC[known] / max(float(np.linalg.norm(gradient_NC[known])), _TINY)
    length_N = np.maximum(np.linalg.norm(gradient_NC, axis=1), _TINY)
    return np.asarray(gradient_NC @ direction_C / length_N, dtype=np.float64)
