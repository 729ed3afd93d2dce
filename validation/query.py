"""What a database answers to a query, written as one Parquet file: a table for everything that reads rows.

The query runs in a transaction that is never committed, and that may write nothing in PostgreSQL and SQLite. Rows come in
parts. Each column gets the one type of its kind (`kinds`). A database with types of its own gives every value of a column the
same type. Where it has none (SQLite), the column is of the kind that most of its values are of, and any other value is no
value: one row changes no other row's types.

No message quotes a value.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import re
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any

from fedround.errors import ContractError, FedroundError, SetupError
from fedround.files import read_named
from fedround.parent import as_parent, end_with_parent
from validation.kinds import Kind

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection, Engine

_ROWS = 1 << 16
_KINDS: tuple[Kind, ...] = ("whole", "fraction", "truth", "date", "text")
_IN_WORDS = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", re.DOTALL)
"""Texts, quoted names and remarks of a query."""
_WITHIN = re.compile(r"\([^()]*\)")
_SAYS_NO_VALUE = ("postgresql", "sqlite")
"""Databases whose words about a query, before any row is read, quote no value. MySQL's do."""
_PLAIN: tuple[tuple[type | UnionType, Kind, Callable[[Any], Any]], ...] = (
    (bool, "truth", bool), (int, "whole", int), (float | decimal.Decimal, "fraction", float), (str, "text", str),
    (dt.datetime, "date", lambda found: found.replace(tzinfo=None)),        # as its clock shows it
    (dt.date, "date", lambda found: dt.datetime.combine(found, dt.time())),
    (bytes | memoryview, "text", lambda found: bytes(found).decode("utf-8", "replace")),
    (dt.time | uuid.UUID, "text", str))
"""Values of which type are of which kind, and how they are written: the first that holds."""
_AS_THEY_ARE: dict[type, Kind] = {bool: "truth", int: "whole", float: "fraction", str: "text"}
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1
_ERRORS: dict[str, type[FedroundError]] = {"SetupError": SetupError, "ContractError": ContractError}


def checked(query: Path) -> str:
    """The query that the file holds. Raises SetupError if there is none; ContractError unless it orders its rows."""
    try:
        text = read_named(query).decode("utf-8-sig").strip().removesuffix(";")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"the query {query} cannot be read ({type(error).__name__}): expected a file with one "
                         "SELECT") from None
    outside, found = _IN_WORDS.sub(" ", text), 1
    while found:                        # what orders a part of the query orders no rows of the answer
        outside, found = _WITHIN.subn(" ", outside)
    if not re.search(r"\border\s+by\b", outside, re.IGNORECASE):
        raise ContractError(f"the query {query} has no ORDER BY: a row's place decides which noise it is trained with, so "
                            "the same rows must come in the same order; order them by their key")
    return text


def ask_in_subprocess(queries: Mapping[Path, Path], url: str, timeout_s: float) -> None:
    """Write the answer to each query, a key, as the Parquet file that is its value; in PostgreSQL all as of one moment.

    In a process of its own, which gets the URL on its standard input. Raises SetupError if the database cannot be asked;
    ContractError for a query or an answer that is none of a table.
    """
    asked = json.dumps({"url": url, "queries": {str(query): [checked(query), str(into)] for query, into in queries.items()}})
    try:
        child = subprocess.run([sys.executable, "-P", "-m", __name__], input=asked.encode(), stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, timeout=timeout_s, check=False,
                               env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | as_parent())
    except subprocess.TimeoutExpired:
        raise SetupError(f"the database took longer than the {timeout_s:g} s that one plan may take here (limits.seconds in "
                         "policy.toml)") from None
    try:
        said = json.loads(child.stdout)
    except ValueError:
        raise SetupError("the process that asks the database ended without an answer; is there enough memory?") from None
    if said:
        raise _ERRORS[said["error"]](said["message"])


# -- the child ---------------------------------------------------------------------------------------------------------


