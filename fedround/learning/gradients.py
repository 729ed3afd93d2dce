"""Sums of gradients over rows: plain, or with each row's part bounded exactly.

B rows, D coordinates (in the order of `codec.flatten`).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedround.learning.batch import Batch, Tensors, filled
from fedround.learning.objective import Objective
from fedround.learning.parts import mixes_rows
from fedround.learning.single_rows import without_rows_that_raise, works_for

if TYPE_CHECKING:
    import torch

    from fedround.learning.by_rows import Gradients

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

CHUNK = 256
"""Rows whose gradients are held at once: peak memory is about 4 · CHUNK · D bytes, whatever the batch."""

SMALLEST_CHUNK, LARGEST_CHUNK = 32, 1024

_UNMAPPED = re.compile(r"batching rule for aten::(\w+)")
"""How torch says that it does not map a function."""

PASS = 8_000_000
"""About as many multiplications take as long as one function of the model takes besides them, in a pass forth and back."""

CLIP_MARGIN = 1e-6
"""Vectors are clipped this much (relative) below the clip norm, so that float32 rounding never exceeds it."""


@dataclass(frozen=True)
class Clip:
    """Bound every row's gradient to `norm`, and count it in whole cells of width `cell` (see `fedround.privacy.noise`)."""

    norm: float
    cell: float


def gradient_sum(objective: Objective, parameters: Tensors, batch: Batch) -> Float32 | Float64:
    """The sum over rows of the loss gradient, (D,); zero for a parameter that takes no part.

    Several passes are added in double precision. What a single pass gives is of float32, and stays so: half the bytes.
    A model that normalises by batch statistics sees all rows at once. From a single row, which has no such statistics, it
    learns nothing.
    """
    import torch

    names, chunk = sorted(parameters), CHUNK
    if mixes_rows(objective.model):
        chunk, batch = max(batch.rows, 1), batch if batch.rows > 1 else batch.at(slice(0, 0))
    size = sum(parameters[name].numel() for name in names)
    total_D: Float32 | Float64 = np.zeros(size, np.float32) if batch.rows <= chunk else np.zeros(size)
    for start in range(0, batch.rows, chunk):
        weights = {name: parameters[name].detach().requires_grad_() for name in names}
        loss = objective.loss(weights, batch.at(slice(start, start + chunk)))
        end = 0
        for gradient in torch.autograd.grad(loss, list(weights.values()), materialize_grads=True):
            start_D, end = end, end + gradient.numel()
            total_D[start_D:end] += gradient.reshape(-1).cpu().numpy()        # as it is added, so there is no copy
    return total_D


class RowGradients:
    """The gradients of single rows of one objective: of many in one pass, or of one after the other."""

    def __init__(self, objective: Objective, *, together: bool = True):
        from fedround.learning.tape import Tape

        self.objective, self.together, self._on_processor = objective, together, True
        self.not_mapped: tuple[str, ...] = ()
        """Functions of torch that the model calls and that torch computes row after row, within the one pass."""
        self._tape = Tape(lambda weights, row: objective.loss(weights, row.at(None)))

    @classmethod
    def tried(cls, objective: Objective, parameters: Tensors, like: Batch) -> RowGradients:
        """In one pass if torch can map the model over rows of this form; else slowly. It uses no row of a site."""
        found, slow = cls(objective), cls(objective, together=False)
        found._on_processor = all(value.device.type == "cpu" for value in parameters.values())
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            works = works_for(partial(found, parameters), partial(slow, parameters), like)
        found.not_mapped = tuple(sorted({name for one in told for name in _UNMAPPED.findall(str(one.message))}))
        return found if works else slow

    def __call__(self, parameters: Tensors, batch: Batch) -> dict[str, Gradients]:
        """By every parameter that takes part. Raises what the model raises on one of the rows.

        (torch.func.grad would do, more slowly, and import torch's compiler: 80 MB in every site's process.)
        """
        from fedround.learning.by_rows import by_parameter

        if self.together:
            shapes = {name: value.shape for name, value in parameters.items()}
            return by_parameter(shapes, *self._tape(parameters, (batch.rows,), batch))
        return self._one_after_another(parameters, batch)

    def chunk_for(self, expected_batch: float, each: int = 1) -> int:
        """How many rows are computed at once, for a batch of so many persons with `each` rows: by public numbers only.

        Every pass costs time that does not depend on its rows, and the rows that fill up the last one are computed in vain.
        A small model takes a whole batch at once, nearly always, and so does an accelerator; a large one few rows, but never
        so few that the processor's widest instructions leave a row over.
        """
        passes, multiplications = self._tape.effort if self.together and self._on_processor else (1, 1)
        rows = expected_batch * each
        best, whole = math.sqrt(rows * passes * PASS / max(multiplications, 1)), rows + 2 * math.sqrt(rows * each)
        if best >= whole / 2:
            chunk = min(LARGEST_CHUNK, max(SMALLEST_CHUNK, SMALLEST_CHUNK * math.ceil(whole / SMALLEST_CHUNK)))
        else:
            chunk = min(CHUNK, max(SMALLEST_CHUNK, 1 << int(math.log2(max(best, 1)))))
        return chunk if each == 1 else each * (1 << int(math.log2(max(chunk / each, 1))))

    def _one_after_another(self, parameters: Tensors, batch: Batch) -> dict[str, Gradients]:
        import torch

        from fedround.learning.by_rows import Dense

        made = {name: value.new_empty(batch.rows, value.numel()) for name, value in parameters.items()}
        for row in range(batch.rows):
            weights = {name: value.detach().requires_grad_() for name, value in parameters.items()}
            loss = self.objective.loss(weights, batch.at(slice(row, row + 1)))
            found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            for part, gradient in zip(made.values(), found, strict=True):
                part[row] = gradient.reshape(-1)
        return {name: Dense(part) for name, part in made.items()}


