"""A contract on a million rows, read from Parquet parts: CPU seconds beside Great Expectations on the same rows.

    python -m benchmarks.contracts [--rows 1000000] [--parts 8]

25 columns: 10 of whole numbers, 10 of floating ones with gaps, 5 of texts, and the contract that `contract infer` makes of
them. Both sides run in this process, after everything is imported, on the same files, reading included.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from validation.checking import check_rows
from validation.contract import Contract, read_contract
from validation.inferring import as_text, infer
from validation.judging import judge
from validation.row_parts import RowFiles, row_files


def made(folder: Path, rows: int, parts: int) -> RowFiles:
    """The rows, in files of the same size."""
    rng, size = np.random.default_rng(0), rows // parts
    for part in range(parts):
        whole = {f"whole_{number}": rng.integers(0, 10 ** (1 + number // 2), size) for number in range(10)}
        floating = {f"number_{number}": np.where(rng.random(size) < 0.02, np.nan, rng.normal(number, 3, size))
                    for number in range(10)}
        texts = {f"text_{number}": rng.choice([f"{letter}{number}" for letter in "abcdefgh"], size) for number in range(5)}
        pd.DataFrame({**whole, **floating, **texts}).to_parquet(folder / f"part-{part:03}.parquet")
    return row_files(folder)


def timed(work: Callable[[], object]) -> tuple[object, float]:
    """The result, and the CPU seconds of all threads."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return found, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table of docs/contracts.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, default=8)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = made(Path(folder), asked.rows, asked.parts)
        began = time.process_time()
        import great_expectations  # noqa: F401
        import pyarrow.parquet  # noqa: F401

        imported = time.process_time() - began
        inferred, of_infer = timed(lambda: infer([files], "made"))
        contract: Contract = read_contract(as_text(inferred.contract).encode(), "made")     # type: ignore[attr-defined]
        fast, of_fast = timed(lambda: check_rows([files], contract))
        whole, of_whole = timed(lambda: judge(files.paths, contract))
    same = (len(whole.left_out), whole.total) == (fast.left_out, fast.rows)     # type: ignore[attr-defined]
    print(f"{asked.rows:,} rows, 25 columns, {asked.parts} Parquet parts, {len(contract.checks)} checks; to import Great "
          f"Expectations: {imported:.1f} CPU s")
    print("| | CPU s | ratio |\n|---|---|---|")
    for name, seconds in (("contract infer", of_infer), ("contract check", of_fast), ("Great Expectations", of_whole)):
        print(f"| {name} | {seconds:.2f} | {of_whole / seconds:.1f} |")
    print(f"the same verdicts: {'yes' if same else 'NO'}; most memory: "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


if __name__ == "__main__":
    main()
