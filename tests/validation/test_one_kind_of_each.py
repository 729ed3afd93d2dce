"""A table is the same table, whichever file of whatever widths it was written to."""

from __future__ import annotations

import datetime
import decimal
import gzip
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedround.errors import ContractError
from fedround.learning.recipe import load_recipe
from validation import encoding
from validation.rows import read_rows, read_typed

WHOLE = [0, 7, 100, 55, 126]
WIDTHS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
          pa.decimal128(20, 0), pa.dictionary(pa.int8(), pa.int32())]
FRACTIONS = [0.5, -2.25, 1000.0, 7.0, 0.0]


def both(tmp_path: Path, column: pa.Array, lines: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A column from Parquet, and from a CSV file with these cells."""
    pq.write_table(pa.table({"a": column, "b": pa.array(range(len(column)))}), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("a,b\n" + "".join(f"{line},{place}\n" for place, line in enumerate(lines)))
    return read_typed(tmp_path / "rows.parquet"), read_typed(tmp_path / "rows.csv")


@pytest.mark.parametrize("gap", [False, True], ids=["whole", "with a gap"])
@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_whole_numbers_of_every_width_are_int64_and_subtract_as_numbers(tmp_path: Path, width: pa.DataType, gap: bool):
    """An age of uint8 less 55 was 221, and every preflight was green."""
    values = [*WHOLE[:-1], None] if gap else WHOLE
    typed, said = both(tmp_path, pa.array(values).cast(width.value_type).dictionary_encode()
                       if pa.types.is_dictionary(width) else pa.array(values).cast(width),
                       ["" if value is None else str(value) for value in values])
    pd.testing.assert_frame_equal(typed, said)
    assert str(typed["a"].dtype) == ("Int64" if gap else "int64")
    assert (typed["a"] - 55).tolist()[:3] == [-55, -48, 45]
    plain = read_rows(tmp_path / "rows.csv")["a"]
    assert str(plain.dtype) == ("float64" if gap else "int64")
    pd.testing.assert_series_equal(plain, read_rows(tmp_path / "rows.parquet")["a"])


@pytest.mark.parametrize("width", [pa.float16(), pa.float32(), pa.float64(), pa.decimal128(9, 2), pa.decimal256(30, 4)],
                         ids=str)
def test_fractions_of_every_width_are_float64(tmp_path: Path, width: pa.DataType):
    values = [*FRACTIONS[:-1], None]
    column = (pa.array([None if v is None else np.float16(v) for v in values], width) if width == pa.float16() else
              pa.array([None if v is None else decimal.Decimal(str(v)) for v in values], width)
              if pa.types.is_decimal(width) else pa.array(values, width))
    typed, said = both(tmp_path, column, ["" if value is None else str(value) for value in values])
    pd.testing.assert_frame_equal(typed, said)
    assert typed["a"].dtype == np.float64


@pytest.mark.parametrize("column", [
    pa.array(["a", None, "b c", "None", "nan"]), pa.array(["a", None, "b c", "None", "nan"], pa.large_string()),
    pa.array(["a", None, "b c", "None", "nan"], pa.string_view()), pa.array(["a", "", "b c", "None", "nan"]),
    pa.array([b"a", None, b"b c", b"None", b"nan"]), pa.array(["a", None, "b c", "None", "nan"]).dictionary_encode()],
    ids=["string", "large", "view", "empty", "bytes", "categories"])
def test_texts_are_texts_and_an_empty_one_is_none(tmp_path: Path, column: pa.Array):
    typed, said = both(tmp_path, column, ["a", "", "b c", "None", "nan"])
    pd.testing.assert_frame_equal(typed, said)
    assert typed["a"].tolist() == ["a", None, "b c", "None", "nan"]


def test_uuids_are_texts_that_tell_rows_apart(tmp_path: Path):
    """Read as UTF-8, most of their bytes became the same sign: customers with other ids were one."""
    ids = [uuid.UUID(int=(0xfe << 120) + number) for number in (1, 2)]
    column = pa.array([*(one.bytes for one in ids), None], pa.uuid())
    typed, said = both(tmp_path, column, [*map(str, ids), ""])
    pd.testing.assert_frame_equal(typed, said)
    assert typed["a"].tolist() == [*map(str, ids), None]


@pytest.mark.parametrize("values", [[True, False, True], [True, None, False]], ids=["whole", "with a gap"])
def test_truths(tmp_path: Path, values: list[bool | None]):
    typed, said = both(tmp_path, pa.array(values), ["" if value is None else str(value) for value in values])
    pd.testing.assert_frame_equal(typed, said)
    assert [None if value is pd.NA else value for value in typed["a"].tolist()] == values


MOMENTS = [datetime.datetime.fromisoformat("2019-01-07T23:30"), None, datetime.datetime.fromisoformat("9999-12-31")]


@pytest.mark.parametrize(("kind", "lines"), [
    (pa.date32(), ["2019-01-07", "", "9999-12-31"]), (pa.date64(), ["2019-01-07", "NA", "9999-12-31"]),
    (pa.timestamp("s"), ["2019-01-07 23:30", "", "9999-12-31"]),
    (pa.timestamp("us"), ["2019-01-07T23:30:00.000", "null", "9999-12-31 00:00:00"]),
    (pa.timestamp("us", tz="Europe/Stockholm"), ["2019-01-07 23:30:00+01:00", "", "9999-12-31 00:00:00+01:00"])], ids=str)
def test_days_and_moments_are_what_a_clock_on_the_wall_shows(tmp_path: Path, kind: pa.DataType, lines: list[str]):
    values = [None if one is None else one.date() for one in MOMENTS] if pa.types.is_date(kind) else MOMENTS
    column = pa.array(values, kind if pa.types.is_date(kind) else pa.timestamp(kind.unit))
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = pa.compute.assume_timezone(column, kind.tz)
    typed, said = both(tmp_path, column, lines)
    pd.testing.assert_frame_equal(typed, said)
    assert str(typed["a"].dt.date[0]) == "2019-01-07"
    days = [encoding.columns([tmp_path / name], ["a"])["a"].tolist() for name in ("rows.parquet", "rows.csv")]
    assert days[0] == days[1]
    assert days[0][1] is None
    assert days[0][2] == "9999-12-31"


def test_whole_numbers_stay_exact_as_far_as_they_go_and_become_fractions_beyond(tmp_path: Path):
    exact = [2 ** 53 + 1, None, -2 ** 63]
    typed, said = both(tmp_path, pa.array(exact), ["" if one is None else str(one) for one in exact])
    pd.testing.assert_frame_equal(typed, said)
    assert typed["a"][0] == 2 ** 53 + 1
    beyond = [1, 2 ** 63 + 5, 2 ** 64 - 1]
    typed, said = both(tmp_path, pa.array(beyond, pa.uint64()), [str(one) for one in beyond])
    pd.testing.assert_frame_equal(typed, said)
    assert typed["a"].tolist() == [1.0, float(2 ** 63 + 5), float(2 ** 64 - 1)]


def test_a_column_without_a_value_is_a_column_of_gaps(tmp_path: Path):
    typed, said = both(tmp_path, pa.nulls(3), ["", "NA", "nan"])
    pd.testing.assert_frame_equal(typed, said)
    assert typed["a"].isna().all()


@pytest.mark.parametrize(("column", "what"), [
    (pa.array([[1, 2], None]), "lists or tables"), (pa.array([{"x": 1}, None]), "lists or tables"),
    (pa.array([datetime.timedelta(1), None]), "lengths of time")], ids=["list", "struct", "duration"])
def test_what_is_no_plain_value_is_refused_in_words(tmp_path: Path, column: pa.Array, what: str):
    pq.write_table(pa.table({"odd": column}), tmp_path / "rows.parquet")
    with pytest.raises(ContractError, match=f"column 'odd' holds {what}.* leave the column out"):
        read_rows(tmp_path / "rows.parquet")


def test_pandas_own_index_is_no_column_and_one_with_a_name_is_one_everywhere(tmp_path: Path):
    frame = pd.DataFrame({"x": [1, 2, 3]}, index=[5, 6, 9])
    for named in (None, "id"):
        frame.index.name = named
        frame.to_parquet(tmp_path / "rows.parquet")
        frame.to_csv(tmp_path / "rows.csv")
        found = [read_rows(tmp_path / name) for name in ("rows.parquet", "rows.csv")]
        pd.testing.assert_frame_equal(*found, check_like=True)
        assert set(found[0].columns) == {"x", *([named] if named else [])}


def test_a_row_is_known_again_in_whatever_format_and_width(tmp_path: Path):
    """The ledger of a data set knows its rows by their content."""
    frame = pd.DataFrame({"n": pd.array([1, None, 3], "Int64"), "f": [0.5, None, -0.0], "t": ["a", None, "nan"],
                          "b": [True, False, True],
                          "d": pd.to_datetime(["2019-01-07", None, "2019-01-08T10:00"], format="ISO8601")})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.astype({"n": "Int16", "f": "float32"})[["d", "b", "t", "f", "n"]].to_parquet(tmp_path / "b.parquet")
    frame.to_csv(tmp_path / "c.csv", index=False)
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress((tmp_path / "c.csv").read_bytes()))
    prints = [encoding.prints(path, "k" * 16).tolist() for path in sorted(tmp_path.glob("?.*"))]
    assert prints[0] == prints[1] == prints[2] == prints[3]
    assert len(set(prints[0])) == 3


WRITES = '''import numpy as np
from torch import nn

NAME = "writes"


def features(rows):
    return np.array([[len(str(a)), len(str(b))] for a, b in zip(rows["a"], rows["b"])], np.float32)


def labels(rows):
    return rows["y"].to_numpy(np.int64)


def build_model():
    return nn.Linear(2, 1)
'''
"""A recipe that writes numbers out, as one does that looks them up as words."""


def written(tmp_path: Path, rows: Path) -> np.ndarray:
    (recipe := tmp_path / "recipe.py").write_text(WRITES)
    return encoding.encode(rows, load_recipe(recipe), recipe).inputs["x"]


@pytest.mark.parametrize("odd", ["34.5", "1e3", "9223372036854775808", "", "nan", "inf"])
@pytest.mark.parametrize("column", ["a", "b"])
def test_attack_one_number_changes_no_other_rows_types(tmp_path: Path, column: str, odd: str):
    """One fraction among whole numbers made fractions of all of them; so did one number beyond 64 bits."""
    rows = pd.DataFrame({"a": [str(n) for n in range(300)], "b": [str(9_007_199_254_740_993 + n) for n in range(300)],
                         "y": [n % 2 for n in range(300)]})
    rows.to_csv(path := tmp_path / "rows.csv", index=False)
    before = written(tmp_path, path)
    rows.loc[7, column] = odd
    rows.to_csv(path, index=False)
    others = np.arange(300) != 7
    assert np.array_equal(written(tmp_path, path)[others], before[others])


@pytest.mark.parametrize("width", [pa.uint64(), pa.decimal128(20, 0)], ids=str)
def test_attack_one_number_beyond_64_bits_changes_no_other_rows_types(tmp_path: Path, width: pa.DataType):
    numbers, path = list(range(300)), tmp_path / "rows.parquet"
    found = []
    for numbers[7] in (7, 2 ** 63):
        pq.write_table(pa.table({"a": pa.array(numbers, width), "b": pa.array([1] * 300),
                                 "y": pa.array([n % 2 for n in range(300)])}), path, row_group_size=100)
        found.append(written(tmp_path, path))
    others = np.arange(300) != 7
    assert np.array_equal(found[0][others], found[1][others])
