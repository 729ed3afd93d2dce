"""Runs a model on one row at a time; where torch can, many such runs share one pass.

A model may treat a batch in any way (a layer that normalises by it, a matrix product that adds in another order). Here it
never sees two rows together, and every pass has the same number of rows. So a row's numbers have the same bits whatever the
other rows are. A row on which the model raises an error counts for nothing: one record must not end a round.

B rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from fedround.learning.batch import Batch

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")
OfRows = Callable[[Batch], Result]


def works_for(of_rows: OfRows[object], one_by_one: OfRows[object], like: Batch) -> bool:
    """Whether `of_rows` computes what `one_by_one` does: torch cannot map every layer over rows (recurrent ones).

    It uses made-up rows of the same form, never a site's rows.
    """
    made_up = like.zeros(2)
    try:
        of_rows(made_up)
    except Exception:       # whatever torch or the recipe's model raises; the other way says whether it matters
        try:
            one_by_one(made_up)
        except Exception:   # then zeros are no rows for this model, or it works for none
            return True
        return False
    return True


def without_rows_that_raise(of_rows: OfRows[Result], one: OfRows[object], batch: Batch, there_B: torch.Tensor) -> Result:
    """What `of_rows` says. A row for which `one` raises an error (a place that an embedding does not have, say) is removed
    from `there_B` and replaced by zeros, so that the others are computed as if it were not there.

    Raises what `of_rows` then raises.
    """
    try:
        return of_rows(batch)
    except Exception as error:      # of the recipe's model: whatever a row provokes in it
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise
    batch = batch.filled(batch.rows)
    for row in range(batch.rows):
        try:
            one(batch.at(slice(row, row + 1)))
        except Exception:           # as above
            there_B[row] = False
            for part in (*batch.inputs.values(), *batch.targets.values()):
                part[row] = 0
    return of_rows(batch)
