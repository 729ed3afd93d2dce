"""Invitations of sites, regions and other coordinators: whose credential they hold, and who takes which."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import pytest

from infra.invitations import CoordinatorInvitation, Invitation, RegionInvitation
from infra.settings import CoordinatorSettings, S3Credential, S3Settings, load_toml, save_toml
from tests.cli.bad_input import contents
from tests.cli.conftest import Fedround, one_sentence

INVITE = {"site": ("federation", "invite", "west"), "coordinator": ("coordinator", "invite", "two"),
          "region": ("region", "invite", "hills", "--member", "north")}
KINDS = {"site": Invitation, "coordinator": CoordinatorInvitation, "region": RegionInvitation}
TAKES = {"site": ("site", "init", "{folder}", "--train", "t.csv", "--validation", "v.csv", "--invitation", "{file}"),
         "coordinator": ("coordinator", "init", "{folder}", "--invitation", "{file}"),
         "region": ("region", "init", "{folder}", "--invitation", "{file}")}
WHOSE = {"site": "site 'west'", "coordinator": "coordinator 'two'", "region": "region 'hills'"}


@pytest.fixture
def in_a_bucket(coordinator: Path) -> Path:
    """The coordinator's folder, with a bucket of somebody's as the store."""
    path = coordinator / "coordinator.toml"
    bucket = S3Settings(endpoint="http://127.0.0.1:9", bucket="b")
    save_toml(load_toml(CoordinatorSettings, path).model_copy(update={"store": bucket}), path, "test")
    return coordinator


@pytest.mark.parametrize("kind", INVITE)
def test_a_bucket_asks_for_a_credential_and_what_is_given_stands_in_the_invitation(fedround: Fedround, in_a_bucket: Path,
                                                                                  kind: str):
    line = (*INVITE[kind], "-c", in_a_bucket, "--output", "made.toml")
    one_sentence(fedround(*line), WHOSE[kind], "fedround up", "--access-key and --secret-key")
    one_sentence(fedround(*line, "--access-key", "a"), "--secret-key")
    one_sentence(fedround(*line, "--secret-key", "b"), "--access-key")
    assert not Path("made.toml").exists()
    made = fedround(*line, "--access-key", "a", "--secret-key", "b")
    assert made.exit_code == 0, made.output
    assert load_toml(KINDS[kind], Path("made.toml")).credential == S3Credential(access_key="a", secret_key="b")
    assert Path("made.toml").stat().st_mode & 0o777 == 0o600
    assert f"fedround {kind} init FOLDER --invitation made.toml" in made.stdout


@pytest.mark.parametrize("kind", INVITE)
def test_a_folder_that_all_can_reach_asks_for_none(fedround: Fedround, coordinator: Path, kind: str):
    made = fedround(*INVITE[kind], "-c", coordinator, "--output", "made.toml")
    assert made.exit_code == 0, made.output
    assert load_toml(KINDS[kind], Path("made.toml")).credential is None


@pytest.mark.parametrize(("came", "expected"), [*itertools.permutations(INVITE, 2)])
def test_who_takes_anothers_invitation_is_told_what_it_is_and_which_command_takes_it(fedround: Fedround, coordinator: Path,
                                                                                    tmp_path: Path, came: str, expected: str):
    fedround(*INVITE[came], "-c", coordinator, "--output", "given.toml")
    line = [word.format(folder=tmp_path / "mine", file="given.toml") for word in TAKES[expected]]
    said = one_sentence(fedround(*line), f"given.toml is the invitation of {WHOSE[came]}", f"expected that of a {expected}",
                        f"fedround {came} init FOLDER --invitation given.toml")
    assert "unknown key" not in said
    assert not (tmp_path / "mine").exists()


def test_a_folder_in_use_takes_no_invitation_and_what_fails_leaves_nothing(fedround: Fedround, coordinator: Path,
                                                                          tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A region's folder that was half made had a key and no settings, and stood in the way of the next try."""
    fedround(*INVITE["region"], "-c", coordinator, "--output", "given.toml")
    line = "region", "init", tmp_path / "mine", "--invitation", "given.toml"
    with monkeypatch.context() as patch:
        patch.setattr("tasks.new_folder.save_toml", full)
        one_sentence(fedround(*line), "make room")
    assert not [path for path in tmp_path.iterdir() if "mine" in path.name]
    assert fedround(*line).exit_code == 0
    before = contents(tmp_path / "mine")
    one_sentence(fedround(*line), "exists and is not empty")
    assert contents(tmp_path / "mine") == before
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("expected", TAKES)
def test_what_is_no_invitation_at_all_is_refused_by_its_keys(fedround: Fedround, tmp_path: Path, expected: str):
    Path("given.toml").write_text('name = "west"\n')
    line = [word.format(folder=tmp_path / "mine", file="given.toml") for word in TAKES[expected]]
    one_sentence(fedround(*line), "given.toml", "is missing")
