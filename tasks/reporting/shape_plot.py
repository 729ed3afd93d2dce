"""Shapes of features as one picture: data in, SVG coordinates out. Drawn by shapes.svg.j2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.learning.trees.shapes import Named
from fedround.spoken import one_line
from tasks.reporting.charts import nice_ticks
from tasks.reporting.page import template
from tasks.reporting.words import short

_ACROSS = 3
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 240, 170, 44, 30, 24
_REPEATS = 1.96

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One feature."""

    title: str
    x: int
    y: int
    lines: tuple[str, ...]
    """Paths, one for each output."""
    bands: tuple[str, ...]
    rows: tuple[tuple[float, str], ...]
    columns: tuple[tuple[float, str], ...]


def render_shapes(found: Sequence[Named]) -> str:
    """All features on the same scale of what they add, each about its own mean over its bounds; bands: what noise does."""
    middle = [_mean(one) for one in found]
    reach = max((float(np.abs(one.shape.value_QK - mean_K).max()) for one, mean_K in zip(found, middle, strict=True)),
                default=0.1)
    ticks = nice_ticks(-reach, reach)
    panels = [_panel(one, mean_K, place, ticks) for place, (one, mean_K) in enumerate(zip(found, middle, strict=True))]
    return template("shapes.svg.j2").render(
        panels=panels, width=_WIDTH * min(_ACROSS, max(1, len(panels))), height=_HEIGHT * -(-len(panels) // _ACROSS),
        left=_LEFT, right=_WIDTH - 10, top=_TOP, bottom=_HEIGHT - _BOTTOM)


def _pieces(one: Named) -> tuple[Float64, npt.NDArray[np.intp]]:
    """Where pieces within the bounds begin and end, and which they are. Of those within half a pixel one is drawn."""
    edge_P = one.shape.edge_P.astype(np.float64)
    inside = edge_P[(edge_P > one.low) & (edge_P < one.high)]
    _, first = np.unique(((inside - one.low) / (one.high - one.low) * 2 * _WIDTH).astype(int), return_index=True)
    ends = np.concatenate([[one.low], inside[first], [one.high]])
    return ends, edge_P.searchsorted(ends[1:], side="left").astype(np.intp)


def _mean(one: Named) -> Float64:
    ends, piece = _pieces(one)
    return np.asarray(np.average(one.shape.value_QK[piece], axis=0, weights=np.diff(ends)))


def _panel(one: Named, mean_K: Float64, place: int, ticks: Sequence[float]) -> Panel:
    ends, piece = _pieces(one)
    across, down = _WIDTH - _LEFT - 10, _HEIGHT - _TOP - _BOTTOM

    def x(value: float) -> float:
        return round(_LEFT + across * (value - one.low) / (one.high - one.low), 1)

    def y(value: float) -> float:
        share = (min(max(value, ticks[0]), ticks[-1]) - ticks[0]) / (ticks[-1] - ticks[0])
        return round(_TOP + down * (1 - share), 1)

    def path(value_q: Float64) -> str:
        return "L".join(f"{x(begin)},{y(value)}L{x(end)},{y(value)}"
                        for begin, end, value in zip(ends, ends[1:], value_q, strict=False))

    value_qK = one.shape.value_QK[piece] - mean_K
    bands: list[str] = []
    if one.shape.std_QK is not None:
        for value_q, std_q in zip(value_qK.T, one.shape.std_QK[piece].T, strict=True):
            above, below = path(value_q + _REPEATS * std_q), path(value_q - _REPEATS * std_q)
            bands.append(f"M{above}L{'L'.join(reversed(below.split('L')))}Z")
    return Panel(
        short(one_line(one.name), 30), _WIDTH * (place % _ACROSS), _HEIGHT * (place // _ACROSS),
        lines=tuple(f"M{path(value_q)}" for value_q in value_qK.T), bands=tuple(bands),
        rows=tuple((y(tick), f"{tick:g}") for tick in ticks),
        columns=((x(one.low), f"{one.low:g}"), (x(one.high), f"{one.high:g}")))
