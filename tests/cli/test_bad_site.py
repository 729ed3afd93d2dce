"""A site's files and options with a mistake: one sentence that helps, exit code 1, nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from fedround.statistics.partitions import Partitions
from infra.settings import load_toml, save_toml
from site_workers.policy import SitePolicy
from tasks.invitations import invite_site
from tests.cli.bad_input import APPROVED, contents, edit, limited
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import SmallFederation, rows


@pytest.fixture
def invitation(federation: SmallFederation, tmp_path: Path) -> Path:
    path = tmp_path / "west.invitation.toml"
    save_toml(invite_site(federation.root / "coordinator", "west", None), path, "test")
    return path


def site_init(fedround: Fedround, invitation: Path, folder: Path, train: Path, validation: Path):
    return fedround("site", "init", folder, "--invitation", invitation, "--train", train, "--validation", validation,
                    *APPROVED)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "west-data"
    folder.mkdir()
    rows(120, 1).to_parquet(folder / "train.parquet")
    rows(60, 2).to_parquet(folder / "validation.parquet")
    return folder


def test_a_site_is_made_of_good_input(fedround: Fedround, invitation: Path, data: Path, tmp_path: Path):
    result = site_init(fedround, invitation, tmp_path / "west", data / "train.parquet", data / "validation.parquet")
    assert result.exit_code == 0, result.output


def test_the_policy_names_how_rows_are_told_apart_if_the_operator_says_so(fedround: Fedround, invitation: Path, data: Path,
                                                                          tmp_path: Path):
    line = ("site", "init", tmp_path / "west", "--invitation", invitation, "--train", data / "train.parquet",
            "--validation", data / "validation.parquet", *APPROVED)
    one_sentence(fedround(*line, "--partitions", "day", "--partitions-by", "fortnight"), "partitions", "by")
    one_sentence(fedround(*line, "--partitions-by", "month"), "--partitions-by says how", "give --partitions COLUMN")
    assert not (tmp_path / "west").exists()
    assert fedround(*line, "--partitions", "day", "--partitions-by", "month").exit_code == 0
    assert load_toml(SitePolicy, tmp_path / "west" / "policy.toml").partitions == (Partitions(column="day", by="month"),)


def test_a_site_needs_its_data_files(fedround: Fedround, invitation: Path, data: Path, tmp_path: Path):
    one_sentence(site_init(fedround, invitation, tmp_path / "west", data / "no.parquet", data / "validation.parquet"),
                 "no data file", "no.parquet")
    one_sentence(site_init(fedround, invitation, tmp_path / "west", data / "train.parquet", data / "train.parquet"),
                 "must be two files")
    assert not (tmp_path / "west").exists()


def test_a_second_site_in_one_folder_would_lose_the_firsts_keys(fedround: Fedround, federation: SmallFederation,
                                                                invitation: Path, data: Path):
    before = contents(federation.root / "north")
    one_sentence(site_init(fedround, invitation, federation.root / "north", data / "train.parquet",
                           data / "validation.parquet"), "holds a site already")
    assert contents(federation.root / "north") == before


@pytest.mark.parametrize(("pattern", "replacement", "says"), [
    (r"^site = ", "sight = ", "'site' is missing"), (r"^coordinator = .*$", 'coordinator = "me"', "'coordinator'"),
    (r"^site = ", "site == ", "not valid TOML")])
def test_an_invitation_that_was_damaged(fedround: Fedround, invitation: Path, data: Path, tmp_path: Path, pattern: str,
                                        replacement: str, says: str):
    edit(invitation, pattern, replacement)
    one_sentence(site_init(fedround, invitation, tmp_path / "west", data / "train.parquet", data / "validation.parquet"),
                 says)
    assert not (tmp_path / "west").exists()


@pytest.mark.parametrize(("option", "value", "says"), [
    ("--dataset", "My Data", "'dataset'"), ("--max-epsilon", "-1", "'max_epsilon'"), ("--delta-dp", "0.5", "'delta_dp'"),
    ("--min-rows", "0", "'min_rows'")])
def test_a_site_with_an_option_out_of_bounds(fedround: Fedround, invitation: Path, data: Path, tmp_path: Path,
                                             option: str, value: str, says: str):
    one_sentence(fedround("site", "init", tmp_path / "west", "--invitation", invitation, "--train", data / "train.parquet",
                          "--validation", data / "validation.parquet", *APPROVED, option, value), says)
    assert not (tmp_path / "west").exists()


def test_an_invitation_that_is_not_there(fedround: Fedround, data: Path, tmp_path: Path):
    one_sentence(site_init(fedround, tmp_path / "no.toml", tmp_path / "west", data / "train.parquet",
                           data / "validation.parquet"), "cannot read", "no.toml")


@pytest.mark.parametrize(("file", "pattern", "replacement", "says"), [
    ("site.toml", r"^name = ", "nmae = ", "'name' is missing"),
    ("site.toml", r"^dataset = .*$", "dataset = 7", "'data.dataset'"),
    ("policy.toml", r"^max_epsilon = .*$", "max_epsilon = -1.0", "'max_epsilon'"),
    ("policy.toml", r"^min_rows = .*$", "min_row = 5", "unknown key 'min_row'"),
    ("policy.toml", r'^    "....', '    "0000', "not approved by policy.toml"),
    ("policy.toml", r"^threads = 1 ", "threads = 0 ", "'limits.threads'"),
    ("policy.toml", r"^units = .*$", 'units = ["nobody"]', "'units.0'"),
    ("policy.toml", r"^# max_epsilon_per_run = .*$", "max_epsilon_per_run = 9.0", "a campaign is part of the whole"),
    ("policy.toml", r"^# max_epsilon_site = .*$", "max_epsilon_site = 9.0", "give both or neither"),
    ("policy.toml", r"^# \[hours\]$", '[hours]\ntime_zone = "Mars/Olympus"\nstart = "20:00"\nend = "06:00"', "'hours'"),
])
@pytest.mark.parametrize("command", ["check", "start"])
def test_a_sites_files_with_a_mistake(fedround: Fedround, federation: SmallFederation, command: str, file: str,
                                      pattern: str, replacement: str, says: str):
    folder = federation.root / "north"
    edit(folder / file, pattern, replacement)
    result = fedround("site", command, folder)
    assert result.exit_code == 1
    assert says in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("frame", "check", "says"), [
    (rows(300, 1).drop(columns="x2"), "rows", "cannot encode a single row"),
    (rows(300, 1).assign(x1=99.0), "contract", "x1_in_range"),
    (rows(300, 1).assign(y=7), "contract", "label_is_binary"),
    (rows(0, 1), "rows", "there are no rows in it"),
    (rows(10, 1), "rows", "10 training rows, the policy asks for 50"),
    (None, "rows", "cannot be read"),
], ids=["missing column", "out of range", "bad label", "empty site", "too few", "no file"])
def test_rows_that_are_not_as_agreed(fedround: Fedround, federation: SmallFederation, frame: pd.DataFrame | None,
                                     check: str, says: str):
    path = federation.root / "data" / "north" / "train.parquet"
    path.unlink()
    if frame is not None:
        frame.to_parquet(path)
    result = fedround("site", "check", federation.root / "north", "--json")
    assert result.exit_code == 1
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)}
    assert not findings[check]["ok"]
    assert says in findings[check]["detail"]
    assert findings["folder"]["ok"], "no check stops another"


def test_an_api_that_is_down_is_one_line_of_the_preflight(fedround: Fedround, federation: SmallFederation):
    result = fedround("site", "check", federation.root / "north")
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("✗")]
    assert "does not answer" in line
    assert "api_url in site.toml" in line


def test_a_ledger_that_was_altered_is_not_read_on(fedround: Fedround, federation: SmallFederation):
    federation.round()
    ledger = federation.root / "north" / "ledger.jsonl"
    edit(ledger, r'"round": ?1', '"round":2')
    one_sentence(fedround("site", "ledger", federation.root / "north"), "ledger")


@pytest.mark.parametrize("command", ["check", "start", "ledger"])
def test_a_sites_folder_that_is_not_there(fedround: Fedround, command: str):
    result = fedround("site", command, "nowhere")
    assert result.exit_code == 1
    assert "nowhere" in result.output
    assert "Traceback" not in result.output


def test_no_space_for_a_new_site_is_one_sentence_and_leaves_no_half_of_one(
        fedround: Fedround, invitation: Path, data: Path, tmp_path: Path):
    done = limited(tmp_path, "site", "init", "west", "--invitation", str(invitation), "--train", str(data / "train.parquet"),
                   "--validation", str(data / "validation.parquet"), *APPROVED)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "make room" in done.stderr
    assert not (tmp_path / "west").exists()
    assert site_init(fedround, invitation, tmp_path / "west", data / "train.parquet",
                     data / "validation.parquet").exit_code == 0, "there is room again"


def test_rows_may_be_a_pattern_through_a_link_and_stay_as_the_operator_said_them(
        fedround: Fedround, invitation: Path, data: Path, tmp_path: Path):
    """Pinned to what the link led to on the first day, a site trained on last week's rows for ever."""
    (data / "weeks").mkdir()
    for week in (1, 2):
        rows(60, week).to_csv(data / "weeks" / f"2019-w{week}.csv.gz", index=False)
    (tmp_path / "now").symlink_to(data / "weeks")
    pattern = tmp_path / "now" / "2019-*"
    assert site_init(fedround, invitation, tmp_path / "west", pattern, data / "validation.parquet").exit_code == 0
    assert f'train = "{pattern}"' in (tmp_path / "west" / "site.toml").read_text()
    findings = json.loads(fedround("site", "check", tmp_path / "west", "--json").stdout)
    assert {"120 training rows, 60 held out"} & {one["detail"] for one in findings if one["check"] == "rows"}


def test_rows_that_no_site_can_be_made_of(fedround: Fedround, invitation: Path, data: Path, tmp_path: Path):
    os.mkfifo(data / "pipe.csv")
    (data / "none").mkdir()
    for train, says in (("pipe.csv", "it is no file"), ("none", "has no .parquet or .csv file"), ("w*.csv", "no data file"),
                        (".", "is among both"), ("train.txt", "no data file")):
        one_sentence(site_init(fedround, invitation, tmp_path / "west", data / train, data / "validation.parquet"), says)
        (data / "pipe.csv").unlink(missing_ok=True)
    assert not (tmp_path / "west").exists()
