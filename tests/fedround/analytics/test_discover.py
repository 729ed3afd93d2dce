"""The commonest texts of an unknown domain: found along their beginnings, none that nobody holds, and paid by sketch."""

from __future__ import annotations

import numpy as np
import pytest

from fedround.analytics.compiled import compiled
from fedround.analytics.counting import Discover
from fedround.analytics.discover import discovered
from fedround.analytics.readings import read
from fedround.errors import ContractError
from fedround.privacy.noise import stream
from fedround.statistics import Prefixes, Sketch, release, total
from fedround.statistics.sketch import END


class Rows:
    """A site's records."""

    def __init__(self, values):
        self.values = np.array([*values, None], dtype=object)[:-1]

    def column(self, name):
        return self.values


COMMON = {"i25.1": 900, "i25": 700, "e11.9": 600, "zebra": 500, 42: 400, "heartburn": 350, "heartbeat": 300}
RARE = [f"x{number}" for number in range(1500)]
ROWS = [value for value, count in COMMON.items() for _ in range(count)] + RARE + ["Ünknown"] * 800 + [None, float("nan")] * 50
QUERY = Discover(of="icd", longest=6, letters="abcdefghijklmnopqrstuvwxyz0123456789.")


def answer(query: Discover, noise_std: float, draw: int = 0, rows=ROWS):
    sites = [Rows(rows[site::3]) for site in range(3)]
    return query.read([total([release(one, site, stream(bytes(32), b"texts", f"{draw} {at} {place}".encode()))
                              for place, site in enumerate(sites)])
                       for at, one in enumerate(query.statistics(noise_std))])[0]


@pytest.mark.parametrize("noise_std", [0.0, 8.0])
def test_the_commonest_texts_are_found_with_their_counts_and_no_other(noise_std: float):
    table = answer(QUERY, noise_std)
    told = {one.words[0]: one for one in table.estimates}
    expected = {"i25.1": 900, "i25": 700, "heartb…": 650, "e11.9": 600, "zebra": 500, "42": 400}
    assert list(told) == list(expected)
    assert sum(one.low <= expected[text] <= one.high for text, one in told.items()) >= 5
    assert "fewer than about" in table.notes[0]


def test_under_loud_noise_nothing_is_found_rather_than_something_that_nobody_holds():
    for draw in range(2):
        assert {one.words[0] for one in answer(QUERY, 400.0, draw).estimates} <= {"i25.1", "i25"}
        assert answer(QUERY, 20.0, draw, rows=[]).estimates == ()


def test_a_text_is_one_key_at_each_length_and_ends_where_it_ends():
    sketch = Prefixes(of="icd", length=3, noise_std=1.0)
    assert sketch.key("i25.1") == sketch.key("i25") == "3:i25"
    assert sketch.key("i2") == sketch.key("i2" + END) == "3:i2" + END
    assert sketch.key("i2") != sketch.key("i2 ")


def test_each_length_is_one_sum_and_all_are_one_question_of_a_form_that_sites_allow_by_default():
    asked = compiled([QUERY], 3, None, 5.0)
    assert [one.length for one in asked.statistics] == [2, 4, 6]
    assert {one.scale for one in asked.statistics} == {2.0}
    assert max(np.prod(one.shape) for one in asked.statistics) == 1000
    assert [one.length for one in Discover(of="icd", longest=5).statistics(1.0)] == [2, 4, 5]


@pytest.mark.parametrize(("wrong", "words"), [
    ({"letters": "aa"}, "twice"), ({"step": 3}, "smaller step"), ({"by": ({"column": "sex", "values": (1,)},)}, "no groups")])
def test_a_walk_that_cannot_be_is_refused(wrong: dict, words: str):
    with pytest.raises(ValueError, match=words):
        Discover(of="icd", **wrong)


def test_a_sketch_is_shown_to_people_as_how_many_records_it_has():
    sketch = Prefixes(of="icd", length=3, noise_std=1.0)
    (table,) = read(release(sketch, Rows(ROWS), stream(bytes(32), b"shown")))
    (one,) = table.estimates
    assert one.words == ("2 × 500",)
    assert one.low < len(ROWS) - 100 < one.high, "of these nothing is told"


def test_other_sketches_say_nothing_of_beginnings():
    sketch = Sketch(of="icd", noise_std=0.0)
    with pytest.raises(ContractError, match="beginnings"):
        discovered([release(sketch, Rows(ROWS), stream(bytes(32), b"texts"))], "ab", 5)