def clipped_sum(of_rows: RowGradients, parameters: Tensors, batch: Batch, clip: Clip, *,
                counts_B: torch.Tensor | None = None, chunk: int = CHUNK, each: int = 1) -> tuple[Int64, int]:
    """The sum over rows of the loss gradient, each clipped to `clip.norm`, in whole cells, (D,); and how many rows were
    within the clip norm.

    Every row adds its own vector of whole numbers, shorter than norm / cell, whatever the other rows are: the model sees one
    row at a time, and rows are computed `chunk` at a time, always as many, so that the same code of the processor runs for
    every row whatever their number. A row that counts for nothing (`counts_B`, bool; None: all count) keeps its place and
    adds zeros. The same holds for a row whose gradient is not finite (infinity times zero would reveal it), and for a row on
    which the model raises an error.
    chunk: by public numbers only (`RowGradients.chunk_for`).
    each: so many rows, one after the other, are one person's, and what is clipped and counted is the mean gradient of those
    of them that count. B and `chunk` are multiples of it.
    """
    import torch

    names, made = sorted(parameters), batch.rows
    sizes, device = [parameters[name].numel() for name in names], parameters[names[0]].device
    total_D, within = torch.zeros(sum(sizes), dtype=torch.int64, device=device), 0
    totals = dict(zip(names, torch.split_with_sizes(total_D, sizes), strict=True))
    counts_B = torch.ones(made, dtype=torch.bool, device=device) if counts_B is None else counts_B
    alone = partial(of_rows.objective.loss, parameters)
    for start in range(0, made, chunk):
        size = chunk if of_rows.together else min(chunk, made - start)
        some, there_B = batch.at(slice(start, start + size)).filled(size), filled(counts_B[start:start + size], size)
        parts = without_rows_that_raise(partial(of_rows, parameters), alone, some, there_B)
        if each > 1:
            parts, there_B = _means(parts, there_B, each)
        norm_B = torch.stack([part.squares() for part in parts.values()]).sum(0).sqrt()
        finite_B = norm_B.isfinite()
        share_B = torch.where(finite_B & there_B, (clip.norm * (1 - CLIP_MARGIN) / norm_B).clamp(max=1) / clip.cell, 0.0)
        all_finite = bool(finite_B.all())
        for name, part in parts.items():
            (part if all_finite else part.without(~finite_B)).add_to(totals[name], share_B, clip.norm / clip.cell)
        within += int(((norm_B <= clip.norm) & there_B).sum())
    return total_D.cpu().numpy(), within


def _means(parts: Mapping[str, Gradients], there_B: torch.Tensor, each: int) -> tuple[dict[str, Gradients], torch.Tensor]:
    """Each person's mean over the rows that count and are finite, (P, …); and whether there are any."""
    import torch

    from fedround.learning.by_rows import Dense

    rows = {name: part.dense() for name, part in parts.items()}
    finite_B = there_B & torch.stack([part.isfinite().all(1) for part in rows.values()]).all(0)
    many_P = finite_B.reshape(-1, each).sum(1)

    def mean(part: torch.Tensor) -> Gradients:
        part = torch.where(finite_B[:, None], part, 0).reshape(len(many_P), each, -1)
        total = part[:, 0]
        for place in range(1, each):        # in this order, however many persons there are
            total = total + part[:, place]
        return Dense(total / many_P.clamp(min=1)[:, None])

    return {name: mean(part) for name, part in rows.items()}, many_P > 0


def clipped_vector(vector_D: npt.NDArray[np.float32], clip: Clip) -> Float64:
    """One vector clipped to `clip.norm`, in whole cells, (D,); zeros if it is not finite."""
    long_D = vector_D.astype(np.float64)
    norm = float(np.linalg.norm(long_D))
    if not np.isfinite(norm):
        return np.zeros(len(vector_D))
    longest = clip.norm * (1 - CLIP_MARGIN)
    return np.trunc(long_D * ((longest / norm if norm > longest else 1.0) / clip.cell))
