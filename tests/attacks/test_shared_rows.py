"""The same rows in several federations: one ledger counts for all of them, however the files are called."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from fedround.errors import BudgetError, ContractError
from fedround.privacy import ledger
from fedround.privacy.entries import Charge, Lot
from fedround.privacy.spec import GaussianCounts
from infra.settings import DataSettings
from site_workers import registry
from tests.small_federation import rows

ONE = GaussianCounts(noise_std=4.0)


def a_charge(number: int, federation: str) -> Charge:
    return Charge(federation=federation, run="spring", round=number, purpose="measure", plan=f"{number:064x}",
                  mechanisms=(ONE,), delta_dp=1e-5, utc="2026-03-01T00:00:00Z", campaign=(Lot(mechanism=ONE, times=1),))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Rows to train on, and rows held out."""
    paths = tmp_path / "train.parquet", tmp_path / "validation.csv"
    rows(60, 1).to_parquet(paths[0])
    rows(20, 2).to_csv(paths[1], index=False)
    return paths


def folder(tmp_path: Path, name: str, train: Path, validation: Path, dataset: str = "loans") -> tuple[Path, DataSettings]:
    """A site's folder, as far as its ledger goes."""
    made = tmp_path / name
    made.mkdir()
    return made, DataSettings(dataset=dataset, train=str(train), validation=str(validation), ledger=str(tmp_path / "ledgers"))


def test_two_federations_on_the_same_rows_share_one_budget(tmp_path: Path, files: tuple[Path, Path]):
    first, second = (registry.join(*folder(tmp_path, name, *files)) for name in ("banks", "insurers"))
    assert first == second
    bound = ledger.spent(ledger.charge(ledger.read(first), a_charge(1, "banks"), 5.0), 1e-5) + 0.01
    with pytest.raises(BudgetError):
        ledger.charge(ledger.read(second), a_charge(2, "insurers"), bound)


@pytest.mark.parametrize("how", [
    "copied", "linked", "as csv", "a part", "shuffled, other columns first", "held out elsewhere"])
def test_attack_another_name_for_the_same_rows_gets_no_second_ledger(tmp_path: Path, files: tuple[Path, Path], how: str):
    registry.join(*folder(tmp_path, "banks", *files))
    train, validation = files
    other, frame = tmp_path / "other.parquet", pd.read_parquet(train)
    match how:
        case "copied":
            shutil.copyfile(train, other)
        case "linked":
            other.symlink_to(train)
        case "as csv":
            other = tmp_path / "other.csv"
            frame.to_csv(other, index=False)
        case "a part":
            pd.concat([frame.head(7), rows(50, 9)]).to_parquet(other)
        case "shuffled, other columns first":
            frame.sample(frac=1, random_state=1)[["y", "x2", "x1"]].to_parquet(other)
        case "held out elsewhere":
            rows(40, 8).to_parquet(other)
    if how != "held out elsewhere":
        validation = tmp_path / "fresh.parquet"
        rows(30, 7).to_parquet(validation)
    with pytest.raises(ContractError, match="--dataset loans"):
        registry.join(*folder(tmp_path, "insurers", other, validation, dataset="mine"))
    assert registry.join(*folder(tmp_path, "pensions", other, validation)) == tmp_path / "ledgers" / "loans" / "ledger.jsonl"


def test_other_rows_are_another_data_set(tmp_path: Path, files: tuple[Path, Path]):
    registry.join(*folder(tmp_path, "banks", *files))
    fresh = tmp_path / "fresh.parquet", tmp_path / "more.parquet"
    for seed, path in enumerate(fresh, start=11):
        rows(30, seed).to_parquet(path)
    assert registry.join(*folder(tmp_path, "insurers", *fresh, dataset="cards")).parent.name == "cards"


def test_rows_that_are_exchanged_later_are_recognised_before_a_charge(tmp_path: Path, files: tuple[Path, Path]):
    registry.join(*folder(tmp_path, "banks", *files))
    fresh = tmp_path / "fresh.parquet", tmp_path / "more.parquet"
    for seed, path in enumerate(fresh, start=11):
        rows(30, seed).to_parquet(path)
    where, data = folder(tmp_path, "insurers", *fresh, dataset="cards")
    registry.join(where, data)
    registry.look(where, data, b"1", "2026-03-01T00:00:00Z")
    shutil.copyfile(files[0], fresh[0])
    with pytest.raises(ContractError, match="'loans' in .* share"):
        registry.look(where, data, b"2", "2026-03-01T00:00:00Z")


def test_a_row_that_moves_to_the_other_side_is_written_down_once(tmp_path: Path, files: tuple[Path, Path]):
    where, data = folder(tmp_path, "banks", *files)
    path = registry.join(where, data)
    registry.look(where, data, b"1", "2026-03-01T00:00:00Z")
    assert ledger.read(path).book.shared == ()
    pd.concat([pd.read_csv(files[1]), pd.read_parquet(files[0]).head(1)]).to_csv(files[1], index=False)
    for files_digest in (b"2", b"3"):
        registry.look(where, data, files_digest, "2026-03-02T00:00:00Z")
    assert len(ledger.read(path).book.shared) == 1


def test_processes_that_charge_at_once_share_what_there_is(tmp_path: Path, files: tuple[Path, Path]):
    """Six processes of two federations, room for three."""
    path = registry.join(*folder(tmp_path, "banks", *files))
    registry.join(*folder(tmp_path, "insurers", *files))
    book, bound = ledger.read(path), 0.0
    for number in range(3):
        book = ledger.with_entries(book, [a_charge(number, "banks")])
    bound = ledger.held(book, 1e-5)
    children = []
    for number in range(6):
        if (child := os.fork()) == 0:
            code = 1
            try:
                ledger.charge(ledger.read(path), a_charge(number, "banks" if number % 2 else "insurers"), bound)
                code = 0
            except BudgetError:
                code = 3
            finally:
                os._exit(code)
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [0, 0, 0, 3, 3, 3]
    assert len(ledger.read(path).charges) == 3
