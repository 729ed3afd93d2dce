"""Runs a model on one row at a time; where torch can, many such runs share one pass.

A model may treat a batch in any way (a layer that normalises by it, a matrix product that adds in another order). Here it
never sees two rows together, and every pass has the same number of rows. So a row's numbers have the same bits whatever the
other rows are. A row on which the model raises an error counts for nothing: one record must not end a round.

B rows of a chunk, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")
OfRows = Callable[["torch.Tensor", "torch.Tensor"], Result]
"""Of features, (B, F), and labels, (B,)."""


def works_for(of_rows: OfRows[object], one_by_one: OfRows[object], features: int) -> bool:
    """Whether `of_rows` computes what `one_by_one` does: torch cannot map every layer over rows (recurrent ones).

    It uses made-up rows with this many features, never a site's rows.
    """
    import torch

    made_up = torch.zeros(2, features), torch.zeros(2, dtype=torch.int64)
    try:
        of_rows(*made_up)
    except Exception:       # whatever torch or the recipe's model raises; the other way says whether it matters
        try:
            one_by_one(*made_up)
        except Exception:   # then zeros are no rows for this model, or it works for none
            return True
        return False
    return True


def without_rows_that_raise(of_rows: OfRows[Result], one: OfRows[object], x_BF: torch.Tensor, y_B: torch.Tensor,
                            there_B: torch.Tensor) -> Result:
    """What `of_rows` says. A row for which `one` raises an error (a place that an embedding does not have, say) is removed
    from `there_B` and replaced by zeros, so that the others are computed as if it were not there.

    Raises what `of_rows` then raises.
    """
    try:
        return of_rows(x_BF, y_B)
    except Exception as error:      # of the recipe's model: whatever a row provokes in it
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise
    x_BF, y_B = x_BF.clone(), y_B.clone()
    for row in range(len(y_B)):
        try:
            one(x_BF[row:row + 1], y_B[row:row + 1])
        except Exception:           # as above
            there_B[row], x_BF[row], y_B[row] = False, 0, 0
    return of_rows(x_BF, y_B)


def filled(part: torch.Tensor, size: int) -> torch.Tensor:
    """A copy, with zeros after it, so that it has as many rows as every chunk."""
    import torch

    whole = torch.zeros(size, *part.shape[1:], dtype=part.dtype)
    whole[:len(part)] = part
    return whole
