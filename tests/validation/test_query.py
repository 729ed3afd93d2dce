"""Rows from a database are those of a Parquet file, and no message, argument or file holds a value or a password."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy

from fedround.errors import ContractError, SetupError
from infra.stack.postgres import Postgres
from validation import query
from validation.rows import read_rows

SECRET = "SECRET-PATIENT-77"
PASSWORD = "SECRET-PASSWORD-78"


@pytest.fixture
def database(tmp_path) -> sqlite3.Connection:
    made = sqlite3.connect(tmp_path / "db")
    made.execute("create table people(id integer primary key, age, income real, town text)")
    made.executemany("insert into people(age, income, town) values(?, ?, ?)", [
        (30, 1.5, "007"), (31, None, "Ål"), (32, 2.0, ""), (33, 7, None)])
    made.commit()
    return made


def ask(folder: Path, text: str, url: str | None = None) -> pd.DataFrame:
    (folder / "rows.sql").write_text(text)
    query.ask({folder / "rows.sql": (query.checked(folder / "rows.sql"), folder / "rows.parquet")},
              url or f"sqlite:///{folder / 'db'}")
    return read_rows(folder / "rows.parquet")


EVERYTHING = "select id, age, income, town from people where town is null or town <> ':x' order by id"


def test_an_answer_is_a_table_of_rows(tmp_path, database):
    pd.testing.assert_frame_equal(ask(tmp_path, EVERYTHING), pd.DataFrame({
        "id": [1, 2, 3, 4], "age": [30, 31, 32, 33], "income": [1.5, None, 2.0, 7.0],
        "town": pd.array(["007", "Ål", None, None], dtype=object)}))


@pytest.mark.parametrize("odd", [34.5, SECRET, 1 << 62, None, b"\xff"])
def test_attack_one_row_of_another_type_changes_no_other_row(tmp_path, database, odd):
    before = ask(tmp_path, EVERYTHING)
    database.execute("update people set age = ? where id = 4", (odd,))
    database.commit()
    after = ask(tmp_path, EVERYTHING)
    assert list(after["age"][:3]) == list(before["age"][:3])
    assert SECRET not in str(after["age"].tolist())


def test_attack_one_row_that_the_driver_cannot_read_ends_no_round(tmp_path, database):
    """Its error quoted the text, and a refusal would have told that this row is there."""
    database.execute("update people set town = cast(? as text) where id = 1", (SECRET.encode() + b"\xff",))
    database.commit()
    assert list(ask(tmp_path, EVERYTHING)["town"]) == [f"{SECRET}\ufffd", "Ål", None, None]


@pytest.mark.parametrize(("text", "error", "said"), [
    ("select age from people", ContractError, "no ORDER BY"),
    ("select age from people -- order by id", ContractError, "no ORDER BY"),
    ("select 'order by' as a from people", ContractError, "no ORDER BY"),
    ('select age as "order by" from people', ContractError, "no ORDER BY"),
    ("select * from (select age from people order by (id))", ContractError, "no ORDER BY"),
    ("select row_number() over (order by id) as n from people", ContractError, "no ORDER BY"),
    ("select shoe from people order by id", SetupError, "no such column: shoe"),
    ("select id, id from people order by id", ContractError, "two columns of one name"),
    ("select * from people where id > 9 order by id", ContractError, "gives no rows"),
    ("delete from people where id in (select id from people order by id)", ContractError, "no ORDER BY"),
    ("create table copied as select id from people order by id", SetupError, "OperationalError: attempt to write"),
    ("pragma journal_mode -- \n order by id", SetupError, "OperationalError"),
    ("delete from people returning id, 'order by' order by id", SetupError, "OperationalError"),
    ("drop table people; select 1 order by 1", SetupError, "one statement"),
    (f"select json(town || '{SECRET}') from people order by id", SetupError, "OperationalError"),
])
def test_a_query_that_is_none_is_refused_in_words_and_changes_nothing(tmp_path, database, text, error, said):
    with pytest.raises(error, match=said) as raised:
        ask(tmp_path, text)
    assert SECRET not in str(raised.value)
    assert database.execute("select count(*), (select count(*) from sqlite_master) from people").fetchone() == (4, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "rows.sql"]


@pytest.mark.parametrize(("url", "said"), [
    (f"no-url-at-all-{PASSWORD}", "the database's URL is none"),
    (f"nosuch+driver://u:{PASSWORD}@127.0.0.1/x", "the database's URL is none"),
    (f"mysql+mysqldb://u:{PASSWORD}@127.0.0.1/x", r"driver 'MySQLdb' .* is not installed"),
    (f"postgresql+psycopg://u:{PASSWORD}@127.0.0.1:1/x", "Connection refused"),
])
def test_a_database_that_cannot_be_asked_is_named_without_its_password(tmp_path, url, said):
    with pytest.raises(SetupError, match=said) as raised:
        ask(tmp_path, EVERYTHING, url)
    assert PASSWORD not in str(raised.value)


def test_a_child_asks_the_same_and_passes_on_what_the_database_said(tmp_path, database):
    expected = ask(tmp_path, EVERYTHING)
    (tmp_path / "rows.parquet").unlink()
    asked = {tmp_path / "rows.sql": tmp_path / "rows.parquet"}
    query.ask_in_subprocess(asked, f"sqlite:///{tmp_path / 'db'}", 60)
    pd.testing.assert_frame_equal(read_rows(tmp_path / "rows.parquet"), expected)
    with pytest.raises(SetupError, match="no such table: people"):
        query.ask_in_subprocess(asked, "sqlite://", 60)


def test_attack_a_password_in_the_arguments_of_a_process(tmp_path, database, monkeypatch):
    seen: list[str] = []
    real = subprocess.run

    def watched(arguments, **options):
        seen.extend([*arguments, *options["env"].values()])
        return real(arguments, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    (tmp_path / "db").rename(tmp_path / PASSWORD)
    (tmp_path / "rows.sql").write_text(EVERYTHING)
    query.ask_in_subprocess({tmp_path / "rows.sql": tmp_path / "rows.parquet"}, f"sqlite:///{tmp_path / PASSWORD}", 60)
    assert seen
    assert not any(PASSWORD in one for one in seen)


def test_postgresql_gives_every_type_and_lets_nobody_write(tmp_path, short_folder):
    """The real server, with its own types; all queries see one moment."""
    home = short_folder / "asked"
    home.mkdir()
    server = Postgres(home)
    url = server.start().replace("asyncpg", "psycopg")
    try:
        with sqlalchemy.create_engine(url).begin() as connection:
            connection.execute(sqlalchemy.text(
                "create table t as select n as id, (n % 30000)::smallint as small, (n * 1.5)::numeric(8,2) as price, "
                "n % 2 = 0 as even, date '2019-01-07' + n as day, timestamptz '2019-01-07 23:30:00+01' as at, "
                "'p%'||n as name, case when n = 2 then null else n end as gap, decode('c3a5', 'hex') as raw "
                "from generate_series(1, 70000) n"))
        found = ask(tmp_path, "select *, day::text as said, 'a:b' as c from t order by id;", url)
        assert found.dtypes.astype(str).to_dict() == {
            "id": "int64", "small": "int64", "price": "float64", "even": "bool", "day": "datetime64[us]",
            "at": "datetime64[us]", "name": "object", "gap": "float64", "raw": "object", "said": "object", "c": "object"}
        assert len(found) == 70_000
        last = found.iloc[-1]
        assert (last["id"], last["price"], last["name"], last["raw"], last["c"]) == (70_000, 105_000.0, "p%70000", "å", "a:b")
        assert found["day"][0] == pd.Timestamp(dt.date(2019, 1, 8))
        odd = ask(tmp_path, "select case when id = 3 then 'infinity' else day end as day, "
                            "case when id = 4 then '0044-03-15 BC' else at end as at, "
                            "case when id = 5 then '24:00' else '12:00'::time end as hour from t order by id", url)
        assert odd["day"].isna().tolist()[:5] == [False, False, True, False, False], "one record ends no round"
        assert odd["at"].isna().tolist()[:5] == [False, False, False, True, False]
        assert odd["hour"].tolist()[3:5] == ["12:00:00", None]
        for text in ("delete from t returning id order by id",
                     "select id, lo_create(0) from t order by 1",
                     "with gone as (delete from t returning id) select id from gone order by id"):
            with pytest.raises((SetupError, ContractError)):
                ask(tmp_path, text, url)
        with pytest.raises(SetupError, match=r"failed \(DataError\)") as raised:
            ask(tmp_path, f"select ('{SECRET}' || name)::int from t order by id", url)
        assert SECRET not in str(raised.value)
        assert len(ask(tmp_path, "select id from t order by id", url)) == 70_000
    finally:
        server.stop()
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".spool")]