def ask(queries: Mapping[Path, tuple[str, Path]], url: str) -> None:
    """As `ask_in_subprocess`, in this process. A query: its file, its text, and the file to write."""
    engine = _engine(url)
    options: dict[str, Any] = {"stream_results": True, "yield_per": _ROWS}
    if engine.dialect.name == "postgresql":
        options["postgresql_readonly"] = True
    try:
        with _in_words("the database", in_full=True):
            connection = engine.connect().execution_options(**options)
        with connection:
            for query, (text, into) in queries.items():
                _ask(connection, query, text, into)
            connection.rollback()       # whatever a query did is undone
    finally:
        engine.dispose()


def _engine(url: str) -> Engine:
    import sqlalchemy

    try:
        parsed = sqlalchemy.make_url(url)
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ"} if parsed.get_backend_name() == "postgresql" else {}
        engine = sqlalchemy.create_engine(parsed, **options)
    except ModuleNotFoundError as error:
        raise SetupError(f"the driver '{error.name}' of the database's URL is not installed: run pip install 'fedround[sql]' "
                         "for PostgreSQL (postgresql+psycopg://…), or install the driver of your database") from None
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise SetupError("the database's URL is none: expected one of SQLAlchemy's, as "
                         "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE") from None


    sqlalchemy.event.listen(engine, "connect", lambda raw, _: _prepare(raw, engine.driver))
    return engine


def _prepare(raw: Any, driver: str) -> None:
    """Nothing may be written, and each value is read by itself.

    A value that Python has no type for (a day that never ends, a text that is none) is no value, or is read as far as it
    can be. Otherwise the driver raises an error, and one row would end the round.
    """
    if driver == "pysqlite":
        raw.execute("PRAGMA query_only = ON")       # it commits a new table by itself
        raw.text_factory = lambda text: text.decode("utf-8", "replace")
    if driver == "psycopg":
        from psycopg.types import datetime as known

        for of, loader in {"date": known.DateLoader, "time": known.TimeLoader, "timetz": known.TimetzLoader,
                           "timestamp": known.TimestampLoader, "timestamptz": known.TimestamptzLoader}.items():
            raw.adapters.register_loader(of, _or_none(loader))


def _or_none(loader: Any) -> Any:
    def load(self: Any, data: Any) -> Any:
        import psycopg

        try:
            return loader.load(self, data)
        except (psycopg.DataError, ValueError, OverflowError):
            return None

    return type(loader.__name__, (loader,), {"load": load})


def _ask(connection: Connection, query: Path, text: str, into: Path) -> None:
    import sqlalchemy

    with _in_words(f"the query {query}", in_full=connection.dialect.name in _SAYS_NO_VALUE):
        answer = connection.execute(sqlalchemy.text(text.replace(":", r"\:")))
        if not answer.returns_rows:
            raise ContractError(f"the query {query} gives no table: expected one SELECT")
    names = list(answer.keys())
    if "" in names or len(set(names)) < len(names):
        raise ContractError(f"the query {query} gives two columns of one name, or one without: name them with AS")
    with _in_words(f"the query {query}", in_full=False):
        _write(answer.partitions(_ROWS), names, query, into)


@contextmanager
def _in_words(what: str, *, in_full: bool) -> Iterator[None]:
    """What the database says, as a SetupError; in full only where no row was read yet, and its words quote none."""
    import sqlalchemy

    try:
        yield
    except sqlalchemy.exc.SQLAlchemyError as error:
        said = ""
        if in_full and isinstance(error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.ProgrammingError):
            said = f": {(str(error.orig).strip().splitlines() or [''])[0][:200]}"
        raise SetupError(f"{what} failed ({type(error).__name__}{said}): look at keys/database.toml, and whether its login "
                         "may read these tables") from None


@dataclass
class _Spool:
    """How many values of each kind every column has had, in the order of the columns."""

    counts: list[Counter[Kind]]
    rows: int = 0


