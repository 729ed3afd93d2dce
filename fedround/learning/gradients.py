"""Sums of gradients over rows: plain, or with each row's part bounded exactly.

B rows, D coordinates (in the order of `codec.flatten`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedround.learning.batch import Batch, filled
from fedround.learning.objective import Objective
from fedround.learning.parts import mixes_rows
from fedround.learning.single_rows import without_rows_that_raise, works_for

if TYPE_CHECKING:
    import torch

Float64 = npt.NDArray[np.float64]

CHUNK = 256
"""Rows whose gradients are held at once: peak memory is about 4 · CHUNK · D bytes, whatever the batch."""

SMALLEST_CHUNK = 32

CLIP_MARGIN = 1e-6
"""Vectors are clipped this much (relative) below the clip norm, so that float32 rounding never exceeds it."""


@dataclass(frozen=True)
class Clip:
    """Bound every row's gradient to `norm`, and count it in whole cells of width `cell` (see `fedround.privacy.noise`)."""

    norm: float
    cell: float


def gradient_sum(objective: Objective, parameters: Mapping[str, torch.Tensor], batch: Batch) -> Float64:
    """The sum over rows of the loss gradient, (D,); zero for a parameter that takes no part.

    A model that normalises by batch statistics sees all rows at once. From a single row, which has no such statistics, it
    learns nothing.
    """
    import torch

    names = sorted(parameters)
    total_D = np.zeros(sum(parameters[name].numel() for name in names))
    chunk = CHUNK
    if mixes_rows(objective.model):
        chunk, batch = max(batch.rows, 1), batch if batch.rows > 1 else batch.at(slice(0, 0))
    for start in range(0, batch.rows, chunk):
        weights = {name: parameters[name].detach().requires_grad_() for name in names}
        loss = objective.loss(weights, batch.at(slice(start, start + chunk)))
        end = 0
        for gradient in torch.autograd.grad(loss, list(weights.values()), materialize_grads=True):
            start_D, end = end, end + gradient.numel()
            total_D[start_D:end] += gradient.reshape(-1).numpy()        # made float64 as it is added: no copy
    return total_D


def clipped_sum(objective: Objective, parameters: Mapping[str, torch.Tensor], batch: Batch, clip: Clip, *,
                counts_B: torch.Tensor | None = None, chunk: int = CHUNK, together: bool = True,
                each: int = 1) -> tuple[Float64, int]:
    """The sum over rows of the loss gradient, each clipped to `clip.norm`, in whole cells, (D,); and how many rows were
    within the clip norm.

    Every row adds its own vector of whole numbers, shorter than norm / cell, whatever the other rows are: the model sees one
    row at a time, and rows are computed `chunk` at a time, always as many, so that the same code of the processor runs for
    every row whatever their number. A row that counts for nothing (`counts_B`, bool; None: all count) keeps its place and
    adds zeros. The same holds for a row whose gradient is not finite (infinity times zero would reveal it), and for a row on
    which the model raises an error.
    chunk: by public numbers only (`chunk_for`). together: as `maps` says.
    each: so many rows, one after the other, are one person's, and what is clipped and counted is the mean gradient of those
    of them that count. B and `chunk` are multiples of it.
    """
    import torch

    names, made = sorted(parameters), batch.rows
    total_D, within = np.zeros(sum(parameters[name].numel() for name in names)), 0
    counts_B = torch.ones(made, dtype=torch.bool) if counts_B is None else counts_B
    of_rows = partial(_gradient_of_each_row if together else _gradient_of_one_row_after_another, objective, parameters)
    for start in range(0, made, chunk):
        size = chunk if together else min(chunk, made - start)
        some, there_B = batch.at(slice(start, start + size)).filled(size), filled(counts_B[start:start + size], size)
        rows = without_rows_that_raise(of_rows, partial(objective.loss, parameters), some, there_B)
        if each > 1:
            rows, there_B = _means(rows, there_B, each)
        norm_B = torch.stack([part.double().square().sum(1) for part in rows]).sum(0).sqrt()
        finite_B = norm_B.isfinite() & there_B
        share_B = torch.where(finite_B, (clip.norm * (1 - CLIP_MARGIN) / norm_B).clamp(max=1) / clip.cell, 0).float()
        finite = [part if bool(finite_B.all()) else torch.where(finite_B[:, None], part, 0) for part in rows]
        total_D += torch.cat([(part * share_B[:, None]).trunc_().sum(0, dtype=torch.float64) for part in finite]).numpy()
        within += int(((norm_B <= clip.norm) & there_B).sum())
    return total_D, within


