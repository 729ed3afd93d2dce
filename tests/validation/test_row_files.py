"""What a path of rows may name, and what is said of files that are not as they should be."""

from __future__ import annotations

import gzip
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedround.errors import ContractError, FedroundError, SetupError
from site_workers import rows_in_parts
from validation import row_files
from validation.rows import read_rows
from validation.tables import Table

ROWS = pd.DataFrame({"x1": [0.5, 1.5, 2.5, 3.5], "n": [1, 2, 3, 4], "t": ["a", "b", "c", "d"]})


def part(path: Path, rows: slice) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = ROWS.iloc[rows]
    if path.name.lower().endswith(".parquet"):
        frame.to_parquet(path)
    else:
        body = frame.to_csv(index=False).encode()
        path.write_bytes(gzip.compress(body) if path.name.lower().endswith(".gz") else body)


@pytest.mark.parametrize("name", ["rows.parquet", "ROWS.PARQUET", "rows.csv", "Rows.CSV", "rows.csv.gz", "ROWS.CSV.GZ"])
def test_a_file_of_each_kind_in_capitals_or_not(tmp_path: Path, name: str):
    part(tmp_path / name, slice(None))
    pd.testing.assert_frame_equal(read_rows(tmp_path / name), ROWS)


def test_a_folder_of_parts_and_a_pattern_are_read_by_name_and_a_new_part_changes_the_digest(tmp_path: Path):
    folder = tmp_path / "rows"
    for name, some in (("2019-02.parquet", slice(2, 3)), ("2019-01.csv", slice(0, 2)), ("b/2018-12.csv.gz", slice(3, 4))):
        part(folder / name, some)
    for name in ("_SUCCESS", ".hidden.csv", "readme.txt", "_tmp/torn.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("nothing\n")
    pd.testing.assert_frame_equal(read_rows(folder), ROWS)
    pd.testing.assert_frame_equal(read_rows(tmp_path / "rows" / "2019-*"), ROWS.iloc[:3])
    before = row_files.digest_of(folder)
    part(folder / "2019-03.csv", slice(0, 1))
    assert row_files.digest_of(folder) != before
    (folder / "2019-03.csv").unlink()
    assert row_files.digest_of(folder) == before
    (folder / "2019-01.csv").rename(folder / "2019-09.csv")
    assert row_files.digest_of(folder) != before, "another name is another order"


def test_the_digest_of_one_file_is_of_its_bytes_wherever_it_lies(tmp_path: Path):
    part(tmp_path / "a" / "x.csv", slice(None))
    (tmp_path / "link.csv").symlink_to(tmp_path / "a" / "x.csv")
    assert row_files.digest_of(tmp_path / "link.csv") == row_files.digest_of(tmp_path / "a" / "x.csv")


def test_folders_that_name_a_day_give_their_rows_a_column(tmp_path: Path):
    for day, some in (("2019-01-07", slice(0, 1)), ("2019-01-14", slice(1, 3)), ("__HIVE_DEFAULT_PARTITION__", slice(3, 4))):
        part(tmp_path / "rows" / f"date={day}" / "part-0.parquet", some)
    found = read_rows(tmp_path / "rows")
    assert [None if pd.isna(day) else str(day.date()) for day in found["date"]] == [
        "2019-01-07", "2019-01-14", "2019-01-14", None]
    assert [str(day.date()) for day in read_rows(tmp_path / "rows" / "date=2019-*" / "*.parquet")["date"]] == [
        "2019-01-07", "2019-01-14", "2019-01-14"]
    part(tmp_path / "rows" / "no-day.parquet", slice(0, 1))
    with pytest.raises(ContractError, match="no-day.parquet has no column 'date'"):
        read_rows(tmp_path / "rows")


def test_parts_that_do_not_go_together_are_named(tmp_path: Path):
    part(tmp_path / "a.csv", slice(0, 2))
    ROWS.drop(columns="t").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ContractError, match=r"b.parquet has no column 't', which a.csv has"):
        read_rows(tmp_path)
    ROWS.assign(n=["p", "q", "r", "s"]).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ContractError, match="column 'n' is of one kind in one file and of another in another"):
        read_rows(tmp_path)
    ROWS.assign(n=[0.5, 1, 2, 3])[["t", "n", "x1"]].to_parquet(tmp_path / "b.parquet")
    assert read_rows(tmp_path)["n"].tolist() == [1, 2, 0.5, 1, 2, 3], "fractions and whole numbers are numbers"
    ROWS.head(0).to_parquet(tmp_path / "c.parquet")
    assert len(read_rows(tmp_path)) == 6, "a part may be empty"


