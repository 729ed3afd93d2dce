"""The banks example: who is where, what a bank needs to know to encode, and that its files fit each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from fedround.codec import flatten
from fedround.errors import SetupError
from fedround.learning.evaluate import scores
from fedround.learning.recipe import initial_tensors, load_recipe
from fedround.learning.tasks import Metrics
from fedround.privacy.spec import RecordPrivacy
from fedround_cli.demo import beside, with_and_without
from fedround_examples.banks import split as module
from fedround_examples.banks.split import CLIENTS, HERE, SOURCE, STORY, split
from fedround_examples.judging import auc, predictor
from fedround_examples.rivals import Alone, Baselines, LiedTo, federated, fit_logistic_regression, fit_mlp
from fedround_examples.story import write
from site_workers.host import ONE_THREAD
from validation.contract import load_contract
from validation.judging import judge_frame


@pytest.fixture(scope="module")
def parts():
    return split()


@pytest.fixture(scope="module")
def recipe():
    torch.set_num_threads(1)
    return load_recipe(HERE / "recipe.py")


def all_parts(parts) -> list[pd.DataFrame]:
    return [parts.public_test, *(rows for bank in parts.banks for rows in (bank.train, bank.validation))]


def test_every_client_is_in_exactly_one_place(parts):
    columns = list(parts.public_test.columns)
    everybody = pd.concat(all_parts(parts)).sort_values(columns).to_numpy()
    assert np.array_equal(everybody, pd.read_parquet(SOURCE).sort_values(columns).to_numpy())


def test_banks_are_unequal_in_size_and_default_rate_and_the_test_set_is_as_the_whole(parts):
    sizes = {bank.name: len(bank.train) + len(bank.validation) for bank in parts.banks}
    rates = [pd.concat([bank.train, bank.validation])["DEFAULT"].mean() for bank in parts.banks]
    assert sizes == {name: clients for name, (clients, _) in CLIENTS.items()}
    assert (len(sizes), min(sizes.values()), max(sizes.values())) == (12, 400, 4550)
    assert (round(min(rates), 2), round(max(rates), 2)) == (0.05, 0.32)
    assert len(parts.public_test) == 7500
    assert parts.public_test["DEFAULT"].mean() == pytest.approx(0.2212, abs=1e-4)


def test_each_bank_holds_out_a_fifth_with_the_same_default_rate(parts):
    for bank in parts.banks:
        assert len(bank.validation) == len(bank.train) / 4
        assert bank.validation["DEFAULT"].sum() == pytest.approx(bank.train["DEFAULT"].sum() / 4, abs=0.7)


def test_prepared_files_are_what_split_says_and_repeat(parts, tmp_path):
    write(parts, tmp_path / "one")
    write(split(), tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.parquet"))
    assert len(files) == 1 + 2 * 12
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "one" / "bank-07" / "train.parquet"), parts.banks[6].train)


def test_other_data_are_refused(tmp_path):
    (tmp_path / "credit_default.parquet").write_bytes(SOURCE.read_bytes() + b" ")
    with pytest.raises(SetupError, match="altered"):
        module.split(tmp_path / "credit_default.parquet")
    with pytest.raises(SetupError, match="No such file"):
        module.split(tmp_path / "nothing.parquet")


def test_a_row_is_encoded_without_looking_at_other_rows(parts, recipe):
    rows = parts.public_test.head(20)
    together = recipe.encode(rows).inputs["x"]
    one_by_one = np.concatenate([recipe.encode(rows.iloc[[row]]).inputs["x"] for row in range(len(rows))])
    assert np.array_equal(together, one_by_one)


def test_sensitive_attributes_do_not_enter(parts, recipe):
    rows = parts.public_test.head(20)
    other = rows.assign(SEX=1 - rows["SEX"], AGE=rows["AGE"] + 9, EDUCATION=6, MARRIAGE=0)
    assert np.array_equal(recipe.encode(rows).inputs["x"], recipe.encode(other).inputs["x"])


def test_features_are_bounded_whatever_the_rows(parts, recipe):
    rows = parts.public_test.head(6).copy()
    for column in set(rows.columns) - {"DEFAULT"}:
        rows[column] = [0, -1, 1, 10**9, -10**9, 10**15]
    features = recipe.encode(rows).inputs["x"]
    assert np.isfinite(features).all()
    assert (features.min(), features.max()) == (-4, 2)


def test_every_banks_rows_meet_the_contract_and_broken_rows_do_not(parts):
    contract = load_contract(HERE / "contract.json")
    smallest = parts.banks[-1]
    for rows in (parts.banks[0].train, smallest.train, smallest.validation, parts.public_test):
        assert judge_frame(rows, contract).failed(contract) == ()
    broken = smallest.train.assign(AGE=7, DEFAULT=0, PAY_0=0.5).drop(columns="BILL_AMT3")
    assert judge_frame(broken, contract).failed(contract) == (
        "columns_as_agreed", "pay_0_is_whole_number", "bill_amt3_is_whole_number", "age_in_range", "bill_amt3_in_range",
        "both_outcomes_present")
    assert judge_frame(smallest.train.head(49), contract).failed(contract) == ("enough_rows",)


STAGES = yaml.safe_load((HERE.parents[1] / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_of_the_experiment_runs_with_our_own_python_though_no_environment_is_active(tmp_path: Path, stage: str):
    """As DVC starts it: by the shell, in the checkout. Here with a Python that only says what it was asked for."""
    for folder, answer in ((".venv/bin", "ours"), ("usr", "another")):
        python = tmp_path / folder / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho {answer} "$@"\n')
        python.chmod(0o755)
    done = subprocess.run(["/bin/sh", "-c", STAGES[stage]["cmd"]], cwd=tmp_path, capture_output=True, text=True, check=True,
                          env={"PATH": f"{tmp_path}/usr:/usr/bin:/bin"})
    assert done.stdout.startswith("ours -m fedround_examples.banks.")


def test_the_settings_promise_what_the_readme_says():
    settings, demo = STORY.settings(), STORY.settings("demo.toml")
    assert settings.privacy == RecordPrivacy(epsilon=5.0, delta_dp=1e-5, clip_norm=1.0, rounds=20)
    assert settings.quorum == 9
    assert demo == settings.model_copy(update={
        "privacy": settings.privacy.model_copy(update={"rounds": 10}),
        "training": settings.training.model_copy(update={"learning_rate": 3.0})})


def test_a_short_campaign_learns_repeats_and_privacy_changes_it(parts, recipe):
    settings = STORY.settings()
    settings = settings.model_copy(update={"quorum": 1, "privacy": settings.privacy.model_copy(update={"rounds": 2})})
    banks = {bank.name: recipe.encode(bank.train) for bank in parts.banks[4::4]}
    test = recipe.encode(parts.public_test)
    private, again = (federated(recipe, banks, settings, seed=0) for _ in range(2))
    plain = federated(recipe, banks, settings, seed=0, private=False)
    assert flatten(private).tobytes() == flatten(again).tobytes()
    assert flatten(private).tobytes() != flatten(plain).tobytes()
    assert recipe.task.metrics(scores(recipe, private, test)).auc > 0.65


def test_rivals_are_chosen_on_the_banks_own_rows_and_learn(parts, recipe):
    bank = parts.banks[8]
    rows, held_out = recipe.encode(bank.train), recipe.encode(bank.validation)
    untrained = auc(predictor(recipe, initial_tensors(recipe, 0)), held_out)
    assert auc(fit_mlp(recipe, rows, held_out, seed=0), held_out) > max(untrained, 0.65)
    assert auc(fit_logistic_regression(recipe, rows, held_out, seed=0), held_out) > 0.65


def test_the_table_ranks_the_banks():
    def reached(value: float) -> Metrics:
        return Metrics(auc=value, recall_at_20_fpr=0.5, accuracy=0.5, rows=10)

    alone = tuple(Alone(bank=f"bank-{n}", method="mlp", test=reached(n / 10)) for n in (5, 7, 6))
    lines = Baselines(pooled=reached(0.8), without_privacy=reached(0.79), alone=alone).lines()
    assert [label for label, _ in lines] == ["pooled training", "federation without privacy", "bank-7 alone (mlp)",
                                             "bank-6 alone (mlp)", "bank-5 alone (mlp)"]


def test_with_a_liar_the_screen_and_the_report_say_what_the_federation_is_with_it_and_without_it():
    def reached(value: float) -> Metrics:
        return Metrics(auc=value, recall_at_20_fpr=0.5, accuracy=0.5, rows=10)

    rivals = Baselines(pooled=reached(0.8), without_privacy=reached(0.79),
                       alone=(Alone(bank="bank-02", method="mlp", test=reached(0.7)),),
                       lied_to=(LiedTo(what="the federation without bank-01", test=reached(0.782)),
                                LiedTo(what="a plain mean, with bank-01", test=reached(0.711))))
    assert with_and_without("bank-01", 0.775, rivals) == (
        "AUC with bank-01 lying 0.775; the federation without bank-01, simulated, 0.782; a plain mean, with bank-01, "
        "simulated, 0.711")
    assert [(other.what, other.privacy) for other in beside(rivals)] == [
        ("the federation without bank-01, simulated, private", "the same"),
        ("a plain mean, with bank-01, simulated, private", "the same"), ("pooled training", "none"),
        ("federation without privacy", "none"), ("bank-02 alone (mlp)", "none")]


def test_a_lying_banks_process_has_one_thread_when_it_forks():
    """It imports NumPy before it comes to the host's own settings; with the demonstration's environment no thread begins."""
    counted = subprocess.run(
        [sys.executable, "-c", "import os, fedround_examples.liar; print(len(os.listdir('/proc/self/task')))"],
        env={**{name: value for name, value in os.environ.items() if "THREADS" not in name}, **ONE_THREAD},
        capture_output=True, text=True, check=True)
    assert counted.stdout == "1\n"


def test_the_recipe_stays_small():
    """It is what a data scientist copies."""
    assert len(Path(HERE / "recipe.py").read_text().splitlines()) < 55