def _means(rows: list[torch.Tensor], there_B: torch.Tensor, each: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Each person's mean over the rows that count and are finite, per parameter, (P, its size); and whether there are any."""
    import torch

    finite_B = there_B & torch.stack([part.isfinite().all(1) for part in rows]).all(0)
    many_P = finite_B.reshape(-1, each).sum(1)

    def mean(part: torch.Tensor) -> torch.Tensor:
        part = torch.where(finite_B[:, None], part, 0).reshape(len(many_P), each, -1)
        total = part[:, 0]
        for place in range(1, each):        # in this order, however many persons there are
            total = total + part[:, place]
        return total / many_P.clamp(min=1)[:, None]

    return [mean(part) for part in rows], many_P > 0


def chunk_for(expected_batch: float, each: int = 1) -> int:
    """How many rows are computed at once, from the expected batch of persons with `each` rows: half of it, as a power of two,
    so that little work is wasted. It is never so small that the processor's widest instructions leave a row over.
    """
    rows = min(CHUNK, max(SMALLEST_CHUNK, 1 << int(math.log2(max(expected_batch * each / 2, 1)))))
    return each * (1 << int(math.log2(max(rows / each, 1))))


def maps(objective: Objective, parameters: Mapping[str, torch.Tensor], like: Batch) -> bool:
    """Whether torch can compute the gradients of many rows of this form in one pass. If not, rows are computed
    one after the other, slowly. It uses no row of a site.
    """
    return works_for(partial(_gradient_of_each_row, objective, parameters),
                     partial(_gradient_of_one_row_after_another, objective, parameters), like)


def clipped_vector(vector_D: npt.NDArray[np.float32], clip: Clip) -> Float64:
    """One vector clipped to `clip.norm`, in whole cells, (D,); zeros if it is not finite."""
    long_D = vector_D.astype(np.float64)
    norm = float(np.linalg.norm(long_D))
    if not np.isfinite(norm):
        return np.zeros(len(vector_D))
    longest = clip.norm * (1 - CLIP_MARGIN)
    return np.trunc(long_D * ((longest / norm if norm > longest else 1.0) / clip.cell))


def _gradient_of_each_row(objective: Objective, parameters: Mapping[str, torch.Tensor],
                          batch: Batch) -> list[torch.Tensor]:
    """Per parameter, by name, the gradients of all rows: (B, its size).

    Each row gets weights of its own (views of the same numbers), so one backward pass gives every row's gradient.
    (torch.func.grad would do, and import torch's compiler: 80 MB in every site's process.)
    Raises what the model raises on one of the rows. That is why it first runs all rows with shared weights: with separate
    weights for each row, torch would read an index outside an embedding from the weights of another row.
    """
    import torch
    from torch.func import vmap

    def loss_of_row(weights: dict[str, torch.Tensor], row: Batch) -> torch.Tensor:
        return objective.loss(weights, row.at(None))

    with torch.no_grad():
        vmap(loss_of_row, in_dims=(None, 0), randomness="different")(
            {name: value.detach() for name, value in parameters.items()}, batch)
    weights = {name: parameters[name].detach().expand(batch.rows, *parameters[name].shape).requires_grad_()
               for name in sorted(parameters)}
    losses_B = vmap(loss_of_row, randomness="different")(weights, batch)
    parts = torch.autograd.grad(losses_B.sum(), list(weights.values()), materialize_grads=True)
    return [part.reshape(batch.rows, -1) for part in parts]


def _gradient_of_one_row_after_another(objective: Objective, parameters: Mapping[str, torch.Tensor],
                                       batch: Batch) -> list[torch.Tensor]:
    """The same, for models that torch cannot map over rows."""
    import torch

    names = sorted(parameters)
    made = [torch.empty(batch.rows, parameters[name].numel()) for name in names]
    for row in range(batch.rows):
        weights = [parameters[name].detach().requires_grad_() for name in names]
        loss = objective.loss(dict(zip(names, weights, strict=True)), batch.at(slice(row, row + 1)))
        for part, gradient in zip(made, torch.autograd.grad(loss, weights, materialize_grads=True), strict=True):
            part[row] = gradient.reshape(-1)
    return made
