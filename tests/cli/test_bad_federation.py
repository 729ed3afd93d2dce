"""A federation's files with a mistake: one sentence that helps, exit code 1, nothing lost."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import tomlkit

from tests.cli.bad_input import ANOTHER_KEY, contents, edit, limited
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import CONTRACT, RECIPE, SmallFederation, settings


@pytest.fixture
def agreed(tmp_path: Path) -> Path:
    """What `federation init` reads."""
    folder = tmp_path / "agreed-files"
    folder.mkdir()
    (folder / "settings.toml").write_text(tomlkit.dumps(settings()))
    (folder / "recipe.py").write_text(RECIPE)
    (folder / "contract.json").write_text(json.dumps(CONTRACT))
    return folder


@pytest.mark.parametrize(("pattern", "replacement", "says"), [
    (r"^quorum = 2", "quroum = 2", ["'quorum' is missing", "unknown key 'quroum'"]),
    (r"^quorum = 2", "quorum = 0", ["'quorum'", "greater than or equal to 1"]),
    (r"^quorum = 2", "quorum = 4", ["quorum 4 can never be met by 3 sites"]),
    (r"^quorum = 2", "quorum = 2\nenough = 4", ["enough = 4 can never be reached by 3 sites"]),
    (r"^quorum = 2", 'quorum = "two"', ["'quorum'", "integer"]),
    (r"^deadline_s = 60", "deadline_s = -1", ["'deadline_s'", "greater than or equal to 1"]),
    (r"^batch_size = 32", "batchsize = 32", ["unknown key 'training.batchsize'"]),
    (r"^learning_rate = 0.5", "learning_rate = 0.0", ["'training.learning_rate'"]),
    (r"^epsilon = 8.0", "epsilon = 800.0", ["'privacy.epsilon'", "less than or equal to 100"]),
    (r'^name = "weighted_mean"', 'name = "crumb"', ["'aggregation.rule'", "weighted_mean"]),
    (r'^name = "weighted_mean"', 'name = "trimmed_mean"\nf = 1',
     ["trimmed_mean with f=1 needs at least 3 updates", "Yin et al. 2018"]),
    (r'^name = "north"', 'name = "east"', ["two sites have the same name"]),
    (r'^name = "north"', 'name = "North"', ["'sites.0.name'"]),
    (r"^weight = 300.0", "weight = -300.0", ["'sites.0.weight'", "greater than or equal to"]),
    (r"^weight = 300.0", "weight = nan", ["'sites.0.weight'"]),
    (r"^name = ", "name == ", ["not valid TOML"]),
    (r'^coordinator = "ed25519:..', 'coordinator = "ed25519:00', ["neither 'coordinator' nor", "keys/identity.pem"]),
    (r'^contract_digest = "..', 'contract_digest = "zz', ["'contract_digest': a SHA-256 must be 64 digits and letters"]),
])
def test_a_federation_file_that_does_not_hold(fedround: Fedround, coordinator: Path, pattern: str, replacement: str,
                                              says: list[str]):
    edit(coordinator / "federation.toml", pattern, replacement)
    before = contents(coordinator)
    one_sentence(fedround("federation", "check", "-c", coordinator), "federation.toml", *says)
    assert contents(coordinator) == before


def test_what_may_be_chosen_is_checked_where_it_is_agreed(fedround: Fedround, coordinator: Path):
    """A rule whose condition does not hold is refused; a target that every site would refuse is said, and one that holds is
    offered.
    """
    path = coordinator / "federation.toml"
    before = path.read_text()
    path.write_text(before + '[choices]\nrule = [{name = "krum", f = 1}]\n')
    one_sentence(fedround("federation", "check", "-c", coordinator), "choices: with krum(f=1)", "needs at least 5 updates")
    path.write_text(before + '[choices]\nepsilon = [0.5, 4]\nrule = [{name = "coordinate_median"}]\n')
    told = " ".join(fedround("federation", "check", "-c", coordinator).stdout.split())
    assert "nobody answers a run at epsilon 0.5: the counts of evaluations, groups and drift alone spend" in told
    assert "a run at epsilon 4" not in told
    shown = fedround("federation", "show", "-c", coordinator).stdout
    assert "a run may have epsilon 8 or 0.5 or 4, the rule weighted_mean or coordinate_median" in " ".join(shown.split())


@pytest.mark.parametrize(("name", "key", "weight", "says"), [
    ("north", ANOTHER_KEY, "1", "two sites have the same name"),
    ("west", None, "1", "two members have the same key"),
    ("west", ANOTHER_KEY, "0", "'weight': input should be greater than or equal to"),
    ("west", ANOTHER_KEY, "nan", "'weight'"),
    ("west", ANOTHER_KEY, "inf", "'weight'"),
    ("West!", ANOTHER_KEY, "1", "'name'"),
    ("west", "ed25519:12", "1", "'key'"),
])
def test_a_member_that_cannot_be_added(fedround: Fedround, federation: SmallFederation, coordinator: Path, name: str,
                                       key: str | None, weight: str, says: str):
    before = contents(coordinator)
    key = key or federation.site("north").identity.key
    one_sentence(fedround("federation", "add", name, "--key", key, "--weight", weight, "-c", coordinator), says)
    assert contents(coordinator) == before


@pytest.mark.parametrize("command", [
    ("federation", "check"), ("federation", "show"), ("federation", "add", "x", "--key", ANOTHER_KEY, "--weight", "1"),
    ("deploy",), ("train", "run"), ("round", "run"), ("coordinator", "start"), ("models", "list"), ("models", "show", "x")])
def test_a_coordinators_folder_that_is_not_there(fedround: Fedround, command: tuple[str, ...]):
    sentence = one_sentence(fedround(*command, "-c", "nowhere"))
    assert "nowhere" in sentence


@pytest.mark.parametrize("command", [
    ("federation", "check"), ("deploy",), ("doctor",), ("round", "run"), ("coordinator", "start"),
    ("verify", "main", "--as")])
def test_a_federation_that_has_no_member_yet_says_how_one_joins(fedround: Fedround, agreed: Path, tmp_path: Path,
                                                               command: tuple[str, ...]):
    folder = tmp_path / "made"
    init(fedround, agreed, folder)
    one_sentence(fedround(*command, *(() if command[-1] == "--as" else ("-c",)), folder), "has no member yet",
                 "fedround federation invite NAME", "fedround federation add NAME")


@pytest.mark.parametrize("key", ["", "ed25519:12", "Ed25519:" + "a" * 64])
def test_a_key_that_is_none_is_refused_without_a_regular_expression(fedround: Fedround, coordinator: Path, key: str):
    sentence = one_sentence(fedround("federation", "add", "west", "--key", key, "--weight", "1", "-c", coordinator),
                            "a public key must be 'ed25519:' and 64 digits")
    assert "[0-9a-f]" not in sentence


def test_a_folder_without_its_key_says_where_it_should_be(fedround: Fedround, coordinator: Path):
    (coordinator / "keys" / "identity.pem").unlink()
    one_sentence(fedround("federation", "check", "-c", coordinator), "no private key at", "restore it from your backup")


def test_a_key_that_others_can_read(fedround: Fedround, coordinator: Path):
    (coordinator / "keys" / "identity.pem").chmod(0o644)
    one_sentence(fedround("federation", "check", "-c", coordinator), "chmod 600")


def test_no_space_for_a_member_keeps_the_federation_file(coordinator: Path, tmp_path: Path):
    before = contents(coordinator)
    done = limited(tmp_path, "federation", "add", "west", "--key", ANOTHER_KEY, "--weight", "1", "-c", str(coordinator))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "make room" in done.stderr
    assert (coordinator / "federation.toml").read_bytes() == before["federation.toml"]


def init(fedround: Fedround, agreed: Path, folder: Path, *more: object):
    return fedround("federation", "init", agreed / "settings.toml", "--recipe", agreed / "recipe.py", "--contract",
                    agreed / "contract.json", "-c", folder, "--api-url", "http://127.0.0.1:9/api", "--s3-endpoint",
                    "http://127.0.0.1:9", "--access-key", "a", "--secret-key", "b", *more)


def test_init_works_with_good_input(fedround: Fedround, agreed: Path, tmp_path: Path):
    """Without this, everything below could fail for a reason of its own."""
    result = init(fedround, agreed, tmp_path / "made")
    assert result.exit_code == 0, result.output
    assert "ed25519:" in result.stdout


def test_a_command_that_is_shown_can_be_typed_whatever_the_folder_is_called(fedround: Fedround, agreed: Path, tmp_path: Path):
    folder = tmp_path / "it's [bold]ours[/], [b] & $HOME"
    shown = init(fedround, agreed, folder).stdout
    assert f"made {folder};" in shown
    typed = shown.partition("Next: ")[2].rpartition(" for every site")[0]
    assert shlex.split(typed) == ["fedround", "federation", "invite", "NAME", "--coordinator", str(folder)]


@pytest.mark.parametrize(("file", "text", "says"), [
    ("settings.toml", "quorum = ", "not valid TOML"),
    ("settings.toml", tomlkit.dumps({**settings(), "rounds": 3}), "unknown key 'rounds'"),
    ("settings.toml", tomlkit.dumps({k: v for k, v in settings().items() if k != "privacy"}), "'privacy' is missing"),
    ("settings.toml", None, "cannot read"),
    ("recipe.py", "this is not Python", "does not run"),
    ("recipe.py", "NAME = 'tiny'", "must define a function"),
    ("recipe.py", None, "cannot be read"),
    ("contract.json", "{}", "'name' is missing"),
    ("contract.json", json.dumps({"name": "x", "checks": [{"id": "a", "type": "expect_magic", "kwargs": {}}]}), "check 'a'"),
    ("contract.json", None, "cannot be read"),
])
def test_init_with_a_bad_file_leaves_nothing_behind(fedround: Fedround, agreed: Path, tmp_path: Path, file: str,
                                                    text: str | None, says: str):
    (agreed / file).unlink()
    if text is not None:
        (agreed / file).write_text(text)
    one_sentence(init(fedround, agreed, tmp_path / "made"), says)
    assert not (tmp_path / "made").exists()


def test_init_with_a_test_set_that_is_not_there_leaves_nothing_behind(fedround: Fedround, agreed: Path, tmp_path: Path):
    one_sentence(init(fedround, agreed, tmp_path / "made", "--test-set", tmp_path / "no.parquet"), "no.parquet")
    assert not (tmp_path / "made").exists()


def test_init_does_not_touch_a_folder_that_is_in_use(fedround: Fedround, agreed: Path, coordinator: Path):
    before = contents(coordinator)
    one_sentence(init(fedround, agreed, coordinator), "exists and is not empty")
    assert contents(coordinator) == before


def test_without_servers_init_says_how_to_get_some(fedround: Fedround, agreed: Path, tmp_path: Path):
    result = fedround("federation", "init", agreed / "settings.toml", "--recipe", agreed / "recipe.py", "--contract",
                      agreed / "contract.json", "-c", tmp_path / "made")
    one_sentence(result, "fedround up")


@pytest.mark.parametrize("missing", ["--s3-endpoint", "--access-key", "--secret-key", "--api-url"])
def test_attack_half_a_bucket_of_ones_own_is_no_reason_to_take_the_bucket_of_this_machine(
        fedround: Fedround, agreed: Path, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch):
    """With --s3-endpoint and without a key, the federation began in the bucket of whatever stack ran here."""
    given = {"--api-url": "http://127.0.0.1:9/api", "--s3-endpoint": "http://127.0.0.1:9", "--access-key": "a",
             "--secret-key": "b"}
    given.pop(missing)
    result = fedround("federation", "init", agreed / "settings.toml", "--recipe", agreed / "recipe.py", "--contract",
                      agreed / "contract.json", "-c", tmp_path / "made", *(word for pair in given.items() for word in pair))
    one_sentence(result, missing)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["North", "north/../south", "", "a" * 41])
def test_an_invitation_for_a_name_that_cannot_be(fedround: Fedround, coordinator: Path, name: str):
    one_sentence(fedround("federation", "invite", name, "-c", coordinator, "--access-key", "a", "--secret-key", "b"),
                 "'site'")


def test_a_mandate_that_leaves_members_outside_says_whom_and_what_to_do(fedround: Fedround, coordinator: Path):
    """With the first of two regions the federation file was broken, and nobody was told."""
    key = "ed25519:" + "07" * 32
    said = fedround("region", "mandate", "hills", "--key", key, "--member", "north", "-c", coordinator)
    assert said.exit_code == 0, said.output
    assert "region 'hills' adds up 1 member;" in said.stdout
    assert "in no region yet: east, south." in " ".join(said.stdout.split())
    one_sentence(fedround("federation", "check", "-c", coordinator), "'east' is in none", "fedround region mandate")
    whole = fedround("region", "mandate", "plains", "--key", key.replace("07", "09"), "--member", "east", "--member", "south",
                     "-c", coordinator)
    assert "in no region" not in whole.stdout
    assert "adds up 2 members" in whole.stdout