ODD: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None, "folder": lambda path: path.mkdir(), "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"), "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name), "disk": lambda path: path.symlink_to("/proc/self/mem"),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path))}


@pytest.mark.parametrize("ending", ["csv", "parquet", "csv.gz"])
@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_is_said_in_words_and_not_waited_for(short_folder: Path, odd: str, ending: str):
    path = short_folder / f"{odd}.{ending}"
    ODD[odd](path)
    with pytest.raises(SetupError, match=f"{odd}.{ending}"):
        read_rows(path)
    with pytest.raises(SetupError, match=f"{odd}.{ending}"):
        next(rows_in_parts.read(path, (), 10))
    if odd not in {"folder"}:
        with pytest.raises(SetupError):
            row_files.digest_of(path)


def test_names_that_no_file_has(tmp_path: Path):
    for name in ("a\0.csv", "a" * 300 + ".csv"):
        with pytest.raises(SetupError, match="cannot be read"):
            read_rows(tmp_path / name)
    with pytest.raises(SetupError, match="no file of rows has a name like 2019"):
        read_rows(tmp_path / "2019-*.parquet")


# -- what is in them ---------------------------------------------------------------------------------------------------

GOOD = "x1,n,t\n0.5,1,a\n1.5,2,b\n"
READ: dict[str, tuple[bytes, list[list[object]]]] = {
    "mark": (b"\xef\xbb\xbf" + GOOD.encode(), [[0.5, 1, "a"], [1.5, 2, "b"]]),
    "UTF-16": (GOOD.encode("utf-16"), [[0.5, 1, "a"], [1.5, 2, "b"]]),
    "UTF-16 BE": (b"\xfe\xff" + GOOD.encode("utf-16-be"), [[0.5, 1, "a"], [1.5, 2, "b"]]),
    "CRLF": (GOOD.replace("\n", "\r\n").encode(), [[0.5, 1, "a"], [1.5, 2, "b"]]),
    "CR": (GOOD.replace("\n", "\r").encode(), [[0.5, 1, "a"], [1.5, 2, "b"]]),
    "no last line end": (GOOD.rstrip().encode(), [[0.5, 1, "a"], [1.5, 2, "b"]]),
    "blanks in the head": (b" x1 , n,t\n0.5, 1,a\n1.5 ,2, b\n", [[0.5, 1, "a"], [1.5, 2, " b"]]),
    "quoted": (b'"x1","n","t"\n"0.5","1","a, ""b""\nc"\n"1.5","","NA"\n', [[0.5, 1, 'a, "b"\nc'], [1.5, None, "NA"]]),
    "gaps": (b"x1,n,t\nNA,null,NA\n1.5,2,None\nnan,3,nan\n", [[None, None, None], [1.5, 2, "None"], [None, 3, "nan"]]),
    "Latin-1": ("x1,n,t\n0.5,1,caf\xe9\n".encode("latin-1"), [[0.5, 1, "caf�"]]),
    "NUL": (b"x1,n,t\n0.5,1,a\0b\n\0,2,b\n1,3,c\n", [[0.5, 1, "a\0b"], [None, 2, "b"], [1.0, 3, "c"]]),
    "texts among numbers": (b"x1,n,t\n0.5,1,a\n1.5,x,b\n0x1F,3,c\n1_0,4,d\n2,5,e\n3,6,f\n", [
        [0.5, 1, "a"], [1.5, None, "b"], [None, 3, "c"], [None, 4, "d"], [2.0, 5, "e"], [3.0, 6, "f"]]),
    "a long line": (b"x1,n,t\n0.5,1," + b"y" * 3_000_000 + b"\n", [[0.5, 1, "y" * 3_000_000]]),
    "lines too long and too short": (b"x1,n,t\n0.5,1,a\n9,9\n8,8,8,8\n1.5,2,b\n", [[0.5, 1, "a"], [1.5, 2, "b"]]),
    "Latin-1 in a line that is skipped": (b"x1,n,t\n0.5,1,a\n9,9,\xff,9\n1.5,2,b\n", [[0.5, 1, "a"], [1.5, 2, "b"]]),
    "a comma at the end of every line": (b"x1,n,t,\n0.5,1,a,\n1.5,2,b,\n", [[0.5, 1, "a"], [1.5, 2, "b"]]),
    "an unnamed index": (b",x1,n,t\n0,0.5,1,a\n1,1.5,2,b\n", [[0.5, 1, "a"], [1.5, 2, "b"]])}


