"""Does the recipe work on the public test set? Tried before a round is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedround.agreement import Agreement
from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.learn import check_learner
from fedround.learning.oddities import oddities
from fedround.learning.recipe import Recipe, load_recipe
from fedround.learning.tasks import Task
from fedround.learning.trial import try_out
from fedround.privacy.spec import GradientPrivacy
from validation.column_checks import differences
from validation.contract import Contract, load_contract, needed_by
from validation.encoding import columns_alone, encoded_alone


def try_recipe(file: Path, test_set: Path, agreement: Agreement, contract: Path) -> tuple[str, ...]:
    """Encode the test set, and train the recipe as agreed, on trial; returns notes.

    Raises SetupError if the test set cannot be read. Raises ContractError if it lacks a column that the contract asks for, or
    has labels of one kind only; if the recipe encodes a row differently beside other rows, or its model cannot be scored or
    trained.
    """
    recipe = load_recipe(file)
    check_learner(recipe, agreement.training)
    found = encoded_alone(test_set, recipe, file)
    _check_columns(test_set, load_contract(contract))
    notes = try_out(recipe, found.form, agreement.parts, per_record=isinstance(agreement.privacy, GradientPrivacy),
                    training=agreement.training)
    return (*notes, *_odd(recipe, found), *_notes_on(found, f"the test set {test_set}", recipe.task))


def try_rows(file: Path, recipe: Recipe, rows: Path, agreement: Agreement | None) -> tuple[Examples, tuple[str, ...]]:
    """Encode a file of rows, and train the recipe's model on trial; returns the rows and notes.

    agreement: None: nothing is agreed, and the privacy of single records is supposed. Raises as `try_recipe`.
    """
    found = encoded_alone(rows, recipe, file)
    notes = try_out(recipe, found.form, None if agreement is None else agreement.parts,
                    per_record=agreement is None or isinstance(agreement.privacy, GradientPrivacy))
    return found, (*notes, *_odd(recipe, found), *_notes_on(found, str(rows), recipe.task))


def differ(recipe: Path, contract: Path) -> tuple[str, ...]:
    """Where the contract and the recipe's COLUMNS say other things; none if it says none. Raises as the loaders do."""
    columns, agreed = load_recipe(recipe).declared.columns, load_contract(contract)
    return () if columns is None else tuple(
        f"contract and COLUMNS differ: {one}" for one in differences(columns.columns, agreed))


def _odd(recipe: Recipe, found: Examples) -> tuple[str, ...]:
    columns = recipe.declared.columns
    return () if columns is None else tuple(oddities(columns, found.at(found.counts_N).table_NF))


def _check_columns(test_set: Path, contract: Contract) -> None:
    """A model is judged by rows like those that it learns from."""
    asked = {name: check.id for check in reversed(contract.checks) if check.severity == "error" for name in needed_by(check)}
    there = columns_alone([test_set], list(asked)) if asked else {}
    for name, check in asked.items():
        if name not in there:
            raise ContractError(f"the test set {test_set} has no column '{name}', which the check '{check}' of the contract "
                                f"'{contract.name}' asks for: take rows like those at the sites")


def _notes_on(found: Examples, whose: str, task: Task) -> list[str]:
    idle = int((~found.counts_N).sum())
    notes = [f"{idle} of {len(found)} rows of {whose} cannot be encoded, and would count for nothing"] if idle else []
    if task.labels is None:
        return notes
    names, place_N = task.groups(found.at(found.counts_N).targets)
    there = np.unique(place_N).tolist()
    if len(there) == 1:
        raise ContractError(f"all rows of {whose} have the {names[there[0]]}: a model can be judged only by "
                            f"rows of {'both' if task.decides else 'all'} labels")
    lacks = [names[place].removeprefix("label ") for place in range(len(names)) if place not in there]
    shown = ", ".join(lacks[:5]) + (" …" if lacks[5:] else "")
    return [*notes, *([f"no row of {whose} has the label {shown}"] if lacks else [])]
