"""What a column holds, in the same few kinds whatever file it comes from.

========  ==============  =================================================  ===========================================
kind      pandas          Parquet                                            CSV
========  ==============  =================================================  ===========================================
whole     int64           integers of every width; decimals without places   7
fraction  float64         floats of every width; other decimals              7.5, 1e3, inf; whole numbers beyond 64 bits
truth     bool            booleans                                           True, false
date      datetime64[us]  dates and times, as the clock on the wall shows    2019-01-07, 2019-01-07T12:00:00+01:00
text      object          texts, bytes, times of day                         everything else
========  ==============  =================================================  ===========================================

A category is of the kind that its values are of. In a CSV file a column is of a kind if more than half of its values are, and
any other value in it is no value. An empty text is no value anywhere.

A fraction among whole numbers makes fractions of a column, and so does a number beyond 64 bits. To a recipe that would let
one row change the types of all others. So what a recipe is to get holds both forms (`either`), and each row has one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["whole", "fraction", "truth", "date", "text", "nothing"]
"""nothing: no value says what it is."""

_WHOLE = re.compile(r"-?[0-9]{1,20}")
_SURELY_WHOLE, _PERHAPS_WHOLE = r"^[ \t]*-?[0-9]{1,18}[ \t]*$", r"^[ \t]*-?[0-9]{19,20}[ \t]*$"
"""With 19 digits it may lie beyond 64 bits."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?[iI][nN][fF](?:[iI][nN][iI][tT][yY])?")
_DATE = (r"^[ \t]*(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
         r"(?:[T ](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)[0-9]{0,3})?"
         r"(?: ?(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?))?[ \t]*$")
_PERHAPS = r"^[ \t]*(?:[-+.0-9]|(?i:inf|infinity|nan|none|true|false)[ \t]*$|$)"
"""Whatever does not match is a text."""
_COMMAS = re.compile(r"[+-]?[0-9]+,[0-9]+|[+-]?[0-9]{1,3}(?:[.,' ][0-9]{3})+(?:[.,][0-9]+)?")
_OTHER_DATE = re.compile(r"[0-9]{1,2}[./-][0-9]{1,2}[./-](?:[0-9]{4}|[0-9]{2})")
_TRUTHS = {"true": True, "false": False}
_NEITHER = {"nan": "no_number", "-nan": "no_number", "none": "no_word"}
_FIRST = 100
_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True)
class Counts:
    """How many cells of a column of texts say what."""

    whole: int = 0
    fraction: int = 0
    truth: int = 0
    date: int = 0
    other: int = 0
    no_number: int = 0
    """Say "nan": no value among numbers, a text among texts."""
    no_word: int = 0
    """Say "None"."""
    commas: int = 0
    """Of the others: numbers, as they are written in other countries."""
    other_date: int = 0
    """Of the others: days, as they are written in other countries."""

    def __add__(self, more: Counts) -> Counts:
        return Counts(*(getattr(self, one.name) + getattr(more, one.name) for one in fields(Counts)))

    @property
    def kind(self) -> Kind:
        """What more than half of the values say; otherwise text."""
        half = (self.whole + self.fraction + self.truth + self.date + self.other) / 2
        if self.whole + self.fraction > half:
            return "fraction" if self.fraction else "whole"
        if self.truth > half:
            return "truth"
        if self.date > half:
            return "date"
        return "text" if half or self.no_word else "nothing"

    @property
    def is_mostly_whole(self) -> bool:
        """Whether it is a column of whole numbers, but for a few fractions."""
        return self.kind == "fraction" and self.whole > self.fraction

    @property
    def hint(self) -> str | None:
        """What is odd about a column of texts, and what to do; it quotes no value."""
        if self.kind != "text":
            return None
        if 2 * self.commas > self.other:
            return "numbers that are written with a decimal comma or in groups: write 1234.5"
        return "days that are not written as 2019-01-07" if 2 * self.other_date > self.other else None


def of_type(found: pa.DataType, column: str) -> Kind:
    """The kind of a type of Arrow. Raises ContractError for what is no plain value."""
    import pyarrow.types as is_a

    if is_a.is_dictionary(found) or is_a.is_run_end_encoded(found):
        return of_type(found.value_type, column)
    if isinstance(found, _extension_type()):
        return of_type(found.storage_type, column)
    if is_a.is_decimal(found):
        return "whole" if found.scale <= 0 else "fraction"
    of: dict[Kind, Sequence[Callable[[Any], bool]]] = {
        "nothing": [is_a.is_null], "truth": [is_a.is_boolean], "whole": [is_a.is_integer], "fraction": [is_a.is_floating],
        "date": [is_a.is_date, is_a.is_timestamp],
        "text": [is_a.is_time, is_a.is_string, is_a.is_large_string, is_a.is_string_view, *_of_bytes()]}
    for kind, those in of.items():
        if any(holds(found) for holds in those):
            return kind
    what = "lists or tables" if is_a.is_nested(found) else "lengths of time" if is_a.is_duration(found) else f"{found}"
    raise ContractError(f"column '{column[:60]}' holds {what}, and a table here holds numbers, texts, truths and dates only: "
                        "leave the column out, or write plain columns")


