"""Rows that another process reads are the rows that this one would read, and its errors are the same."""

import subprocess
import sys

import numpy as np
import pytest

from fedround.errors import ContractError, SetupError
from site_workers import encoding
from tests.small_federation import SmallFederation


def test_a_child_gives_the_same_arrays(federation: SmallFederation):
    site = federation.site("north")
    there = encoding.encode_in_subprocess(site.rows, site.folder / site.settings.recipe, site.recipe.digest)
    for path, found in zip(site.rows, there, strict=True):
        here = encoding.encode(path, site.recipe)
        assert (found.features_NF.dtype, found.labels_N.dtype) == (here.features_NF.dtype, here.labels_N.dtype)
        assert np.array_equal(found.features_NF, here.features_NF)
        assert np.array_equal(found.labels_N, here.labels_N)


@pytest.mark.parametrize(("content", "error"), [
    (b"x1,secret\n1,2\n", ContractError), (b"\x00", ContractError), (None, SetupError)])
def test_its_errors_are_the_same_and_quote_nothing(federation: SmallFederation, tmp_path, content, error):
    site, path = federation.site("north"), tmp_path / "rows.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error) as there:
        encoding.encode_in_subprocess([path], site.folder / site.settings.recipe, site.recipe.digest)
    with pytest.raises(error) as here:
        encoding.encode(path, site.recipe)
    assert str(there.value) == str(here.value)
    assert "secret" not in str(there.value)


def test_another_recipe_than_the_approved_one_does_not_run(federation: SmallFederation):
    site = federation.site("north")
    with pytest.raises(ContractError, match="digest"):
        encoding.encode_in_subprocess(site.rows, site.folder / site.settings.recipe, "0" * 64)


def test_a_child_that_dies_is_one_sentence(federation: SmallFederation, monkeypatch):
    site = federation.site("north")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SetupError, match="ended without an answer"):
        encoding.encode_in_subprocess(site.rows, site.folder / site.settings.recipe, site.recipe.digest)


ROUND = """
import sys
from pathlib import Path
from site_workers import service
from site_workers.round import job
from site_workers.site import open_site
work = service._with_the_accountant_apart(job(open_site(Path(sys.argv[1]))))
print(work({"run": "spring", "round": 1, "attempt": 1, "purpose": "train"}, lambda: False))
heavy = {"pandas", "pyarrow", "scipy", "dp_accounting", "great_expectations", "dvc", "sqlalchemy"}
print(sorted(heavy & set(sys.modules)))
"""


def test_a_process_that_has_answered_holds_no_library_of_tables_and_no_accountant(federation: SmallFederation):
    """They take 160 MB between them; children read the rows, judge them and count the privacy."""
    federation.plan()
    said = subprocess.run([sys.executable, "-c", ROUND, str(federation.root / "north")], capture_output=True, text=True,
                          check=True)
    assert said.stdout.splitlines() == ["update", "[]"]
