"""Rounds, runs and versions that cannot be: one sentence that helps, exit code 1, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import SmallFederation


@pytest.mark.parametrize(("arguments", "says"), [
    (["--run", "Spring"], "run"), (["--quorum", "0"], "quorum"), (["--deadline-s", "0"], "deadline_s")])
@pytest.mark.parametrize("command", [("train", "run"), ("round", "run")])
def test_a_request_out_of_bounds_names_the_key(fedround: Fedround, coordinator: Path, command: tuple[str, ...],
                                               arguments: list[str], says: str):
    one_sentence(fedround(*command, "-c", coordinator, *arguments), says)


@pytest.mark.parametrize(("arguments", "says"), [
    ([], "say what to ask"), (["--histogram", "age"], "expected a column"), (["--histogram", "age="], "expected a column"),
    (["--histogram", "age=20,old"], "'old' is no number"), (["--histogram", "age=30,20"], "edges must ascend"),
    (["--top", "sex=1,1"], "named twice"), (["--count", "--by", "sex=1 x sex=2"], "a column is named twice"),
    (["--count"], "name columns to count by"), (["--mean", "age=0"], "expected bounds"),
    (["--count", "--where", "age>4"], "--where"),
    (["--mean", "age=4:1"], "must ascend"), (["--mean", "age=0:9", "--noise", "1", "--error", "1"], "not both"),
    (["--histogram", "age=20", "--noise", "-1"], "noise_std"), (["--histogram", "age=20", "--run", "Study"], "run"),
    (["--histogram", "age=20", "--quorum", "0"], "quorum"), (["--histogram", "age=20", "--quorum", "4"], "can never be met"),
    (["--histogram", "age=20", "--deadline-s", "0"], "deadline_s")])
def test_a_measurement_that_cannot_be_asked_names_what_is_wrong(fedround: Fedround, coordinator: Path, arguments: list[str],
                                                                says: str):
    one_sentence(fedround("ask", "-c", coordinator, *arguments), says)


def test_measurements_that_there_are_not(fedround: Fedround, coordinator: Path):
    one_sentence(fedround("ask", "--show", "--as", coordinator), "run 'study' has no measurement")


@pytest.mark.parametrize("cron", ["every day", "* * * *", "99 * * * *", ""])
def test_a_schedule_that_is_none(fedround: Fedround, coordinator: Path, cron: str):
    one_sentence(fedround("deploy", "-c", coordinator, "--cron", cron), "--cron", "five fields")


def test_a_schedule_for_a_run_that_cannot_be(fedround: Fedround, coordinator: Path):
    one_sentence(fedround("deploy", "-c", coordinator, "--cron", "0 3 * * 1", "--run", "Every Day"), "--run")


def test_a_run_that_there_is_not(fedround: Fedround, coordinator: Path):
    one_sentence(fedround("verify", "autumn", "--as", coordinator), "no run 'autumn'")


@pytest.mark.parametrize("run", ["../spring", "Spring", ""])
def test_a_run_whose_name_cannot_be(fedround: Fedround, coordinator: Path, run: str):
    one_sentence(fedround("verify", run, "--as", coordinator))


def test_verify_as_nobody(fedround: Fedround, tmp_path: Path):
    one_sentence(fedround("verify", "spring", "--as", tmp_path), "neither a coordinator's nor a site's folder")


def test_verify_finds_a_changed_byte(fedround: Fedround, federation: SmallFederation, coordinator: Path):
    commit = federation.round()
    assert fedround("verify", "spring", "--as", coordinator).exit_code == 0
    path = federation.root / "store" / f"models/{commit.model}.safetensors"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(body)
    one_sentence(fedround("verify", "spring", "--as", coordinator), "model of round 1 of run 'spring'")


def test_a_version_that_there_is_not(fedround: Fedround, coordinator: Path, tmp_path: Path):
    one_sentence(fedround("models", "show", "spring/round-00001", "-c", coordinator), "there is no version")
    one_sentence(fedround("models", "get", "spring/round-00001", tmp_path / "model", "-c", coordinator), "spring/round-00001")
    assert not (tmp_path / "model").exists()


def test_a_folder_that_is_not_there_is_named_as_it_was_typed(fedround: Fedround, tmp_path: Path):
    """Not the temporary file that would have lain there."""
    rows = tmp_path / "rows.csv"
    rows.write_text("x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(200)))
    result = fedround("contract", "infer", rows, "--out", tmp_path / "no" / "c.json")
    said = one_sentence(result, "there is no folder", "/no;")
    assert "c.json." not in said


@pytest.mark.parametrize("command", [
    ("join", "north", "south", "--for", "Credit Risk"), ("join", "north", "south", "--for", "x", "--run", "A b"),
    ("drift", "run", "--run", "A b"), ("train", "run", "--run", "A b"), ("ask", "--top", "y=0,1", "--run", "A b"),
    ("ask", "--top", "y=0,1", "--asker", "A b")])
def test_a_name_that_cannot_be_is_refused_in_words(fedround: Fedround, coordinator: Path, command: tuple[str, ...]):
    """`join` and `drift run` ended in a traceback, the others in a regular expression."""
    said = one_sentence(fedround(*command, "-c", coordinator), "the request: ")
    assert "^" not in said


@pytest.mark.parametrize(("two", "says"), [(("north", "north"), "named twice"), (("north", "nobody"), "no site 'nobody'")])
def test_who_is_no_member_exchanges_nothing_and_no_server_is_asked(fedround: Fedround, coordinator: Path,
                                                                   two: tuple[str, str], says: str):
    one_sentence(fedround("join", *two, "--for", "x", "-c", coordinator), says)