@pytest.mark.parametrize("form", READ)
def test_csv_files_of_many_kinds_are_read(tmp_path: Path, form: str):
    body, rows = READ[form]
    (tmp_path / "rows.csv").write_bytes(body)
    found = read_rows(tmp_path / "rows.csv")
    assert list(found.columns) == ["x1", "n", "t"]
    assert [[None if pd.isna(cell) else cell for cell in row] for row in found.to_numpy(object).tolist()] == rows


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "semicolons": ("csv", b"x1;n;t\n0,5;1;a\n", "semicolons stand between its columns, expected commas"),
    "tabs": ("csv", b"x1\tn\tt\n0.5\t1\ta\n", "tabs stand between its columns"),
    "bars": ("csv", b"x1|n|t\n0.5|1|a\n", "vertical bars stand between"),
    "one name twice": ("csv", b"x1,n,n\n1,2,3\n", "columns 2 and 3 are both called 'n': rename one"),
    "one name twice but for blanks": ("csv", b"x1,n, n\n1,2,3\n", "columns 2 and 3 are both called 'n'"),
    "no name": ("csv", b"x1,,t\n1,2,3\n", "column 2 of 3 has no name"),
    "UTF-16 without a mark": ("csv", GOOD.encode("utf-16-le"), "NULs in its first line; save it as UTF-8"),
    "names in Latin-1": ("csv", "gr\xf6sse,n,t\n1,2,3\n".encode("latin-1"), "names in its first line are no UTF-8"),
    "empty": ("csv", b"", "not a readable csv file: it is empty"),
    "head alone": ("csv", b"x1,n,t\n", "there are no rows in it"),
    "another head": ("csv", b"x1,n\n1,2,\n3,4,\n", "none of its 2 lines has as many values as the first line has names"),
    "open quotation mark": ("csv", b'x1,n,t\n0.5,1,"a\n1.5,2,b\n', "a quotation mark is opened and never closed"),
    "torn gzip": ("csv.gz", gzip.compress(GOOD.encode() * 99)[:-20], "not a whole gzip file"),
    "no gzip": ("csv.gz", GOOD.encode(), "not a whole gzip file"),
    "flipped gzip": ("csv.gz", bytearray(gzip.compress(GOOD.encode()))[:-8] + b"12345678", "not a whole gzip file"),
    "no parquet": ("parquet", GOOD.encode(), "not a readable parquet file")}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_none_gets_one_sentence_that_names_it_and_says_what_to_do(tmp_path: Path, what: str):
    ending, body, says = REFUSED[what]
    (tmp_path / f"rows.{ending}").write_bytes(body)
    with pytest.raises(ContractError, match=says) as refused:
        read_rows(tmp_path / f"rows.{ending}")
    assert f"rows.{ending}" in str(refused.value)
    assert isinstance(refused.value, FedroundError)


@pytest.mark.parametrize(("cells", "says"), [
    (['"1,5"', '"2,25"', "7"], "decimal comma"), (['"1,234"', "1 234.5", '"12,345.5"'], "in groups"),
    (["07.01.2019", "8/1/2019", "x"], "2019-01-07"), (["a", '"1,5"', "b"], None), (["1", '"1,5"', "2"], None)])
def test_numbers_and_days_as_other_countries_write_them_are_pointed_out(tmp_path: Path, cells: list[str], says: str | None):
    (tmp_path / "rows.csv").write_text("odd,n\n" + "".join(f"{cell},1\n" for cell in cells))
    hints = Table(tmp_path / "rows.csv").hints
    assert (says is None and hints == ()) or (len(hints) == 1 and "column 'odd'" in hints[0] and str(says) in hints[0])
