"""Do a site's rows meet the data contract? Only the ids of failed checks come out.

Great Expectations' own results are not fit to leave a site, not even as BOOLEAN_ONLY: `exception_info` quotes values
and `meta` holds a fingerprint of the data. So nothing of them is passed on but the one bit of each check.

Importing Great Expectations costs four to eight CPU seconds and 150 MB. A long-lived worker therefore calls
`failed_checks_in_subprocess`, which gives the memory back, and remembers the answer for as long as its rows and its
contract have the same digests.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedround.errors import ContractError, FedroundError, SetupError
from fedround.values import CheckId
from validation.contract import Check, Contract, load_contract

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".parquet", ".csv")
_ROOM_BYTES, _PER_BYTE = 1 << 30, 32
_CPU_S = 900
_ERRORS: dict[str, type[FedroundError]] = {"SetupError": SetupError, "ContractError": ContractError}


def read_rows(path: Path) -> pd.DataFrame:
    """Read a site's rows from a ``.parquet`` or ``.csv`` file.

    Raises SetupError if there is no such file or it may not be read; ContractError if it is of another kind, damaged
    or without rows. No message, and no exception behind it, quotes the file.
    """
    if path.suffix not in FORMATS:
        raise ContractError(f"rows at {path}: expected a .parquet or .csv file")
    if path.exists() and not path.is_file():        # nobody waits for what never comes out of a pipe
        raise SetupError(f"rows at {path}: it is no file; give the path of a .parquet or .csv file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise SetupError(f"rows at {path} cannot be read ({error.strerror}): check the path and the permissions in the "
                         "site's settings") from None
    if _declares_too_much(path):
        raise ContractError(too_large(path))
    frame = _parsed(path)
    # Raised out here: a parser's error quotes lines of the file, and inside an `except` it would travel as __context__.
    if frame is None:
        raise ContractError(f"rows at {path}: not a readable {path.suffix[1:]} file; export it again")
    if frame.empty:
        raise ContractError(f"rows at {path}: there are no rows in it")
    return frame


def memory_for(paths: Sequence[Path]) -> int:
    """How many bytes of memory may be taken to read these files: compression explains so much, and a bomb takes more."""
    return _ROOM_BYTES + _PER_BYTE * sum(path.stat().st_size for path in paths if path.is_file())


def too_large(path: Path) -> str:
    """The sentence about a file that takes more."""
    return (f"rows at {path}: to read them takes more than the {memory_for([path]) >> 20} MiB that a file of this size may "
            "take; export them again, with fewer rows or columns, or as CSV")


def limited_by(paths: Sequence[Path]) -> None:
    """From here on the system gives this process no more memory than these files explain, and some minutes of work. For a
    process that does nothing else. Tighter limits of its parent stay.
    """
    for what, most in ((resource.RLIMIT_DATA, memory_for(paths)), (resource.RLIMIT_CPU, _CPU_S), (resource.RLIMIT_CORE, 0)):
        soft, hard = resource.getrlimit(what)
        known = [most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(what, (min(known), hard))


def _declares_too_much(path: Path) -> bool:
    """Whether the numbers alone that a Parquet file declares would take too much: a column of one value has few bytes."""
    if path.suffix != ".parquet":
        return False
    import pyarrow.parquet as pq

    with _silence():
        try:
            found = pq.read_metadata(path)
        except Exception:           # damaged: what reads it says so
            return False
    return bool(8 * found.num_rows * max(1, found.num_columns) > memory_for([path]))


def _parsed(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    with _silence():
        try:
            # The parser of numbers that pandas takes without being asked writes beyond an array: "1\n1e3235360285" (3.0.5).
            return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(
                path, low_memory=False, float_precision="round_trip")
        except MemoryError:
            raise
        except Exception:   # whatever a damaged file provokes in a parser; its words may quote the file
            return None


def failed_checks(frame: pd.DataFrame, contract: Contract) -> tuple[CheckId, ...]:
    """The ids of the checks that did not pass, in the contract's order; empty if the rows meet the contract.

    A check that cannot be evaluated (a missing column, a text among numbers) has not passed. Whatever happens, nothing
    else comes out: no value, exception, log line, warning or progress bar. To keep that promise, logging and the
    standard streams of the whole process are silent while this runs (tenths of a second); it is not meant for threads.
    """
    with _silence():
        batch = _batch(frame)
        return tuple(check.id for check in contract.checks if batch is None or not _passes(check, batch))


def read_all(paths: Sequence[Path]) -> pd.DataFrame:
    """The rows of several files, one after the other. Raises what `read_rows` raises."""
    import pandas as pd

    return pd.concat([read_rows(path) for path in paths], ignore_index=True)


def failed_checks_in_subprocess(rows: Sequence[Path], contract: Path, *, timeout_s: float = 300) -> tuple[CheckId, ...]:
    """`failed_checks` of the rows of all these files, in a process of its own that has no credentials.

    This is the one for a long-lived worker. Raises what `read_rows` and `load_contract` raise; SetupError if the
    process dies or takes longer than `timeout_s`.
    """
    agreed = [check.id for check in load_contract(contract).checks]
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": os.defpath, "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
                       "OMP_NUM_THREADS": "1", "GX_ANALYTICS_ENABLED": "false"}
        try:
            child = subprocess.run(
                [sys.executable, "-P", "-m", "validation.rows", *(str(path.resolve()) for path in (contract, *rows))],
                cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            child = None
    if child is None:
        raise SetupError(f"checking the rows at {rows[0].parent} took longer than {timeout_s:g} s and was stopped")
    return _answer(child.stdout, agreed, rows[0])


def _answer(line: bytes, agreed: list[CheckId], rows: Path) -> tuple[CheckId, ...]:
    """What the child found. Nothing that it printed is passed on unless it is an id of the contract."""
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    match answer:
        case {"failed": list(failed)} if all(name in agreed for name in failed):
            return tuple(failed)
        case {"error": str(kind), "message": str(message)} if kind in _ERRORS:
            raise _ERRORS[kind](message)
        case _:
            raise SetupError(f"the process that checks the rows at {rows} ended without an answer; is there enough "
                             f"memory? 'python -m validation.rows CONTRACT {rows}' runs it by hand")


def _batch(frame: pd.DataFrame) -> Any | None:
    """The rows as Great Expectations takes them, or None if it does not: it hashes every cell, and a hash can fail."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"     # read at import
    import great_expectations as gx

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    try:
        return asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})
    except Exception:   # its words would quote the frame
        return None


def _passes(check: Check, batch: Any) -> bool:
    from great_expectations.expectations.registry import get_expectation_impl

    try:
        implementation: Any = get_expectation_impl(check.type)
        return batch.validate(implementation(**check.kwargs), result_format="BOOLEAN_ONLY").success is True
    except Exception:   # a check that cannot be evaluated has not passed; why would be a leak
        return False


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No log record, warning or line on the standard streams of this process, by anyone, until the end."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere),
              contextlib.redirect_stderr(nowhere), warnings.catch_warnings()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _main(contract: str, *rows: str) -> None:
    """The child: one line of JSON on standard output, and nothing else on any stream, not even from C code."""
    with os.fdopen(os.dup(1), "w") as answer:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        try:
            limited_by([Path(path) for path in rows])
            frame = read_all([Path(path) for path in rows])
            result: dict[str, Any] = {"failed": failed_checks(frame, load_contract(Path(contract)))}
        except (SetupError, ContractError) as error:
            result = {"error": type(error).__name__, "message": str(error)}
        json.dump(result, answer)


if __name__ == "__main__":
    _main(*sys.argv[1:])
