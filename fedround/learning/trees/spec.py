"""Boosted trees, as a value: what a recipe says instead of `build_model`, and what every plan of its rounds repeats."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from fedround.codec import Schema
from fedround.errors import ContractError
from fedround.learning.learner import AtOnce, ClassWeights
from fedround.spoken import how_many
from fedround.values import ColumnName, TensorSpec, Value

LEAVES, GROWN = "leaves", "grown"
"""The tensors of a model: (T, L, K), the leaves of all trees in the order in which they grow, 0 where none has grown yet; and
(1,), how many have."""

SLOPES, CURVATURES = "g", "h"
"""The tensors of an update: (P, B, L, K) each, a site's mean gradient and mean second derivative in each leaf, in units that
`fedround.learning.trees.losses` fixes."""

DIGITS = 3
"""Without noise a mean is sent as so many numbers (`fedround.learning.trees.exact`)."""


class Axis(Value):
    """One feature, as a tree sees it."""

    low: Annotated[float, Field(ge=-1e9, le=1e9)] = 0.0
    high: Annotated[float, Field(ge=-1e9, le=1e9)] = 1.0
    """Splits are drawn between these public bounds."""
    either: bool = False
    """Whether it is `low` or `high` and nothing between: then one split says all of it."""
    chance: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """How often it is drawn for a split, relative to others."""
    rises: Literal[-1, 0, 1] = 0
    """1: the output never falls when the feature grows; -1: it never rises; 0: it may do both."""


def _tuple(found: object) -> object:
    return tuple(found) if isinstance(found, list) else found


def _pairs(found: object) -> object:
    """A recipe writes a dict; a document holds pairs."""
    if isinstance(found, dict):
        return tuple(sorted(found.items()))
    return tuple(map(_tuple, found)) if isinstance(found, list | tuple) else found


class Trees(AtOnce):
    """Totally random trees, boosted (Maddock et al. 2022, arXiv:2210.02910): `per_round` of them in each of `rounds` rounds.

    How a tree splits is drawn from `seed` and the features' public bounds. No row is looked at, so it costs no privacy, and
    everybody who has read the recipe knows all trees beforehand. A site says only how steep the loss is in each leaf: the
    mean over its rows of the loss's first and second derivative there. The server sets each leaf of the round's trees to
    -learning_rate g / (h + l2), cut to ± learning_rate largest.

    l2 is a share of all rows: the curvature of a leaf with so many rows, of curvature 1 each, is halved in effect. (XGBoost's
    lambda is l2 times the number of rows.)
    """

    name: Literal["trees"] = "trees"
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 30
    per_round: Annotated[int, Field(ge=1, le=1_000)] = 10
    depth: Annotated[int, Field(ge=1, le=10)] = 4
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.1
    l2: Annotated[float, Field(gt=0, le=100)] = 0.005
    largest: Annotated[float, Field(gt=0, le=1e6)] = 2.0
    seed: Annotated[int, Field(ge=0, le=2 ** 53 - 1)] = 0
    features_per_tree: Annotated[int, Field(ge=1, le=1_000)] | None = None
    """So many are drawn for a tree, and all of its splits ask about these (with 1: `fedround.learning.trees.shapes`); None:
    about any."""
    axes: Annotated[tuple[Axis, ...], BeforeValidator(_tuple), Field(max_length=100_000)] = ()
    """Of the features, in their order. A recipe with COLUMNS leaves them out: they follow from it."""
    often: Annotated[tuple[tuple[ColumnName, Annotated[float, Field(ge=0, le=1e6)]], ...], BeforeValidator(_pairs)] = ()
    """By column: how often it is drawn for a split, relative to others, which have 1. Only in a recipe."""
    rises: Annotated[tuple[tuple[ColumnName, Literal[-1, 0, 1]], ...], BeforeValidator(_pairs)] = ()
    """By column: as `Axis.rises`. Only in a recipe."""

    @model_validator(mode="after")
    def _check_axes(self) -> Self:
        if self.axes and not any(axis.chance > 0 for axis in self.axes):
            raise ValueError("no feature is ever drawn for a split: give one a chance above 0")
        if wrong := next((axis for axis in self.axes if not axis.low < axis.high), None):
            raise ValueError(f"the bounds of a feature are {wrong.low:g} and {wrong.high:g}: low must be less than high")
        return self

    in_recipes: ClassVar[str] = "TREES"
    is_linear: ClassVar[bool] = True
    class_weights: ClassVar[ClassWeights] = ()
    batch_size: ClassVar[None] = None
    """All rows are summed."""

    @property
    def in_words(self) -> str:
        """For titles."""
        return f"{how_many(self.per_round, 'tree')} of depth {self.depth}"

    @property
    def trees(self) -> int:
        """T: how many there will be."""
        return self.rounds * self.per_round

    @property
    def leaves(self) -> int:
        """L: of one tree."""
        return 1 << self.depth

    def model(self, outputs: int) -> Schema:
        """The tensors of a model with K outputs."""
        return (TensorSpec(name=GROWN, shape=(1,)), TensorSpec(name=LEAVES, shape=(self.trees, self.leaves, outputs)))

    def sent(self, model: Schema, *, noised: bool) -> Schema:
        """The tensors of an update to such a model. noised: whether the sites add noise."""
        outputs = next((spec.shape[-1] for spec in model if spec.name == LEAVES), 0)
        if model != self.model(outputs):
            raise ContractError(f"the model has other tensors than {self.trees} trees of {self.leaves} leaves have: the run "
                                "began with other settings of trees; begin a new one")
        shape = (1 if noised else DIGITS, self.per_round, self.leaves, outputs)
        return tuple(TensorSpec(name=name, shape=shape) for name in (SLOPES, CURVATURES))
