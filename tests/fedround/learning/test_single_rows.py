"""What is remembered of a recipe's model: whether torch maps it over rows."""

from __future__ import annotations

import torch

from fedround.learning.batch import Batch
from fedround.learning.single_rows import works_for


class Model:
    """Works on rows of any form, or on none; counts how often it was tried."""

    def __init__(self, works: bool = True):
        self.works, self.tried = works, 0

    def together(self, batch: Batch) -> None:
        self.tried += 1
        if not self.works:
            raise RuntimeError("torch cannot map this")

    def one_by_one(self, batch: Batch) -> None:
        """Always works."""


def rows(columns: int, dtype: torch.dtype = torch.float32) -> Batch:
    return Batch({"x": torch.zeros(3, columns, dtype=dtype)}, {"y": torch.zeros(3)})


def test_a_recipes_model_is_tried_once_for_each_form_of_rows():
    model, recipe = Model(), object()
    for form in (rows(2), rows(2), rows(3), rows(2, torch.int64), rows(3)):
        assert works_for(model.together, model.one_by_one, form, recipe)
    assert model.tried == 3


def test_another_recipe_is_tried_anew_and_without_one_always():
    model, cannot = Model(), Model(works=False)
    assert works_for(model.together, model.one_by_one, rows(2), object())
    assert not works_for(cannot.together, cannot.one_by_one, rows(2), object())
    for _ in range(2):
        assert works_for(model.together, model.one_by_one, rows(2))
        assert not works_for(cannot.together, cannot.one_by_one, rows(2))
    assert (model.tried, cannot.tried) == (3, 3)
