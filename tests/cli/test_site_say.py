"""What a site's operator says and sees: approving, listing, withdrawing, and the audit log. Exit codes are part of it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedround.signing import digest
from fedround.spoken import in_groups, in_numbers
from fedround_cli.main import app
from infra.settings import load_toml, save_toml
from site_workers.policy import SitePolicy
from tasks.invitations import invite_site
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import CONTRACT, RECIPE, SmallFederation

OTHER = RECIPE.replace("2, 4", "2, 5").replace("4, 1", "5, 1")
OTHERS_DIGEST = digest(OTHER.encode())


def typed(answers: str, *arguments: object) -> Result:
    """Run a command as a person who types these answers."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answers)


def typed_on_a_terminal(answers: str, *arguments: object) -> tuple[int, str]:
    """The same on a terminal, as a process; its pager is cat. The exit code, and all that the terminal showed."""
    ours, its = pty.openpty()
    line = [sys.executable, "-m", "fedround_cli.main", *map(str, arguments)]
    with subprocess.Popen(line, stdin=its, stdout=its, stderr=its,
                          env={**os.environ, "PAGER": "cat", "TERM": "xterm"}) as process, open(ours, "rb", 0) as terminal:
        os.close(its)
        os.write(ours, answers.encode())
        shown = b""
        try:
            while piece := terminal.read(1 << 16):
                shown += piece
        except OSError:         # Linux says so that the other end is closed
            pass
    return process.returncode, shown.decode().replace("\r\n", "\n")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "other.py"
    path.write_text(OTHER)
    return path


@pytest.fixture
def north(federation: SmallFederation) -> Path:
    return federation.root / "north"


def approved(north: Path) -> tuple[str, ...]:
    return load_toml(SitePolicy, north / "policy.toml").recipes


def test_approving_shows_what_it_is_what_it_imports_and_what_to_compare(fedround: Fedround, north: Path, recipe: Path):
    result = typed("y\n", "site", "approve", north, recipe)
    assert result.exit_code == 0, result.output
    for part in ("'tiny'", str(recipe), "numpy, torch", in_groups(OTHERS_DIGEST),
                 in_numbers(OTHERS_DIGEST), "Have you read it"):
        assert part in result.output
    assert OTHERS_DIGEST in approved(north)


def test_on_a_terminal_the_file_itself_is_shown_first(federation: SmallFederation, north: Path, recipe: Path):
    code, shown = typed_on_a_terminal("y\n", "site", "approve", north, recipe)
    assert code == 0, shown
    assert OTHER in shown
    assert shown.index(OTHER) < shown.index("Have you read it")
    assert OTHERS_DIGEST in approved(north)


def test_a_no_or_silence_approves_nothing(fedround: Fedround, north: Path, recipe: Path):
    before = (north / "policy.toml").read_bytes()
    for answer in ("n\n", "", "\n"):
        assert typed(answer, "site", "approve", north, recipe).exit_code == 1
    assert (north / "policy.toml").read_bytes() == before


@pytest.mark.parametrize(("options", "says"), [
    (("--yes",), "--yes approves only what --digest names"),
    (("--yes", "--digest", "0" * 64), "which no --digest names"),
    (("--digest", "0" * 64), "which no --digest names"),
    (("--yes", "--digest", OTHERS_DIGEST[:8]), "at least 16"),
    (("--list",), "give a file to approve, or --list"),
])
def test_a_script_approves_only_what_it_names(fedround: Fedround, north: Path, recipe: Path, options: tuple, says: str):
    one_sentence(fedround("site", "approve", north, recipe, *options), says)
    assert OTHERS_DIGEST not in approved(north)


