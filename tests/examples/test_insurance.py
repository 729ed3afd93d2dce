"""The insurance example: who is where, rows that its contract takes, and a federation that learns what care costs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from fedround.errors import SetupError
from fedround_examples.insurance.split import HERE, SITES, SOURCE, STORY, split
from fedround_examples.judging import predictor, worth
from fedround_examples.rivals import federated
from validation.column_checks import contract_of, differences
from validation.contract import load_contract
from validation.judging import judge_frame


@pytest.fixture(scope="module")
def parts():
    return split()


def test_no_person_is_in_two_places(parts):
    everybody = pd.concat([parts.public_test, *(rows for site in parts.banks for rows in (site.train, site.validation))])
    assert len(everybody) == len(pd.read_parquet(SOURCE)) == 5912
    assert [site.name for site in parts.banks] == list(SITES)
    assert [(len(site.train), len(site.validation)) for site in parts.banks] == [
        (698, 175), (739, 185), (441, 110), (543, 136), (472, 118), (654, 164)]
    assert parts.public_test.equals(split().public_test)


def test_altered_data_end_in_a_sentence(tmp_path: Path):
    (tmp_path / "rand_hie.parquet").write_bytes(SOURCE.read_bytes() + b"x")
    with pytest.raises(SetupError, match="SHA-256 differs"):
        split(tmp_path / "rand_hie.parquet")


def test_contract_and_columns_say_the_same_and_the_rows_meet_them(parts):
    recipe, contract = STORY.recipe(), load_contract(HERE / "contract.json")
    columns = recipe.declared.columns.columns
    assert differences(columns, contract) == ()
    assert contract_of(columns, recipe.declared.target_columns, "insurance")[0].checks == contract.checks
    for site in parts.banks[:2]:
        assert judge_frame(site.train, contract).failed(contract) == ()
    rows = recipe.encode(parts.public_test)
    assert rows.counts_N.all()
    names = recipe.declared.columns.names
    assert rows.table_NF[:, names.index("general_health is missing")].mean() == pytest.approx(0.25, abs=0.03)


def test_a_private_federation_beats_the_mean(parts):
    torch.set_num_threads(1)
    recipe, rows = STORY.recipe(), STORY.encoded()
    model = federated(recipe, rows.train, STORY.settings(), 0)
    assert worth(predictor(recipe, model), rows.test, recipe.task) > 0.15
