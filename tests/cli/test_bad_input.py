"""Bad input: one clear sentence that says what to do, exit code 1, no traceback, and nothing is lost."""

from __future__ import annotations

import json
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import tomlkit

from fedround.signing import digest
from infra.settings import save_toml
from infra.stack.ports import is_free
from tasks.membership import make_invitation
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import CONTRACT, RECIPE, SmallFederation, rows, settings

ANOTHER_KEY = "ed25519:" + "07" * 32
APPROVED = ("--yes", "--digest", digest(RECIPE.encode())[:16], "--digest", digest(json.dumps(CONTRACT).encode())[:16])


@pytest.fixture
def coordinator(federation: SmallFederation) -> Path:
    return federation.root / "coordinator"


@pytest.fixture
def agreed(tmp_path: Path) -> Path:
    """What `federation init` reads."""
    folder = tmp_path / "agreed-files"
    folder.mkdir()
    (folder / "settings.toml").write_text(tomlkit.dumps(settings()))
    (folder / "recipe.py").write_text(RECIPE)
    (folder / "contract.json").write_text(json.dumps(CONTRACT))
    return folder


def edit(path: Path, pattern: str, replacement: str) -> None:
    text = path.read_text()
    changed = re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert changed != text, f"{pattern} is not in {path.name}"
    path.write_text(changed)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but logs and locks."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.suffix != ".log" and "prefect" not in path.parts and path.name != ".serving"}


# -- the federation file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pattern", "replacement", "says"), [
    (r"^quorum = 2", "quroum = 2", ["'quorum' is missing", "unknown key 'quroum'"]),
    (r"^quorum = 2", "quorum = 0", ["'quorum'", "greater than or equal to 1"]),
    (r"^quorum = 2", "quorum = 4", ["quorum 4 can never be met by 3 sites"]),
    (r"^quorum = 2", 'quorum = "two"', ["'quorum'", "integer"]),
    (r"^deadline_s = 60", "deadline_s = -1", ["'deadline_s'", "greater than or equal to 1"]),
    (r"^batch_size = 32", "batchsize = 32", ["unknown key 'training.batchsize'"]),
    (r"^learning_rate = 0.5", "learning_rate = 0.0", ["'training.learning_rate'"]),
    (r"^epsilon = 8.0", "epsilon = 800.0", ["'privacy.record.epsilon'", "less than or equal to 100"]),
    (r'^name = "weighted_mean"', 'name = "crumb"', ["'aggregation.rule'", "weighted_mean"]),
    (r'^name = "weighted_mean"', 'name = "trimmed_mean"\nf = 1',
     ["trimmed_mean with f=1 needs at least 3 updates", "Yin et al. 2018"]),
    (r'^name = "north"', 'name = "east"', ["two sites have the same name"]),
    (r'^name = "north"', 'name = "North"', ["'sites.0.name'"]),
    (r"^weight = 300.0", "weight = -300.0", ["'sites.0.weight'", "greater than 0"]),
    (r"^weight = 300.0", "weight = nan", ["'sites.0.weight'"]),
    (r"^name = ", "name == ", ["not valid TOML"]),
    (r'^coordinator = "ed25519:..', 'coordinator = "ed25519:00', ["'coordinator' is not the key in keys/identity.pem"]),
    (r'^contract_digest = "..', 'contract_digest = "zz', ["'contract_digest'"]),
])
def test_a_federation_file_that_does_not_hold(fedround: Fedround, coordinator: Path, pattern: str, replacement: str,
                                              says: list[str]):
    edit(coordinator / "federation.toml", pattern, replacement)
    before = contents(coordinator)
    one_sentence(fedround("federation", "check", "-c", coordinator), "federation.toml", *says)
    assert contents(coordinator) == before


