"""Which labels, or ranges of numbers, each site has: as text for a terminal, as SVG for a page.

A bar for each site, as long as it has rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from fedround.spoken import how_many

Counts = Mapping[str, Sequence[int]]
"""How many rows of each label, or in each range, a site has."""

MOST = 20
"""The most sites that a terminal shows; an SVG file shows all."""
_COLOURS = ("#1f5fbf", "#c2571a", "#2f855a", "#8a3ffc", "#b7791f", "#0f766e", "#b42318", "#5b708b", "#7a5195", "#8d6e63")
_MARKS = "█▓▒░▚▞▪▫◆◇"


def as_text(words: Sequence[str], labels: Counts, width: int = 48) -> str:
    """The first sites, each with its rows and the labels among them; words: what each label is."""
    largest = max(sum(counts) for counts in labels.values())
    legend = "  ".join(f"{_MARKS[label % len(_MARKS)]} {word}" for label, word in enumerate(words))
    lines = [f"rows of each site: {legend}"]
    for name, counts in list(labels.items())[:MOST]:
        cells = "".join(_MARKS[label % len(_MARKS)] * cells for label, cells in enumerate(_cells(counts, largest, width)))
        lines.append(f"{name:>16.16} {sum(counts):>7,} {cells}")
    if len(labels) > MOST:
        lines.append(f"{'':>16} … and {how_many(len(labels) - MOST, 'more site')}")
    return "\n".join(lines)


def as_svg(words: Sequence[str], labels: Counts, title: str, width: int = 720) -> str:
    """An SVG file that needs no other."""
    largest = max(sum(counts) for counts in labels.values())
    step = 18 if len(labels) <= 60 else max(2, 1080 // len(labels))
    left, top, right = (150 if step == 18 else 20), 58, 60
    height, room = top + step * len(labels) + 14, width - left - right
    parts = [f'<text class="title" x="14" y="22">{escape(title)}</text>']
    for label, word in enumerate(words):
        at = 14 + (width - 28) * label // len(words)
        parts.append(f'<rect x="{at}" y="34" width="10" height="10" fill="{_COLOURS[label % len(_COLOURS)]}"/>'
                     f'<text x="{at + 14}" y="43">{escape(word.removeprefix("label "))}</text>')
    for place, (name, counts) in enumerate(labels.items()):
        y, x = top + step * place, float(left)
        if step == 18:
            parts.append(f'<text text-anchor="end" x="{left - 8}" y="{y + 12}">{escape(name)}</text>')
        for label, count in enumerate(counts):
            length = room * count / largest
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{step * 0.8:.1f}" '
                         f'fill="{_COLOURS[label % len(_COLOURS)]}"/>')
            x += length
        if step == 18:
            parts.append(f'<text x="{x + 6:.1f}" y="{y + 12}">{sum(counts):,}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'role="img"><style>text{font:12px system-ui,sans-serif;fill:#556372}.title{font-weight:600;fill:#16202c}</style>'
            f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" fill="#fff" stroke="#dfe4ea"/>'
            + "".join(parts) + "</svg>\n")


def _cells(counts: Sequence[int], largest: int, width: int) -> list[int]:
    """How many cells each label takes. They are rounded so that the bar keeps its length."""
    ends, total = [], 0
    for count in counts:
        total += count
        ends.append(round(width * total / largest))
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
