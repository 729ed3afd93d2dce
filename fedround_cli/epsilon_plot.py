"""Epsilon against rounds: as text for a terminal, as SVG for a page. Both draw the same lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from fedround.rounds.campaign import SpentAfter
from tasks.reporting.charts import nice_ticks, round_ticks

Courses = Mapping[str, Sequence[SpentAfter]]
_COLOURS = ("#1f5fbf", "#c2571a", "#2f855a", "#8a3ffc", "#b7791f", "#0f766e")


def as_text(courses: Courses, budget: float, width: int = 64, height: int = 12) -> str:
    """The epsilon of the site that spends most (●), the part of its evaluations (·), and the budget (─)."""
    name = max(courses, key=lambda site: courses[site][-1].total)
    course = courses[name]
    last, ticks = course[-1].round, nice_ticks(0.0, max(budget, course[-1].total))

    def row(epsilon: float) -> int:
        return height - 1 - round(min(epsilon / ticks[-1], 1.0) * (height - 1))

    cells = [["─" if place == row(budget) else " "] * width for place in range(height)]
    for spent in course:
        column = round((spent.round - 1) / max(last - 1, 1) * (width - 1))
        if spent.evaluation > 0:
            cells[row(spent.evaluation)][column] = "·"
        cells[row(spent.total)][column] = "●"
    labels = {row(tick): f"{tick:g}" for tick in ticks}
    rows = [f"{labels.get(place, ''):>6} ┤{''.join(cells[place]).rstrip()}" for place in range(height)]
    axis = f"{'':>6} └{'─' * width}\n{'':>8}1{'round':^{width - 1 - len(str(last))}}{last}"
    return "\n".join([f"epsilon after each round:  ● {name}   · evaluations alone   ─ budget {budget:g}", *rows, axis])


def as_svg(courses: Courses, budget: float, title: str, width: int = 640, height: int = 320) -> str:
    """An SVG file that needs no other: a line for each site, a dashed line for its evaluations, the budget above."""
    left, right, top, bottom = 48, 120, 34, 34
    last = max(course[-1].round for course in courses.values())
    ticks = nice_ticks(0.0, max([budget, *(course[-1].total for course in courses.values())]))

    def x(number: int) -> float:
        return round(left + (number - 1) / max(last - 1, 1) * (width - left - right), 1)

    def y(epsilon: float) -> float:
        return round(height - bottom - epsilon / ticks[-1] * (height - top - bottom), 1)

    def line(points: Sequence[tuple[int, float]], style: str) -> str:
        return f'<polyline fill="none" {style} points="{" ".join(f"{x(number)},{y(value)}" for number, value in points)}"/>'

    parts = [f'<text class="title" x="14" y="20">{escape(title)}</text>']
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(tick)}" y2="{y(tick)}"/>'
                     f'<text text-anchor="end" x="{left - 6}" y="{y(tick) + 4}">{tick:g}</text>')
    for number in round_ticks([1, last]) if last > 1 else [1]:
        parts.append(f'<text text-anchor="middle" x="{x(number)}" y="{height - bottom + 16}">{number}</text>')
    parts.append(f'<text text-anchor="middle" x="{(left + width - right) / 2}" y="{height - 4}">round</text>')
    parts.append(line([(1, budget), (last, budget)], 'stroke="#b42318" stroke-dasharray="2 3"')
                 + f'<text x="{width - right + 6}" y="{y(budget) + 4}">budget {budget:g}</text>')
    longest = max(courses.values(), key=lambda course: course[-1].evaluation)
    if longest[-1].evaluation > 0:
        parts.append(line([(spent.round, spent.evaluation) for spent in longest], 'stroke="#556372" stroke-dasharray="5 4"')
                     + f'<text x="{width - right - 4}" y="{y(longest[-1].evaluation) - 8}" text-anchor="end">'
                     'evaluations alone</text>')
    for place, (site, course) in enumerate(courses.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        parts.append(line([(spent.round, spent.total) for spent in course], f'stroke="{colour}" stroke-width="1.8"'))
        parts.append(f'<text x="{width - right + 6}" y="{y(budget) + 26 + 15 * place}" style="fill:{colour}">'
                     f'{escape(site)}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'role="img"><style>text{font:12px system-ui,sans-serif;fill:#556372}.title{font-weight:600;fill:#16202c}'
            '.grid{stroke:#dfe4ea}</style>'
            f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" fill="#fff" stroke="#dfe4ea"/>'
            + "".join(parts) + "</svg>\n")
