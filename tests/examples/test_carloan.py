"""The car-loan example: who has which loans, what a bank needs to know to encode, and that its files fit each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedround_examples.carloan.split import HERE, NAMES, PUBLIC_ROWS, STORY, public_rows, split
from fedround_examples.judging import auc, predictor
from fedround_examples.rivals import best, federated, fit_logistic_regression, fit_mlp
from validation.contract import load_contract
from validation.judging import judge_frame


@pytest.fixture(scope="module")
def parts():
    return split()


@pytest.fixture(scope="module")
def recipe():
    torch.set_num_threads(1)
    return STORY.recipe()


def test_every_loan_before_the_drift_is_in_exactly_one_place(parts):
    everything = pd.concat([parts.public_test, public_rows(), *(rows for bank in parts.banks
                                                                for rows in (bank.train, bank.validation))])
    assert len(everything) == 69_860
    assert not everything.duplicated().any()
    assert (len(public_rows()), len(parts.public_test)) == (PUBLIC_ROWS, 9_860)


def test_a_bank_has_one_segment_of_the_market(parts):
    assert tuple(bank.name for bank in parts.banks) == NAMES
    for bank in parts.banks:
        clients = pd.concat([bank.train, bank.validation])
        assert clients["salary_range"].nunique() == 1
        assert len(bank.validation) == pytest.approx(len(clients) / 5, abs=1)
    values = {bank.name: pd.concat([bank.train, bank.validation])["car_value"] for bank in parts.banks}
    assert values["under-20k-small"].max() <= 16_500 < values["under-20k-middle"].min()
    assert values["over-60k-middle"].max() <= 31_000 < values["over-60k-large"].min()


def test_a_row_is_encoded_without_looking_at_other_rows(parts, recipe):
    rows = parts.public_test.head(20)
    one_by_one = np.concatenate([recipe.encode(rows.iloc[[row]]).inputs["x"] for row in range(len(rows))])
    assert np.array_equal(recipe.encode(rows).inputs["x"], one_by_one)


def test_features_are_bounded_whatever_the_rows(parts, recipe):
    rows = parts.public_test.head(6).copy()
    for column in ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure", "repaid_loan_on_prev_car"):
        rows[column] = [0, -1, 1, 10**9, -10**9, 0.5]
    rows["salary_range"] = "a king's ransom"
    features = recipe.encode(rows).inputs["x"]
    assert features.shape == (6, 724)
    assert np.abs(features).max() <= 1


def test_the_banks_rows_meet_the_contract_and_broken_rows_do_not(parts):
    contract, rows = load_contract(HERE / "contract.json"), parts.banks[-1].validation
    assert judge_frame(rows, contract).failed(contract) == ()
    assert judge_frame(parts.public_test, contract).failed(contract) == ()
    broken = rows.assign(car_value=7, repaid=1, size_of_downpayment="half").drop(columns="driver_tenure")
    assert set(judge_frame(broken, contract).failed(contract)) >= {
        "columns_as_agreed", "car_value_in_range", "size_of_downpayment_is_known", "both_outcomes_present"}


def test_every_step_uses_every_row_of_every_bank(parts):
    settings = STORY.settings()
    assert {settings.training.sampling_rate(len(bank.train)) for bank in parts.banks} == {1.0}
    assert (settings.privacy.epsilon, settings.privacy.delta_dp) == (5.0, 1e-5)


def test_a_short_private_campaign_of_small_banks_learns(parts, recipe):
    settings = STORY.settings()
    settings = settings.model_copy(update={"quorum": 1, "privacy": settings.privacy.model_copy(update={"rounds": 2})})
    banks = {bank.name: recipe.encode(bank.train.head(300)) for bank in parts.banks[::3]}
    test = recipe.encode(parts.public_test.head(2000))
    assert auc(predictor(recipe, federated(recipe, banks, settings, seed=0)), test) > 0.8


def test_each_rival_learns_and_the_best_on_rows_held_out_is_taken(parts, recipe):
    bank = parts.banks[0]
    rows, held_out = recipe.encode(bank.train.head(400)), recipe.encode(bank.validation.head(400))
    fits = {"logistic regression": fit_logistic_regression, "recipe's model": fit_mlp}
    reached = {name: auc(fit(recipe, rows, held_out, 0), held_out) for name, fit in fits.items()}
    assert min(reached.values()) > 0.8
    method, fitted = best(recipe, rows, held_out, fits, seed=0)
    assert auc(fitted, held_out) == reached[method] == max(reached.values())


def test_the_recipe_stays_small():
    """It is what a data scientist copies."""
    assert len(Path(HERE / "recipe.py").read_text().splitlines()) < 60
