"""Maps of distances between updates: who stands apart, and who was left out how often."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.reporting import render_html
from tasks.reporting.heatmap import _SCALE, by_similarity, distance_map, history_map
from tests.tasks.recorded import compared, planted, record, svgs, updated, with_


@given(st.integers(0, 11))
def test_a_planted_attacker_is_at_the_edge_of_the_map_in_the_brightest_colour_and_marked(odd: int):
    chart = distance_map(planted(odd))
    assert chart is not None
    assert (chart.rows[-1].text, chart.rows[-1].mark) == (f"bank-{odd}", "✕")
    edge = [cell for at, cell in enumerate(chart.cells) if (at // 12 == 11) != (at % 12 == 11)]
    inside = [cell for at, cell in enumerate(chart.cells) if at // 12 < 11 and at % 12 < 11 and at // 12 != at % 12]
    assert {cell.fill for cell in edge} == {_SCALE[-1]}
    assert {cell.fill for cell in inside} == {_SCALE[0]}
    assert f"Farthest from the others: bank-{odd}" in chart.summary


def test_the_map_says_that_its_distances_are_estimates_where_they_are():
    exact, estimated = (distance_map(with_(planted(), estimated=flag)) for flag in (False, True))
    assert "estimated" not in exact.title + exact.summary
    assert "estimated from a sample" in estimated.title
    assert "estimated from a sample" in estimated.summary


def test_alike_sites_lie_side_by_side():
    """Two groups, dealt alternately."""
    apart = [[0.0 if a == b else 1.0 if a % 2 == b % 2 else 9.0 for b in range(8)] for a in range(8)]
    order = by_similarity(apart)
    assert sorted(order) == list(range(8))
    assert len({at % 2 for at in order[:4]}) == 1


def test_the_scale_grows_brighter_all_the_way_so_that_no_colour_is_needed_to_read_it():
    light = [sum(share * int(colour[at:at + 2], 16) for share, at in ((0.2126, 1), (0.7152, 3), (0.0722, 5)))
             for colour in _SCALE]
    assert all(later > earlier + 5 for earlier, later in itertools.pairwise(light))


def test_the_map_of_rounds_shows_who_was_left_out_and_how_often():
    chart = history_map([planted(), with_(planted(), round=3)])
    assert chart is not None
    assert [name.mark for name in chart.rows] == ["2×" if at == 4 else "" for at in range(12)]
    assert [cell.sign for cell in chart.cells if cell.kind == "left_out"] == ["✕", "✕"]
    assert "bank-4, 2 times" in chart.summary


def test_no_map_for_two_sites_and_none_for_a_crowd_that_nobody_could_read():
    assert distance_map(compared(1, updated("a"), updated("b"))) is None
    assert distance_map(compared(1, *(updated(f"site-{at}") for at in range(101)))) is None
    hundred = distance_map(compared(1, *(updated(f"site-{at}") for at in range(100))))
    assert hundred is not None
    assert not any(cell.text for cell in hundred.cells)


def test_distances_that_do_not_fit_the_sites_are_refused():
    with pytest.raises(ValidationError, match="expected the distances of 1 sites"):
        with_(record(1), near=("bank-01",))
    with pytest.raises(ValidationError, match="distances.0.0"):
        with_(record(1), near=("bank-01",), distances=((float("nan"),),))


def test_a_site_that_was_left_out_is_marked_in_the_map():
    marked = [part for chart in svgs(render_html([planted()])) for part in chart.iter() if part.get("class") == "name marked"]
    assert [part.text for part in marked] == ["✕ bank-4"]
    assert ".marked" in render_html([planted()])
