"""How steep a task's loss is at a row, by each number that trees give for it: what a row adds to the leaves.

N rows, K numbers of a row, M rows padded to full lanes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.learning.examples import Arrays
from fedround.learning.tasks import Task

Float64 = npt.NDArray[np.float64]

_LANES = 64
"""More numbers than any processor computes at once."""


def outputs_of(task: Task) -> int:
    """K. Raises ContractError for a task that trees cannot learn."""
    if task.outputs_each is None:
        raise ContractError(f"trees give numbers for each row, and {task.in_words} asks for more: take a model of your own "
                            "(build_model), or another task")
    return task.outputs_each


def slopes(task: Task, output_NK: Float64, targets: Arrays) -> tuple[Float64, Float64]:
    """The task's slopes g and h, (N, K) each; those of a row have the same bits wherever it stands."""
    rows = len(output_NK)
    place_M = np.arange(-(-rows // _LANES) * _LANES) % max(rows, 1)
    with np.errstate(over="ignore"):
        g_MK, h_MK = task.slopes(output_NK[place_M], {name: array[place_M] for name, array in targets.items()})
    return g_MK[:rows], h_MK[:rows]
