"""Keys of the store: what is built is parsed, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround import layout
from fedround.values import MAX_ATTEMPTS, MAX_NUMBER, Purpose

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True) | st.sampled_from(
    ["rounds", "rotations", "evaluations", "measurements", "runs", "0", "00001"])
NUMBERS, ATTEMPTS = st.integers(0, MAX_NUMBER), st.integers(1, MAX_ATTEMPTS)
KEYS = st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda text: f"ed25519:{text}")
PURPOSES = st.sampled_from(get_args(Purpose))

Place = tuple[Callable[..., str], Callable[[str], object], st.SearchStrategy]
PLACES: dict[str, Place] = {
    "log entry": (layout.log_entry, layout.parse_log_entry, st.tuples(st.integers(1, MAX_NUMBER))),
    "rotation": (layout.rotation, layout.parse_rotation, st.tuples(NAMES, KEYS)),
    "plan": (layout.plan, layout.parse_plan, st.tuples(NAMES, NUMBERS, ATTEMPTS, PURPOSES)),
    "finding": (layout.finding, layout.parse_finding, st.tuples(NAMES, NUMBERS, ATTEMPTS, PURPOSES)),
    "commit": (layout.commit, layout.parse_commit, st.tuples(NAMES, NUMBERS)),
    "answer": (layout.answer, layout.parse_answer, st.tuples(NAMES, NAMES, NUMBERS, ATTEMPTS, PURPOSES)),
    "refusal": (layout.refusal, layout.parse_refusal, st.tuples(
        NAMES, NAMES, NUMBERS, ATTEMPTS, PURPOSES, st.integers(1, 9999))),
}
BUILT = st.sampled_from(sorted(PLACES)).flatmap(lambda kind: PLACES[kind][2].map(lambda said: PLACES[kind][0](*said))) | (
    st.builds(layout.delta, NAMES, NAMES, NUMBERS, ATTEMPTS) | st.builds(
        layout.payload, NAMES, NAMES, NUMBERS, ATTEMPTS, PURPOSES))


def parsed(kind: str, key: str) -> tuple | None:
    """What a key says, as arguments."""
    found = PLACES[kind][1](key)
    return found if found is None or isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("kind", sorted(PLACES))
@given(data=st.data())
def test_what_is_built_is_parsed(kind: str, data: st.DataObject):
    said = data.draw(PLACES[kind][2])
    assert parsed(kind, PLACES[kind][0](*said)) == said


@given(key=BUILT, at=st.integers(0, 200), cut=st.integers(0, 2), put=st.text("0123456789abf-_./٣\nA", max_size=2))
def test_what_is_parsed_is_exactly_what_would_be_built(key: str, at: int, cut: int, put: str):
    """Also of keys that are almost one of ours; and none is of two kinds."""
    altered = key[:at] + put + key[at + cut:]
    kinds = [kind for kind in PLACES if parsed(kind, altered) is not None]
    assert len(kinds) <= 1
    assert all(PLACES[kind][0](*parsed(kind, altered)) == altered for kind in kinds)


@pytest.mark.parametrize("key", [
    "runs/spring/rounds/00001/commit.json\n", "runs/spring/rounds/0000٣/commit.json", "runs/spring/rounds/1/commit.json",
    "runs/Spring/rounds/00001/commit.json", "x/runs/spring/rounds/00001/commit.json",
    "runs/spring/evaluations/00001/commit.json",
    "runs/spring/rounds/00001/plan-00.json", "runs/spring/measurements/00001/finding-00.json",
    "log/00000.json", "sites/a/run/rounds/00001/01/refusal-0000.json",
    "sites/a/run/rounds/00001/00/answer.json", "sites/a/run/rounds/00001/01/answer_json"])
def test_a_key_that_nobody_builds_says_nothing(key: str):
    assert [kind for kind in PLACES if parsed(kind, key) is not None] == []