@pytest.mark.parametrize(("name", "key", "weight", "says"), [
    ("north", ANOTHER_KEY, "1", "two sites have the same name"),
    ("west", None, "1", "two members have the same key"),
    ("west", ANOTHER_KEY, "0", "'weight': input should be greater than 0"),
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


def test_a_folder_without_its_key_says_where_it_should_be(fedround: Fedround, coordinator: Path):
    (coordinator / "keys" / "identity.pem").unlink()
    one_sentence(fedround("federation", "check", "-c", coordinator), "no private key at", "restore it from your backup")


def test_a_key_that_others_can_read(fedround: Fedround, coordinator: Path):
    (coordinator / "keys" / "identity.pem").chmod(0o644)
    one_sentence(fedround("federation", "check", "-c", coordinator), "chmod 600")


# -- federation init ---------------------------------------------------------------------------------------------------


def init(fedround: Fedround, agreed: Path, folder: Path, *more: object):
    return fedround("federation", "init", agreed / "settings.toml", "--recipe", agreed / "recipe.py", "--contract",
                    agreed / "contract.json", "-c", folder, "--api-url", "http://127.0.0.1:9/api", "--s3-endpoint",
                    "http://127.0.0.1:9", "--access-key", "a", "--secret-key", "b", *more)


def test_init_works_with_good_input(fedround: Fedround, agreed: Path, tmp_path: Path):
    """Without this, everything below could fail for a reason of its own."""
    result = init(fedround, agreed, tmp_path / "made")
    assert result.exit_code == 0, result.output
    assert "ed25519:" in result.stdout


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


@pytest.mark.parametrize("name", ["North", "north/../south", "", "a" * 41])
def test_an_invitation_for_a_name_that_cannot_be(fedround: Fedround, coordinator: Path, name: str):
    one_sentence(fedround("federation", "invite", name, "-c", coordinator, "--access-key", "a", "--secret-key", "b"),
                 "'site'")


# -- a site ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def invitation(federation: SmallFederation, tmp_path: Path) -> Path:
    path = tmp_path / "west.invitation.toml"
    save_toml(make_invitation(federation.root / "coordinator", "west", None), path, "test")
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
    (rows(300, 1).drop(columns="x2"), "rows", "cannot encode the rows"),
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


# -- what is down ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("deploy",), ("train", "run"), ("round", "run")])
def test_an_api_that_is_down(fedround: Fedround, coordinator: Path, command: tuple[str, ...]):
    """Port 9 of this machine: nobody listens there."""
    one_sentence(fedround(*command, "-c", coordinator), "does not answer", "fedround up")


@pytest.mark.parametrize("member", ["coordinator", "north"])
def test_a_process_whose_api_is_down_does_not_start(federation: SmallFederation, member: str):
    """In a process of its own, as it would serve."""
    command = ("coordinator", "start", "-c") if member == "coordinator" else ("site", "start")
    done = subprocess.run([sys.executable, "-m", "cli.main", *command, str(federation.root / member)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "fedround: the Prefect API does not answer: check api_url" in done.stderr.splitlines()[-1]


@pytest.fixture
def without_store(federation: SmallFederation) -> SmallFederation:
    """Everybody's store is an S3 server that is down."""
    for name in ("coordinator", "north"):
        folder = federation.root / name
        file = folder / ("coordinator.toml" if name == "coordinator" else "site.toml")
        document = tomlkit.parse(file.read_text())
        document["store"] = {"kind": "s3", "endpoint": "http://127.0.0.1:9", "bucket": "fedround"}
        file.write_text(tomlkit.dumps(document))
        (folder / "keys" / "s3.toml").write_text('access_key = "a"\nsecret_key = "b"\n')
    return federation


@pytest.mark.parametrize("command", [
    ("federation", "check"), ("deploy",), ("coordinator", "start"), ("verify", "spring", "--as")])
def test_an_object_store_that_is_down(fedround: Fedround, without_store: SmallFederation, command: tuple[str, ...]):
    folder = without_store.root / "coordinator"
    where = (folder,) if command[-1] == "--as" else ("-c", folder)
    one_sentence(fedround(*command, *where), "the object store at http://127.0.0.1:9 does not answer", "check the address")


def test_an_object_store_that_is_down_is_one_line_of_the_preflight(fedround: Fedround, without_store: SmallFederation):
    result = fedround("site", "check", without_store.root / "north", "--json")
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)}
    assert "does not answer" in findings["store"]["detail"]
    assert findings["contract"]["ok"]


# -- this machine ------------------------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", next(filter(is_free, range(12_000, 20_000)))))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_is_named(fedround: Fedround, taken: int):
    one_sentence(fedround("up", "--home", "stack", "--api-port", taken), f"port {taken} for prefect is in use")
    one_sentence(fedround("up", "--home", "stack", "--s3-port", taken), f"port {taken} for s3 is in use")


def test_a_port_that_is_none(fedround: Fedround):
    one_sentence(fedround("up", "--home", "stack", "--api-port", 70_000), "choose one from 1 to")


def test_down_and_status_without_anything_running(fedround: Fedround):
    assert fedround("down", "--home", "stack").exit_code == 0
    assert json.loads(fedround("status", "--home", "stack", "--json").stdout) == {
        "stack": None, "processes": {}, "excluded": []}


def limited(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that may not write a file of more than a few bytes: what a full disk looks like to a program."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], cwd=folder, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)))


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


def test_no_space_for_a_member_keeps_the_federation_file(coordinator: Path, tmp_path: Path):
    before = contents(coordinator)
    done = limited(tmp_path, "federation", "add", "west", "--key", ANOTHER_KEY, "--weight", "1", "-c", str(coordinator))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "make room" in done.stderr
    assert (coordinator / "federation.toml").read_bytes() == before["federation.toml"]


# -- what is asked for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "says"), [
    (["--run", "Spring"], "run"), (["--quorum", "0"], "quorum"), (["--deadline-s", "0"], "deadline_s")])
@pytest.mark.parametrize("command", [("train", "run"), ("round", "run")])
def test_a_request_out_of_bounds_names_the_key(fedround: Fedround, coordinator: Path, command: tuple[str, ...],
                                               arguments: list[str], says: str):
    one_sentence(fedround(*command, "-c", coordinator, *arguments), says)


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