def together(kinds: Sequence[Kind]) -> Kind | None:
    """What a column is whose parts are of these kinds; None: they do not go together."""
    said = set(kinds) - {"nothing"}
    if len(said) <= 1:
        return next(iter(said), "nothing")
    return "fraction" if said == {"whole", "fraction"} else None


# -- Arrow's own types -------------------------------------------------------------------------------------------------


def plain(values: pa.ChunkedArray, kind: Kind, *, exactly: bool = False) -> pa.ChunkedArray:
    """A typed column in the one type of its kind. Whole numbers beyond 64 bits with a sign turn the column into fractions, or
    exactly: into `either`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as is_a

    values = _unfolded(values)
    if kind == "nothing" or is_a.is_null(values.type):
        return pa.chunked_array([pa.nulls(len(values), _ARROW(kind))])
    if kind == "date" and is_a.is_timestamp(values.type) and values.type.tz is not None:
        return pa.chunked_array([_on_the_wall(values)])
    if kind == "text":
        if any(holds(values.type) for holds in _of_bytes()):
            values = pa.chunked_array([readable(pc.cast(chunk, pa.large_binary())) for chunk in values.chunks],
                                      pa.large_string())
        is_time = is_a.is_time(values.type)
        text = pc.cast(values, pa.large_string())
        text = pc.replace_substring_regex(text, r"\.0+$", "") if is_time else text
        return pc.if_else(pc.equal(text, ""), None, text)
    if kind == "whole":
        try:
            return pc.cast(values, pa.int64())
        except pa.ArrowInvalid:         # of uint64, or of a decimal
            return pa.chunked_array([either(chunk) for chunk in values.chunks]) if exactly else pc.cast(
                values, pa.float64(), safe=False)
    return pc.cast(values, _ARROW(kind), safe=False)


def either(values: pa.Array) -> pa.Array:
    """Whole numbers and fractions beside each other, of texts or of Arrow's integers and decimals: a structure of `whole`
    (int64) and `fraction` (float64), of which one is null, or both.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_large_string(values.type):
        is_whole = pc.match_substring_regex(values, _SURELY_WHOLE)
        whole = pc.cast(pc.utf8_trim(pc.if_else(is_whole, values, None), " \t"), pa.int64())
        others = pc.if_else(pc.invert(is_whole), values, None).dictionary_encode()
        meant = [value.strip(" \t") for value in others.dictionary.to_pylist()]
        whole = pc.coalesce(whole, pa.array([_whole(one) for one in meant], pa.int64()).take(others.indices))
        fraction = pa.array([None if _whole(one) is not None else _fraction(one) for one in meant], pa.float64()).take(
            others.indices)
    else:
        numbers = values.to_pylist()
        fits = [None if one is None else int(one) in _INT64 for one in numbers]
        whole = pa.array([int(one) if fit else None for one, fit in zip(numbers, fits, strict=True)], pa.int64())
        beyond = [float(one) if fit is False else None for one, fit in zip(numbers, fits, strict=True)]
        fraction = pa.array(beyond, pa.float64())
    return pa.StructArray.from_arrays([whole, fraction], fields=list(EITHER()))


def EITHER() -> pa.DataType:
    """The type of that."""
    import pyarrow as pa

    return pa.struct([("whole", pa.int64()), ("fraction", pa.float64())])


def no_rows(of: Mapping[str, Kind]) -> pa.Table:
    """A table of such columns without rows."""
    import pyarrow as pa

    return pa.schema([(name, _ARROW(kind)) for name, kind in of.items()]).empty_table()


def _unfolded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as is_a

    if isinstance(values.type, _extension_type()):
        if values.type.extension_name == "arrow.uuid":
            return pa.chunked_array([_ids(chunk.storage) for chunk in values.chunks], pa.large_string())
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    if is_a.is_dictionary(values.type):
        return _unfolded(pc.cast(values, values.type.value_type))
    if is_a.is_run_end_encoded(values.type):
        return _unfolded(pc.run_end_decode(values))
    return values


def _ids(bytes_N: pa.Array) -> pa.Array:
    """UUIDs as everybody writes them: as UTF-8 their bytes would be signs, and many of them the same ones."""
    import pyarrow as pa

    return pa.array([None if one is None else str(UUID(bytes=one)) for one in bytes_N.to_pylist()], pa.large_string())


def _on_the_wall(values: pa.ChunkedArray) -> pa.Array:
    """What a clock shows in the zone that the column names."""
    import pyarrow as pa

    shown = values.to_pandas().dt.tz_localize(None).astype("datetime64[us]")
    return pa.Array.from_pandas(shown, type=pa.timestamp("us"))


def _of_bytes() -> Sequence[Callable[[Any], bool]]:
    import pyarrow.types as is_a

    return is_a.is_binary, is_a.is_large_binary, is_a.is_binary_view, is_a.is_fixed_size_binary


def _extension_type() -> type[Any]:
    import pyarrow as pa

    return pa.BaseExtensionType


