"""Every row is encoded by itself, and what cannot be encoded counts for nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedround.errors import ContractError
from fedround.learning.encoding import encode
from fedround.learning.examples import Examples
from fedround.learning.recipe import load_recipe

PLAIN = "    return rows[['a', 'b', 'c']].to_numpy(np.float32)"
POOLS = {
    "mean": "    x = rows[['a', 'b', 'c']].to_numpy(np.float32)\n    return x - x.mean(axis=0)",
    "rank": "    return rows[['a', 'b', 'c']].rank().to_numpy(np.float32)",
    "above a number of rows": "    x = rows[['a', 'b', 'c']].to_numpy(np.float32)\n"
                              "    return x - x.mean(axis=0) if len(rows.drop_duplicates()) > 130 else x",
    "below a number of rows": "    x = rows[['a', 'b', 'c']].to_numpy(np.float32)\n"
                              "    return x - x.mean(axis=0) if len(rows.drop_duplicates()) < 130 else x",
    "remembers the first rows": "    x = rows[['a', 'b', 'c']].to_numpy(np.float32)\n    MEAN.append(x.mean(axis=0))\n"
                                "    return x - MEAN[0]\n\nMEAN = []",
    "counts its calls": "    CALLS.append(1)\n"
                        "    return rows[['a', 'b', 'c']].to_numpy(np.float32) + len(CALLS)\n\nCALLS = []",
    "random": "    return rows[['a', 'b', 'c']].to_numpy(np.float32) + np.random.default_rng().normal()",
    "clock": "    import time\n    return rows[['a', 'b', 'c']].to_numpy(np.float32) + time.perf_counter_ns() % 1000",
    "neighbour": "    return rows[['a', 'b', 'c']].shift(1, fill_value=0).to_numpy(np.float32)",
    "dummies": "    return pd.get_dummies(rows['k']).to_numpy(np.float32)",
}


def frame(rows: int) -> pd.DataFrame:
    generator = np.random.default_rng(3)
    return pd.DataFrame(generator.normal(size=(rows, 3)), columns=["a", "b", "c"]).assign(
        y=np.arange(rows) % 2, k=np.arange(rows) % 97)


@pytest.fixture
def made(write_recipe):
    """What a recipe with these features makes of rows."""
    def of(rows: pd.DataFrame, features: str = PLAIN) -> Examples:
        path: Path = write_recipe()
        head, _, tail = path.read_text().partition("def features(rows):\n")
        path.write_text(f"import pandas as pd\n{head}def features(rows):\n{features}\n\n" + tail[tail.index("def labels"):])
        return encode(rows, load_recipe(path), lambda: load_recipe(path))

    return of


@pytest.mark.parametrize("rows", [1, 2, 255, 256, 257, 700])
def test_rows_are_encoded_in_their_order(made, rows):
    found = made(frame(rows))
    assert np.array_equal(found.inputs["x"], frame(rows)[["a", "b", "c"]].to_numpy(np.float32))
    assert np.array_equal(found.targets["y"], frame(rows)["y"])
    assert found.counts_N.all()


@pytest.mark.parametrize("rows", [5, 300])
@pytest.mark.parametrize("kind", POOLS)
def test_attack_what_is_encoded_otherwise_beside_other_rows_is_refused(made, kind, rows):
    """Standardising by the site's mean moved a sum by 64.8 clip norms for one changed row; every check was green."""
    if rows == 5 and kind == "above a number of rows":
        return          # it has nothing to pool: then a row is encoded by itself
    with pytest.raises(ContractError, match=r"otherwise beside other rows.*by itself"):
        made(frame(rows), POOLS[kind])


def test_the_operator_is_told_which_feature(made):
    with pytest.raises(ContractError, match="1 of 3 features differ, the first at place 1"):
        made(frame(300), "    x = rows[['a', 'b', 'c']].to_numpy(np.float32)\n    x[:, 1] -= x[:, 1].mean()\n    return x")


@pytest.mark.parametrize("change", [{"a": np.nan}, {"b": np.inf}, {"y": 7}, {"y": -1}], ids=str)
def test_attack_a_row_that_cannot_be_encoded_counts_for_nothing_and_moves_no_other(made, change):
    """One gap in 300 rows was a refusal, charged nothing: it told that the row is there."""
    rows, whole = frame(300), made(frame(300))
    for column, value in change.items():
        rows[column] = rows[column].astype(float)
        rows.loc[17, column] = value
    found, others = made(rows), np.arange(300) != 17
    assert np.array_equal(found.counts_N, others)
    assert np.array_equal(found.inputs["x"][others], whole.inputs["x"][others])
    assert np.array_equal(found.targets["y"][others], whole.targets["y"][others])
    assert not found.inputs["x"][17].any()


def test_rows_of_which_none_can_be_encoded_are_one_sentence_that_quotes_nothing(made):
    with pytest.raises(ContractError, match=r"cannot encode a single row \(KeyError\)") as refused:
        made(frame(300).drop(columns="b").assign(secret="Ada"))
    assert "Ada" not in str(refused.value)


def test_most_rows_that_cannot_be_encoded_leave_the_others(made):
    rows = frame(600)
    rows.loc[rows.index % 100 != 3, "a"] = np.nan
    assert np.flatnonzero(made(rows).counts_N).tolist() == [3, 103, 203, 303, 403, 503]


@pytest.mark.parametrize("gap", [pd.array([pd.NA], "Int64"), pd.array([pd.NA], "boolean")], ids=["whole", "truth"])
def test_attack_one_gap_changes_no_other_rows_types(made, gap):
    """pandas turned all ages to float64 where one missed: a recipe that writes them out encoded every row otherwise."""
    writes = "    return np.array([[len(str(one))] for one in rows['k']], np.float32)"
    rows = frame(300).assign(k=pd.array([n % 2 for n in range(300)], gap.dtype))
    whole = rows.astype({"k": "int64" if gap.dtype == "Int64" else "bool"})
    before = made(whole, writes)
    rows.loc[7, "k"] = pd.NA
    now = made(rows, writes)
    others = np.arange(300) != 7
    assert np.array_equal(now.inputs["x"][others], before.inputs["x"][others])
    assert np.array_equal(made(rows).inputs["x"], made(whole).inputs["x"])


def test_a_column_that_misses_is_found_at_once_and_not_tried_on_every_row(made):
    counts = ("    CALLS.append(1)\n    assert len(CALLS) < 600, 'too many tries'\n"
              "    return rows[['elsewhere']].to_numpy(np.float32)\n\nCALLS = []")
    with pytest.raises(ContractError, match=r"cannot encode a single row \(KeyError\)"):
        made(frame(20_000), counts)