def _write(parts: Iterable[Sequence[Any]], names: Sequence[str], query: Path, into: Path) -> None:
    """First as one column for each name and kind, since only the end shows of which kind most values are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    spooled, spool = into.with_suffix(".spool"), _Spool([Counter() for _ in names])
    try:
        with pq.ParquetWriter(spooled, pa.schema([(f"{place} {kind}", _arrow(kind)) for place in range(len(names))
                                                  for kind in _KINDS])) as writer:
            for part in parts:
                writer.write_table(_split(part, spool, writer.schema))
        if spool.rows == 0:
            raise ContractError(f"the query {query} gives no rows")
        kinds = [max(_KINDS, key=count.__getitem__) for count in spool.counts]
        for name, kind, count in zip(names, kinds, spool.counts, strict=True):
            if count["nothing"] > count[kind]:
                raise ContractError(f"the query {query}: column '{name[:60]}' holds values that are no numbers, texts, "
                                    "truths or dates: leave it out, or cast it in the query")
        chosen = [f"{place} {kind}" for place, kind in enumerate(kinds)]
        form = pa.schema([(name, _arrow(kind)) for name, kind in zip(names, kinds, strict=True)])
        with pq.ParquetFile(spooled) as source, pq.ParquetWriter(into, form) as made:
            for batch in source.iter_batches(_ROWS, columns=chosen):
                made.write_table(pa.Table.from_arrays([batch.column(one) for one in chosen], schema=form))
    finally:
        spooled.unlink(missing_ok=True)


def _arrow(kind: Kind) -> pa.DataType:
    import pyarrow as pa

    return {"whole": pa.int64(), "fraction": pa.float64(), "truth": pa.bool_(), "date": pa.timestamp("us")}.get(
        kind, pa.string())


def _split(part: Sequence[Any], spool: _Spool, schema: pa.Schema) -> pa.Table:
    """Rows as columns, by the kind of each value; nulls take no room."""
    import pyarrow as pa

    made: list[pa.Array] = []
    spool.rows += len(part)
    for count, values in zip(spool.counts, zip(*part, strict=True), strict=True):
        by_kind = _by_kind(values)
        for kind, found in by_kind.items():
            count[kind] += len(found) - found.count(None)
        made += [pa.array(by_kind[kind], _arrow(kind)) if kind in by_kind else pa.nulls(len(values), _arrow(kind))
                 for kind in _KINDS]
    return pa.Table.from_arrays(made, schema=schema)


def _by_kind(values: tuple[Any, ...]) -> dict[Kind, Sequence[Any]]:
    """For each kind that occurs, the values in their places, and None in all others."""
    types = set(map(type, values)) - {NoneType}
    only = _AS_THEY_ARE.get(next(iter(types))) if len(types) == 1 else None
    if only is not None and (only != "whole" or all(value is None or _LOWEST <= value <= _HIGHEST for value in values)):
        return {only: values}
    found: dict[Kind, list[Any]] = {}
    for place, value in enumerate(values):
        if value is not None:
            kind, plain = _plain(value)
            if kind not in found:
                found[kind] = [None] * len(values)
            found[kind][place] = plain
    return dict(found)


def _plain(value: object) -> tuple[Kind, Any]:
    """A value and its kind; "nothing": it is no plain one, and counts as no value."""
    if isinstance(value, int) and not _LOWEST <= value <= _HIGHEST:
        return "fraction", float(decimal.Decimal(value))
    return next(((kind, made(value)) for of, kind, made in _PLAIN if isinstance(value, of)), ("nothing", True))


def _main() -> None:
    """The child: one line of JSON on standard output, and nothing else."""
    end_with_parent()
    asked = json.loads(sys.stdin.buffer.read())
    with os.fdopen(os.dup(1), "w") as answer:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        found = {}
        try:
            ask({Path(query): (text, Path(into)) for query, (text, into) in asked["queries"].items()}, asked["url"])
        except (SetupError, ContractError) as error:
            found = {"error": type(error).__name__, "message": str(error)}
        json.dump(found, answer)


if __name__ == "__main__":
    _main()