def test_a_script_that_names_it_approves_it_and_can_take_it_back(fedround: Fedround, north: Path, recipe: Path):
    assert fedround("site", "approve", north, recipe, "--yes", "--digest", OTHERS_DIGEST[:16]).exit_code == 0
    listed = json.loads(fedround("site", "approve", north, "--list", "--json").stdout)
    assert [(one["kind"], one["current"]) for one in listed] == [("recipe", False), ("recipe", True), ("contract", True)]
    assert OTHERS_DIGEST in fedround("site", "approve", north, "--list").stdout
    gone = fedround("site", "approve", north, "--withdraw", OTHERS_DIGEST)
    assert gone.exit_code == 0
    assert "answers no plan until you approve another" in gone.stdout
    assert OTHERS_DIGEST not in approved(north)
    one_sentence(fedround("site", "approve", north, "--withdraw", OTHERS_DIGEST), "names no approved files")


def test_a_recipe_that_hides_something_is_not_even_offered(fedround: Fedround, north: Path, recipe: Path):
    recipe.write_text(OTHER + "\n# \u202e\n")
    one_sentence(fedround("site", "approve", north, recipe, "--yes", "--digest", OTHERS_DIGEST), "U+202E", "what runs")


def test_a_new_site_approves_each_file_by_itself(fedround: Fedround, federation: SmallFederation, tmp_path: Path):
    invitation, data = tmp_path / "west.toml", federation.root / "data" / "north"
    save_toml(invite_site(federation.root / "coordinator", "west", None), invitation, "test")
    line = ("site", "init", tmp_path / "west", "--invitation", invitation, "--train", data / "train.parquet",
            "--validation", data / "validation.parquet")
    one_sentence(fedround(*line, "--yes", "--digest", digest(RECIPE.encode())), "the contract in", "which no --digest names")
    assert typed("y\nn\n", *line).exit_code == 1
    assert not (tmp_path / "west").exists()
    result = typed("y\ny\n", *line)
    assert result.exit_code == 0, result.output
    policy = load_toml(SitePolicy, tmp_path / "west" / "policy.toml")
    assert (policy.recipes, policy.contracts) == (
        (digest(RECIPE.encode()),), (digest(json.dumps(CONTRACT).encode()),))


# -- the audit log -----------------------------------------------------------------------------------------------------


def test_the_audit_log_is_shown_and_checked(fedround: Fedround, federation: SmallFederation, north: Path):
    federation.round()
    result = fedround("site", "audit", north)
    assert result.exit_code == 0, result.output
    for part in ("asked", "carry out", "dp_sgd, gaussian_counts", "sites/north/spring/rounds/00001/01/answer.json",
                 "ledger and outbox agree"):
        assert part in result.stdout
    events = json.loads(fedround("site", "audit", north, "--json").stdout)
    assert [event["what"] for event in events] == ["approved", "approved", "asked", "spent", "decided", "left", "left"]


def test_an_audit_log_that_was_tampered_with_is_one_sentence_that_says_what_to_do(
        fedround: Fedround, federation: SmallFederation, north: Path):
    federation.round()
    path = north / "audit.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))
    one_sentence(fedround("site", "audit", north), "its last lines are missing", "restore this folder's newest backup")
    one_sentence(fedround("site", "audit", north, "--json"), "its last lines are missing")
    path.write_text("".join(lines).replace('"carry out"', '"policy"'))
    one_sentence(fedround("site", "audit", north), "was altered", "restore the file")
    path.unlink()
    one_sentence(fedround("site", "audit", north), "no audit log", "--begin")
    assert fedround("site", "audit", north, "--begin").exit_code == 0
    one_sentence(fedround("site", "audit", north, "--begin"), "exists already")


def test_a_site_whose_log_ledger_and_outbox_disagree_does_not_serve(fedround: Fedround, federation: SmallFederation,
                                                                    north: Path):
    federation.round()
    path = north / "audit.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    findings = {one["check"]: one for one in json.loads(fedround("site", "check", north, "--json").stdout)}
    assert not findings["audit log"]["ok"]
    assert "last lines are missing" in fedround("site", "start", north).stderr
