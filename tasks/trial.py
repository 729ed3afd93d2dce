"""Does the recipe work on the public test set? Tried before a round is asked for."""

from __future__ import annotations

from pathlib import Path

from fedround.agreement import Agreement
from fedround.learning.recipe import load_recipe
from fedround.learning.trial import try_out
from fedround.privacy.spec import RecordPrivacy
from validation.encoding import encoded_alone


def try_recipe(file: Path, test_set: Path, agreement: Agreement) -> tuple[str, ...]:
    """Train the recipe as agreed, on trial; returns notes.

    Raises ContractError if it encodes a row differently beside other rows, or its model cannot be scored or trained.
    """
    recipe = load_recipe(file)
    return try_out(recipe, encoded_alone(test_set, recipe, file).features_NF.shape[1], agreement.parts,
                   per_record=isinstance(agreement.privacy, RecordPrivacy))
