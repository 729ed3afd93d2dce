"""What a recipe's file says, as a document: all of it but its functions. Where the file runs elsewhere, this comes back.

Whoever reads it knows the task, columns, targets, trees and the client; all that needs the recipe's code is asked of where
that code runs (`fedround.learning.apart`).
"""

from __future__ import annotations

from typing import Annotated, NoReturn

from pydantic import Field, StringConstraints

from fedround.errors import ContractError
from fedround.learning.apart import Apart
from fedround.learning.columns import Category, Columns
from fedround.learning.declared import InFile, Target
from fedround.learning.foreign.spec import Foreign
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import Task
from fedround.learning.trees.declared import builder_of
from fedround.learning.trees.spec import Trees
from fedround.values import Name, Value


class _Target(Value):
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    column: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    values: Category | None


class Described(Value):
    """A recipe without its functions."""

    name: Name
    task: Task
    columns: Columns | None
    targets: Annotated[tuple[_Target, ...], Field(max_length=1000)]
    trees: Trees | None
    foreign: Foreign | None


def described(recipe: Recipe) -> bytes:
    """The document. Raises ContractError if the recipe's task is of a kind that nobody knows."""
    targets = tuple(_Target(name=name, column=one.column, values=one.values)
                    for name, one in recipe.declared.targets.items())
    return Described(name=recipe.name, task=recipe.task, columns=recipe.declared.columns, targets=targets, trees=recipe.trees,
                     foreign=recipe.foreign).model_dump_json().encode()


def recipe_of(said: Described, digest: str, apart: Apart | None) -> Recipe:
    """The recipe of this digest, whose code runs elsewhere; None: nowhere. Trees have no code of their own, and grow here."""
    targets = {one.name: Target(one.column, one.values) for one in said.targets}
    return Recipe(said.name, digest, _not_here if said.trees is None else builder_of(said.trees, said.task), _not_here,
                  said.task, _not_here, InFile(said.columns, targets), None, said.trees, said.foreign,
                  apart if said.trees is None else None)


def is_here(recipe: Recipe) -> bool:
    """Whether this process has the recipe's functions."""
    return recipe.encode is not _not_here


def _not_here(*_: object) -> NoReturn:
    raise ContractError("this recipe's code runs in a process of its own, and is not in this one")
