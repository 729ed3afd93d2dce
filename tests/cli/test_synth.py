"""`fedround synth`: one question, charged once; rows on disk, and a signed card that says of what they were drawn."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from fedround.signing import digest, seal, unseal
from fedround.synthetic.said import Synthetic
from tests.cli.conftest import Fedround, one_sentence
from tests.cli.test_ask import by_the_sites, federation
from tests.small_federation import SmallFederation

__all__ = ["by_the_sites", "federation"]        # fixtures

BLUEPRINT = """
cells = 4
pairs = "star"

[[columns]]
kind = "numeric"
column = "x1"
low = -3
high = 3

[[columns]]
kind = "category"
column = "y"
values = [0, 1]
missing = false
"""


@pytest.fixture
def blueprint(tmp_path: Path) -> Path:
    path = tmp_path / "synthetic.toml"
    path.write_text(BLUEPRINT)
    return path


def test_rows_and_a_signed_card_and_nobody_is_asked_twice(
        fedround: Fedround, coordinator: Path, by_the_sites: list[dict], blueprint: Path, tmp_path: Path,
        federation: SmallFederation):
    wanted = ("synth", blueprint, tmp_path / "rows.parquet", "-c", coordinator, "--noise", "4", "--rows", "300")
    told = fedround(*wanted)
    assert told.exit_code == 0, told.output
    for words in ("300 rows of 2 columns", "columns are joined by x1 – y", "not promised"):
        assert words in " ".join(told.stdout.split()), words
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert (list(rows.columns), len(rows), set(rows["y"])) == (["x1", "y"], 300, {0, 1})
    assert rows["x1"].dropna().between(-3, 3).all()
    sealed = (tmp_path / "rows.parquet.card.json").read_bytes()
    card = unseal(sealed, Synthetic, federation.coordinator.identity.key, "the card")
    assert card.file == digest((tmp_path / "rows.parquet").read_bytes())
    assert (card.run, card.pairs, card.rows) == ("study", (("x1", "y"),), 300)
    assert [one.column for one in card.blueprint.columns] == ["x1", "y"]
    assert card.noise_std == pytest.approx(4 * 3 ** 0.5)
    assert len(by_the_sites) == 1
    again = json.loads(fedround(*wanted, "--json").stdout)
    assert again == json.loads(card.model_dump_json())
    other = fedround("synth", blueprint, tmp_path / "more.csv", "-c", coordinator, "--noise", "4", "--seed", "1")
    assert other.exit_code == 0, other.output
    assert len(pd.read_csv(tmp_path / "more.csv")) == 1000
    assert len(by_the_sites) == 1


def test_a_preview_says_the_price_and_it_is_the_cards(
        fedround: Fedround, coordinator: Path, by_the_sites: list[dict], blueprint: Path, tmp_path: Path):
    wanted = ("synth", blueprint, tmp_path / "rows.csv", "-c", coordinator, "--noise", "4", "--json")
    told = json.loads(fedround(*wanted, "--preview").stdout)
    assert (told["tables"], told["fits"], told["before"]) == (3, True, 0.0)
    assert not by_the_sites
    assert not (tmp_path / "rows.csv").exists()
    assert json.loads(fedround(*wanted).stdout)["epsilon"] == told["epsilon"] > 0


CLOUDS = "labels = 2\nfeatures = 2\nlow = -3\nhigh = 3\n"


def test_encoded_rows_are_drawn_by_label_and_proven_on_another_processor_too(
        fedround: Fedround, coordinator: Path, by_the_sites: list[dict], tmp_path: Path, federation: SmallFederation):
    (tmp_path / "clouds.toml").write_text(CLOUDS)
    file = tmp_path / "rows.parquet"
    wanted = ("synth", tmp_path / "clouds.toml", file, "-c", coordinator, "--noise", "4", "--rows", "300")
    one_sentence(fedround(*wanted), "sums of encoded rows by label do not leave here")
    for site in federation.names:
        policy = federation.root / site / "policy.toml"
        policy.write_text(re.sub(r"^statistics = .*", 'statistics = ["class_sums"]', policy.read_text(), flags=re.MULTILINE))
    told = fedround(*wanted)
    assert told.exit_code == 0, told.output
    assert "300 rows of 3 columns" in " ".join(told.stdout.split())
    assert "joined" not in told.stdout
    rows = pd.read_parquet(file)
    assert list(rows.columns) == ["x0", "x1", "label"]
    assert rows[["x0", "x1"]].abs().to_numpy().max() <= 3
    proven = fedround("verify", "--rows", file, "--as", coordinator.parent / "north")
    assert proven.exit_code == 0, proven.output
    assert "the same bytes" in " ".join(proven.stdout.split())
    card = unseal((tmp_path / "rows.parquet.card.json").read_bytes(), Synthetic, federation.coordinator.identity.key, "card")
    assert (card.pairs, card.not_promised.startswith("every label's rows")) == ((), True)
    for apart, holds in ((1e-4, True), (1e-2, False)):      # as another processor's last digits; as other rows
        body = rows.assign(x0=rows["x0"] + apart).to_parquet(index=False)
        file.write_bytes(body)
        (tmp_path / "rows.parquet.card.json").write_bytes(
            seal(card.model_copy(update={"file": digest(body)}), federation.coordinator.identity))
        told = fedround("verify", "--rows", file, "--as", coordinator)
        assert (told.exit_code == 0) == holds, told.output


def test_sums_by_other_labels_than_the_recipes_are_refused_in_words(fedround: Fedround, coordinator: Path, tmp_path: Path):
    (tmp_path / "clouds.toml").write_text(CLOUDS.replace("labels = 2", "labels = 3"))
    told = fedround("synth", tmp_path / "clouds.toml", tmp_path / "rows.csv", "-c", coordinator, "--noise", "4")
    assert "rows of 3 labels are asked for, and the federation's recipe learns Classify()" in one_sentence(told)


@pytest.mark.parametrize(("text", "name", "words"), [
    (CLOUDS + "cells = 4", "rows.csv", "'cells'"), (BLUEPRINT, "rows.xlsx", "ends in .parquet or .csv"),
    ("cells = ", "rows.csv", "not valid TOML"),
    (BLUEPRINT.replace('"star"', '[["x1", "z"]]'), "rows.csv", "'z', which is no column"),
    (BLUEPRINT.replace('"star"', '"all"').replace("cells = 4", "cells = 1"), "rows.csv", "'cells'")])
def test_what_cannot_be_is_one_sentence(
        fedround: Fedround, coordinator: Path, tmp_path: Path, text: str, name: str, words: str):
    (tmp_path / "b.toml").write_text(text)
    told = fedround("synth", tmp_path / "b.toml", tmp_path / name, "-c", coordinator)
    assert words in one_sentence(told)


def test_a_card_is_proven_by_whoever_has_it_and_a_changed_file_or_card_is_not(
        fedround: Fedround, coordinator: Path, by_the_sites: list[dict], blueprint: Path, tmp_path: Path,
        federation: SmallFederation):
    for name in ("rows.parquet", "rows.csv"):
        assert fedround("synth", blueprint, tmp_path / name, "-c", coordinator, "--noise", "4").exit_code == 0
        told = fedround("verify", "--rows", tmp_path / name, "--as", coordinator.parent / "north")
        assert told.exit_code == 0, told.output
        for words in ("The card holds", "east, north, south", "epsilon", "the same bytes", "x1 – y"):
            assert words in " ".join(told.stdout.split()), words
    told = json.loads(fedround("verify", "--rows", tmp_path / "rows.csv", "--as", coordinator, "--json").stdout)
    assert told["epsilon"] == pytest.approx(told["card"]["epsilon"])
    assert told["unseen"] == []
    file, beside = tmp_path / "rows.csv", tmp_path / "rows.csv.card.json"
    body, sealed = file.read_bytes(), beside.read_bytes()
    file.write_bytes(body.replace(b"\n", b"\r\n"))
    one_sentence(fedround("verify", "--rows", file, "--as", coordinator), "altered, or is another one")
    file.write_bytes(body)
    card = unseal(sealed, Synthetic, federation.coordinator.identity.key, "the card")
    lies = [({"seed": 1}, "other rows than seed 1 draws"), ({"epsilon": 0.1}, "another noise or epsilon"),
            ({"noise_std": 99.0}, "another noise or epsilon"), ({"attempt": 7}, "has no answer of"),
            ({"plan": "0" * 64}, "another question"),
            ({"blueprint": card.blueprint.model_copy(update={"cells": 5})}, "another question")]
    for lie, words in lies:
        beside.write_bytes(seal(card.model_copy(update=lie), federation.coordinator.identity))
        one_sentence(fedround("verify", "--rows", file, "--as", coordinator), words)
    beside.write_bytes(seal(card, federation.site("north").identity))
    one_sentence(fedround("verify", "--rows", file, "--as", coordinator), "sign")
    beside.unlink()
    one_sentence(fedround("verify", "--rows", file, "--as", coordinator), "no such file")
    one_sentence(fedround("verify", "study", "--rows", file, "--as", coordinator), "goes alone")