def _ARROW(kind: Kind) -> pa.DataType:
    import pyarrow as pa

    return {"whole": pa.int64(), "fraction": pa.float64(), "truth": pa.bool_(), "date": pa.timestamp("us"),
            "text": pa.large_string(), "nothing": pa.float64()}[kind]


# -- texts -------------------------------------------------------------------------------------------------------------


def readable(values: pa.Array) -> pa.Array:
    """Bytes as texts; what is no UTF-8 becomes U+FFFD."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.cast(values, pa.large_string())
    except pa.ArrowInvalid:
        return pa.array([None if value is None else value.decode(errors="replace") for value in values.to_pylist()],
                        pa.large_string())


def counted(text_N: pa.Array) -> Counts:
    """What the cells say."""
    import pyarrow as pa
    import pyarrow.compute as pc

    said = len(text_N) - text_N.null_count
    if said == 0:
        return Counts()
    if (numbers := _all_numbers(text_N, pa.int64())) is not None:
        return Counts(whole=said)
    if (numbers := _all_numbers(text_N, pa.float64())) is not None and not pc.any(pc.is_nan(numbers)).as_py() and not pc.any(
            pc.match_substring_regex(text_N, _PERHAPS_WHOLE)).as_py():
        whole = pc.sum(pc.match_substring_regex(text_N, _SURELY_WHOLE)).as_py()
        return Counts(whole=whole, fraction=said - whole)
    found = dict.fromkeys((one.name for one in fields(Counts)), 0)
    different = text_N.drop_null().value_counts()
    values, times = different.field(0), different.field(1).to_numpy()
    is_date = ~np.isnat(_dates(values))
    left = pc.match_substring_regex(values, _PERHAPS).to_numpy(zero_copy_only=False) & ~is_date
    found["date"], found["other"] = int(times[is_date].sum()), int(times[~left & ~is_date].sum())
    for value, often in zip(values.filter(pa.array(left)).to_pylist(), times[left].tolist(), strict=True):
        for what in _said_by(value.strip(" \t")):
            found[what] += often
    return Counts(**found)


def converted(text_N: pa.Array, kind: Kind) -> pa.Array:
    """The cells as values of this kind; null where one is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind == "nothing":
        return pa.nulls(len(text_N), _ARROW(kind))
    if kind == "text":
        return pc.if_else(pc.equal(text_N, ""), None, text_N)
    if kind in {"whole", "fraction"} and (numbers := _all_numbers(text_N, _ARROW(kind))) is not None:
        return numbers
    folded = text_N.dictionary_encode()
    if kind == "date":
        return pa.array(_dates(folded.dictionary), _ARROW(kind)).take(folded.indices)
    meant = pa.array([_MEANT[kind](value.strip(" \t")) for value in folded.dictionary.to_pylist()], _ARROW(kind))
    return meant.take(folded.indices)


def _all_numbers(text_N: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """The quick way, where every cell is a number as Arrow reads it, which reads "0x1F", too."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.cast(text_N[:_FIRST], kind)      # a cast that fails takes long, and most fail at once
        found = pc.cast(text_N, kind)
    except pa.ArrowInvalid:
        return None
    is_hex = pa.types.is_integer(kind) and any(pc.any(pc.match_substring(text_N, x)).as_py() for x in "xX")
    return None if is_hex else found


def _said_by(value: str) -> tuple[str, ...]:
    """Of a cell that may be something else than a text."""
    if value == "":
        return ()
    if value.lower() in _NEITHER:
        return (_NEITHER[value.lower()],)
    for what, means in _MEANT.items():
        if means(value) is not None:
            return (what,)
    odd = "commas" if _COMMAS.fullmatch(value) else "other_date" if _OTHER_DATE.fullmatch(value) else None
    return ("other",) if odd is None else ("other", odd)


def _whole(value: str) -> int | None:
    return int(value) if _WHOLE.fullmatch(value) and int(value) in _INT64 else None


def _fraction(value: str) -> float | None:
    return float(value) if _NUMBER.fullmatch(value) else None


def _dates(text_N: pa.Array) -> npt.NDArray[np.datetime64]:
    """The moments that texts name, (N,); NaT where one names none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.extract_regex(text_N, _DATE)
    day, time = pc.struct_field(found, "day"), pc.struct_field(found, "time")
    iso = pc.binary_join_element_wise(day, pc.if_else(pc.equal(time, ""), "00:00", time), pa.scalar("T", text_N.type))
    said = pc.fill_null(iso, "NaT").to_numpy(zero_copy_only=False)
    try:
        return said.astype("datetime64[us]")
    except ValueError:          # the 30th of February
        return np.array([_moment(one) for one in said.tolist()], "datetime64[us]")


def _moment(said: str) -> np.datetime64:
    try:
        return np.datetime64(said, "us")
    except ValueError:
        return np.datetime64("NaT", "us")


_MEANT: dict[str, Callable[[str], Any]] = {
    "whole": _whole, "fraction": _fraction, "truth": lambda value: _TRUTHS.get(value.lower())}
