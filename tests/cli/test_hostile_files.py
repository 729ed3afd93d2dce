"""Every command, where a file that it reads is no such thing: exit code 1 or 2 with one sentence, never a traceback."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit

from fedround.errors import ContractError
from infra.toml import MAX_DEPTH, parse_toml
from tests import small_federation
from tests.cli.conftest import Fedround
from tests.small_federation import SmallFederation

TOML = {
    "brackets": b"a=" + b"[" * 3_000 + b"]" * 3_000, "digits": b"quorum = " + b"9" * 5_000,
    "65 bits": b"quorum = 18446744073709551616",
    "dots": b".".join([b"a"] * 3_000) + b"=1", "a hundred thousand dots": b".".join([b"a"] * 100_000) + b"=1",
    "tables": b"".join(b"[" + b".".join([b"a"] * 30) + b"]\n" for _ in range(2)), "twice": b'name="a"\nname="b"\n',
    "inline": b"a=" + b"{a=" * 500 + b"1" + b"}" * 500, "nul": b"\0" * 10,
    "mark": b"\xef\xbb\xbfa=1", "quoted": b".".join([b'"a"'] * 3_000) + b"=1", "words": b"a" * 200_000}


@pytest.mark.parametrize("body", TOML.values(), ids=TOML)
def test_toml_that_nobody_reads(body: bytes):
    with pytest.raises(ContractError, match=r"settings.toml: (not valid TOML|a whole number)"):
        parse_toml(body.decode(), "settings.toml")


def test_toml_that_somebody_reads():
    text = "a = 1\nb.c.d = [[1], {e = 'x.y.z'}]\n# " + "a." * 100 + "\n" + 's = """\n' + "x " * 9_000 + '"""\n'
    assert parse_toml(text.replace("# " + "a." * 100, "# a comment"), "x")["b"] == {"c": {"d": [[1], {"e": "x.y.z"}]}}
    assert MAX_DEPTH >= 10


FILES = {"no TOML": b"\x00\xff", "brackets": TOML["brackets"], "another TOML": b"sites = 3\n[name]\nx = nan\n[privacy]\n",
         "lists": b"sites = [1, 2]\nprivacy = 3\ntraining = []\nrevoked = 7\nquorum = inf\n", "folder": None}
KEY = "ed25519:" + "07" * 32
FOLDER = ("-c", "{c}")
COMMANDS: list[tuple[str, tuple[str, ...]]] = [
    *(("{c}/federation.toml", one) for one in (
        ("federation", "check", *FOLDER), ("federation", "show", *FOLDER), ("federation", "log", "--as", "{c}"),
        ("federation", "add", "west", "--key", KEY, "--weight", "1", *FOLDER), ("federation", "rotate", "north", *FOLDER),
        ("federation", "revoke", "north", *FOLDER), ("models", "show", "x", *FOLDER), ("deploy", *FOLDER),
        ("federation", "invite", "west", "--access-key", "a", "--secret-key", "b", "--output", "{here}/x.toml", *FOLDER),
        ("verify", "spring", "--as", "{c}"), ("ask", "--top", "y=0,1", *FOLDER), ("train", "run", *FOLDER),
        ("round", "run", *FOLDER), ("ask", "--show", "--as", "{c}"), ("models", "rebuild", "spring", *FOLDER),
        ("coordinator", "start", *FOLDER), ("simulate", "{c}/federation.toml", "--recipe", "{c}/approved/recipe.py"),
        ("privacy", "plan", "{c}/federation.toml", "--rows", "a=100"))),
    *(("{c}/coordinator.toml", one) for one in (
        ("federation", "check", *FOLDER), ("federation", "add", "west", "--key", KEY, "--weight", "1", *FOLDER))),
    *(("{s}/site.toml", one) for one in (
        ("site", "check", "{s}"), ("site", "start", "{s}"), ("site", "recover", "{s}", "--yes"), ("site", "rotate", "{s}"),
        ("site", "model", "{s}", "--out", "{here}/m"), ("site", "approve", "{s}", "--list"),
        ("verify", "spring", "--as", "{s}"))),
    *(("{s}/policy.toml", one) for one in (("site", "ledger", "{s}"), ("site", "check", "{s}"),
                                           ("site", "approve", "{s}", "--withdraw", "0" * 16))),
    ("{s}/audit.jsonl", ("site", "audit", "{s}")), ("{s}/ledger.jsonl", ("site", "ledger", "{s}")),
    ("{s}/keys/identity.pem", ("site", "key", "{s}")), ("{s}/keys/noise.key", ("site", "check", "{s}")),
    ("{c}/approved/contract.json", ("federation", "check", *FOLDER)),
    ("{c}/approved/recipe.py", ("federation", "check", *FOLDER)),
    ("{here}/file.py", ("site", "approve", "{s}", "{here}/file.py", "--yes", "--digest", "0" * 16)),
    ("{here}/file.json", ("site", "approve", "{s}", "{here}/file.json", "--yes", "--digest", "0" * 16)),
    ("{here}/west.toml", ("site", "init", "{here}/west", "--invitation", "{here}/west.toml", "--train", "{here}/west.toml",
                          "--validation", "{here}/west.toml")),
    ("{here}/w.st", ("federation", "init", "{settings}", "--recipe", "{c}/approved/recipe.py", "--contract",
                     "{c}/approved/contract.json", "--start-from", "{here}/w.st", "--api-url", "http://127.0.0.1:9/api",
                     "--s3-endpoint", "http://127.0.0.1:9", "--access-key", "a", "--secret-key", "b", "-c", "{here}/made")),
    ("{here}/rows.csv", ("simulate", "{settings}", "--recipe", "{c}/approved/recipe.py", "--data", "{here}/rows.csv")),
    ("{here}/.fedround/stack.json", ("status", "--home", "{here}/.fedround", *FOLDER)),
    ("{c}/progress.json", ("status", "--home", "{here}/.fedround", *FOLDER))]
SOUND = {"status"}          # what is damaged there is as good as absent


@pytest.fixture(scope="module")
def folders(made: SmallFederation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    federation = made.copy(tmp_path_factory.mktemp("hostile"))
    here = federation.root / "here"
    (here / ".fedround").mkdir(parents=True)
    settings = here / "settings.toml"
    settings.write_text(tomlkit.dumps(small_federation.settings()))
    return {"c": federation.root / "coordinator", "s": federation.root / "north", "here": here, "settings": settings}


@pytest.fixture
def in_place_of(folders: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """The arguments, while another thing lies where the file was."""
    (file, arguments), body = request.param
    path, aside = Path(file.format(**folders)), folders["here"] / "aside"
    if path.exists():
        path.rename(aside)
    path.mkdir() if body is None else path.write_bytes(body)
    path.chmod(0o700)
    yield tuple(argument.format(**folders) for argument in arguments)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if aside.exists():
        aside.rename(path)


def cases() -> list[object]:
    """Every command with one of the damages, in turn, so that every damage meets commands of every kind."""
    return [pytest.param((command, body), id=f"{' '.join(command[1][:2])}: {command[0].rpartition('/')[2]} is {name}")
            for command, (name, body) in zip(COMMANDS, itertools.cycle(FILES.items()), strict=False)]


@pytest.mark.parametrize("in_place_of", cases(), indirect=True)
def test_a_command_whose_file_is_no_such_thing_says_so_in_one_sentence(fedround: Fedround, in_place_of: tuple[str, ...]):
    result = fedround(*in_place_of)
    assert result.exception is None or isinstance(result.exception, SystemExit), (result.exception, result.exc_info)
    if in_place_of[0] in SOUND:
        assert result.exit_code == 0
        return
    assert result.exit_code in (1, 2), result.output
    said = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(said) <= 1, result.stderr
    assert said or "✗" in result.stdout, result.output


NAMED: list[tuple[str, tuple[str, ...]]] = [
    (".py", ("site", "approve", "{s}", "{odd}", "--yes")), (".json", ("site", "approve", "{s}", "{odd}")),
    (".zip", ("predict", "{odd}", "{rows}", "-o", "{here}/out.csv", "--as", "{c}")),
    (".toml", ("synth", "{odd}", "{here}/out.csv", *FOLDER)), (".toml", ("ask", "{odd}", *FOLDER)),
    (".toml", ("simulate", "{odd}", "--recipe", "{c}/approved/recipe.py", "--data", "{rows}")),
    (".py", ("simulate", "{settings}", "--recipe", "{odd}", "--data", "{rows}")),
    (".safetensors", ("verify", "--checkpoint", "{odd}", "--as", "{c}")),
    (".parquet", ("verify", "--rows", "{odd}", "--as", "{c}")),
    (".py", ("recipe", "check", "{odd}", "{rows}")),
    (".json", ("recipe", "check", "{c}/approved/recipe.py", "{rows}", "--contract", "{odd}")),
    (".json", ("contract", "check", "{odd}", "{rows}")),
    (".json", ("contract", "diff", "{odd}", "{c}/approved/contract.json")),
    (".toml", ("privacy", "plan", "{odd}", "--rows", "a=100")),
    (".toml", ("region", "init", "{here}/r", "--invitation", "{odd}")),
    (".toml", ("site", "init", "{here}/west", "--invitation", "{odd}", "--train", "{rows}", "--validation", "{rows}"))]


@pytest.mark.parametrize(("ending", "arguments"), NAMED, ids=[" ".join(one[:2]) + end for end, one in NAMED])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused_in_words_and_not_waited_for(fedround: Fedround, folders: dict[str, Path], kind: str,
                                                                ending: str, arguments: tuple[str, ...]):
    """`site approve` of a pipe never came back; of /dev/zero it took all memory."""
    odd = folders["here"] / f"{kind}{ending}"
    if not os.path.lexists(odd):
        {"pipe": os.mkfifo, "device": lambda at: at.symlink_to("/dev/zero"), "folder": lambda at: at.mkdir()}[kind](odd)
    rows = folders["s"].parent / "data" / "north" / "train.parquet"
    result = fedround(*(argument.format(**folders, odd=odd, rows=rows) for argument in arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == 1, result.output
    assert len([line for line in result.stderr.splitlines() if line.strip()]) == 1, result.stderr
