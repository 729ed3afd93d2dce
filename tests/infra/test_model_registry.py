"""A round, once registered, is a git tag whose bytes anyone can fetch with dvc; no kill can make it otherwise."""

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedround import codec
from fedround.errors import (
    ConflictError,
    ContractError,
    NotFoundError,
    SetupError,
    StoreUnavailableError,
    TrustError,
)
from fedround.privacy.spec import NoPrivacy
from fedround.records import Checkpoint, LogHead
from fedround.values import TensorSpec
from infra import git_history
from infra.model_registry import ModelRegistry

METRICS = {"auc": 0.75, "recall_at_20_fpr": 0.5}
BIN = Path(sys.executable).parent


def model(folder: Path, content: bytes = b"weights") -> Path:
    path = folder / f"{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    path.write_bytes(content)
    return path


def checkpoint(path: Path, number: int, run: str = "spring") -> Checkpoint:
    data = path.read_bytes()
    return Checkpoint(
        federation="banks", run=run, round=number, log=LogHead(number=1, digest="8" * 64),
        tensors=(TensorSpec(name="w", shape=(3,)),), recipe="mlp",
        model=codec.payload_of(data), recipe_digest="0" * 64,
        privacy=NoPrivacy(), tool_version="0.1.0")


@contextlib.contextmanager
def opened(root: Path) -> Iterator[ModelRegistry]:
    yield ModelRegistry.open(root)


@pytest.fixture
def registry(tmp_path):
    with opened(tmp_path / "models") as registry:
        yield registry


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout


def state(root: Path) -> tuple[str, str, str]:
    """What must not depend on kills and repeats: the trees in order, the tags' trees, the worktree's differences."""
    tags = git(root, "for-each-ref", "refs/tags", "--format=%(refname)").split()
    trees = [f"{tag} {git(root, 'rev-parse', tag + '^{tree}')}" for tag in tags]
    return git(root, "log", "--format=%T %s"), "".join(trees), git(root, "status", "--porcelain")


def test_a_registered_model_comes_back_with_its_checkpoint_and_metrics(registry, tmp_path):
    for number in (2, 1):
        path = model(tmp_path, f"round {number}".encode())
        tag = registry.register(checkpoint(path, number), path.read_bytes(), METRICS | {"auc": number / 10})
        assert tag == f"spring/round-0000{number}"
    registry.register(checkpoint(path, 1, run="autumn"), path.read_bytes(), METRICS)
    assert [(v.tag, v.checkpoint.round, v.metrics["auc"]) for v in registry.versions()] == [
        ("autumn/round-00001", 1, 0.75), ("spring/round-00001", 1, 0.1), ("spring/round-00002", 2, 0.2)]
    registry.fetch("spring/round-00002", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"round 2"


def test_registering_again_changes_nothing(registry, tmp_path):
    path = model(tmp_path)
    registry.register(checkpoint(path, 1), path.read_bytes(), METRICS)
    before = git(registry.root, "show-ref", "--head"), state(registry.root)
    with opened(registry.root) as another:
        another.register(checkpoint(path, 1), path.read_bytes(), {"auc": 0.1})
    assert (git(registry.root, "show-ref", "--head"), state(registry.root)) == before


def test_a_tag_is_never_moved_to_another_model(registry, tmp_path):
    path, other = model(tmp_path), model(tmp_path, b"other weights")
    registry.register(checkpoint(path, 1), path.read_bytes(), METRICS)
    before = state(registry.root)
    with pytest.raises(ConflictError, match="spring/round-00001"):
        registry.register(checkpoint(other, 1), other.read_bytes(), METRICS)
    assert state(registry.root) == before


def test_bytes_that_are_not_the_checkpoints_model_leave_no_trace(registry, tmp_path):
    path, other = model(tmp_path), model(tmp_path, b"other weights")
    before = state(registry.root)
    with pytest.raises(TrustError, match="SHA-256"):
        registry.register(checkpoint(path, 1), other.read_bytes(), METRICS)
    with pytest.raises(ContractError, match="finite"):
        registry.register(checkpoint(path, 1), path.read_bytes(), {"auc": float("nan")})
    assert state(registry.root) == before


def test_what_was_altered_or_lost_is_not_handed_out(registry, tmp_path):
    path = model(tmp_path)
    tag = registry.register(checkpoint(path, 1), path.read_bytes(), METRICS)
    (stored,) = [file for file in (tmp_path / "models-data").rglob("*") if file.is_file()]
    stored.chmod(0o600)
    stored.write_bytes(b"evil")
    with pytest.raises(TrustError, match=tag):
        registry.fetch(tag, tmp_path / "fetched")
    stored.unlink()
    with pytest.raises(NotFoundError, match=tag):
        registry.fetch(tag, tmp_path / "fetched")
    for name in ("spring/round-00009", "main", "../../etc"):
        with pytest.raises(NotFoundError, match="no version"):
            registry.fetch(name, tmp_path / "fetched")
    assert [file.name for file in tmp_path.iterdir() if "fetch" in file.name] == []


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(SetupError, match="not a model registry"):
        ModelRegistry.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_registry_can_be_moved_with_its_data(registry, tmp_path):
    path = model(tmp_path)
    tag = registry.register(checkpoint(path, 1), path.read_bytes(), METRICS)
    (tmp_path / "new").mkdir()
    shutil.move(tmp_path / "models", tmp_path / "new" / "models")
    shutil.move(tmp_path / "models-data", tmp_path / "new" / "models-data")
    with opened(tmp_path / "new" / "models") as moved:
        moved.fetch(tag, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == path.read_bytes()


def test_what_a_person_pulled_into_the_registry_is_no_obstacle(registry, tmp_path):
    for number in (1, 2):
        path = model(tmp_path, f"round {number}".encode())
        registry.register(checkpoint(path, number), path.read_bytes(), METRICS)
        shutil.copy(path, registry.root / "model.safetensors")
        assert git(registry.root, "status", "--porcelain") == ""
        git(registry.root, "gc", "-q")             # packs the refs under our feet
    assert [version.checkpoint.round for version in registry.versions()] == [1, 2]


def test_it_needs_no_git_identity_and_heeds_no_git_environment(tmp_path):
    """As in CI, in a git hook, and inside a checkout that is itself a repository and signs its commits."""
    outer = tmp_path / "checkout"
    outer.mkdir()
    git(outer, "init", "-q")
    config = tmp_path / "gitconfig"
    config.write_text("[commit]\n\tgpgsign = true\n[init]\n\tdefaultBranch = trunk\n")
    program = textwrap.dedent(f"""
        import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
        from pathlib import Path
        from test_model_registry import METRICS, checkpoint, model, opened
        path = model(Path({str(tmp_path)!r}))
        with opened(Path("state/models")) as registry:
            registry.register(checkpoint(path, 1), path.read_bytes(), METRICS)
        """)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "CI": "true",
                   "GIT_CONFIG_GLOBAL": str(config), "GIT_DIR": str(outer / ".git"),
                   "GIT_INDEX_FILE": str(outer / ".git" / "index")}
    done = subprocess.run([sys.executable, "-c", program], cwd=outer, env=environment, capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    last = git(outer / "state" / "models", "log", "-1", "--format=%an %D")
    assert last == "fedround HEAD -> main, tag: spring/round-00001\n"
    assert git(outer, "status", "--porcelain").split() == ["??", "state/"]
    assert not (tmp_path / "home").exists()


def test_dvc_and_gto_work_on_it(registry, tmp_path):
    for number in (1, 2):
        path = model(tmp_path, f"round {number}".encode())
        registry.register(checkpoint(path, number), path.read_bytes(), {"auc": number / 10})

    def run(*words: str) -> str:
        return subprocess.run([str(BIN / words[0]), *words[1:]], cwd=registry.root, check=True, capture_output=True,
                              text=True, env=os.environ | {"DVC_NO_ANALYTICS": "1"}).stdout

    old, new = "spring/round-00001", "spring/round-00002"
    run("dvc", "get", ".", "model.safetensors", "--rev", old, "-o", str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == b"round 1"
    assert json.loads(run("dvc", "diff", old, new, "--json"))["modified"][0]["path"] == "model.safetensors"
    changes = json.loads(run("dvc", "metrics", "diff", old, new, "--json"))["metrics.json"]["auc"]
    assert (changes["old"], changes["new"]) == (0.1, 0.2)


# -- kills -------------------------------------------------------------------------------------------------------------


def test_locks_of_the_dead_are_removed_and_of_the_living_waited_for(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(git_history, "STALE_AFTER_S", 0.3)
    path = model(tmp_path)
    control = registry.root / ".git"
    (control / "refs" / "tags" / "spring").mkdir()
    locks = [control / "index.lock", control / "HEAD.lock", control / "refs" / "heads" / "main.lock",
             control / "refs" / "tags" / "spring" / "round-00001.lock"]
    begun = time.monotonic()
    for lock in locks:
        lock.touch()
    registry.register(checkpoint(path, 1), path.read_bytes(), METRICS)
    assert time.monotonic() - begun >= 0.25
    assert not any(lock.exists() for lock in locks)
    assert git(registry.root, "fsck", "--strict", "--no-dangling") == ""


def test_a_torn_pointer_and_a_lost_commit_are_made_good(registry, tmp_path):
    path = model(tmp_path)
    registry.register(checkpoint(path, 1), path.read_bytes(), METRICS)
    whole = state(registry.root)
    git(registry.root, "tag", "-d", "spring/round-00001")               # killed before the tag
    (registry.root / "model.safetensors.dvc").write_text("outs:\n- md5: 0")    # and while the next one was written
    registry.register(checkpoint(path, 1), path.read_bytes(), METRICS)
    assert state(registry.root) == whole


def test_another_program_in_the_registry_is_a_clear_error(registry, tmp_path):
    import zc.lockfile

    path = model(tmp_path)
    busy = zc.lockfile.LockFile(str(registry.root / ".dvc" / "tmp" / "lock"))
    try:
        with pytest.raises(StoreUnavailableError, match="register it again"):
            registry.register(checkpoint(path, 1), path.read_bytes(), METRICS)
    finally:
        busy.close()
    registry.register(checkpoint(path, 1), path.read_bytes(), METRICS)


def forked(work, kill_at: int = 0) -> tuple[int, int]:
    """Run `work` in a child, and SIGKILL it right before it touches a file or folder for the `kill_at`-th time.

    Returns how it ended (0, 1 or minus the signal), and how often it did touch one, if it was let live.
    """
    touched, told = os.pipe()
    child = os.fork()
    if child == 0:
        code, count = 1, 0

        def touching(event: str, _: object) -> None:
            nonlocal count
            if event == "open" or event.startswith("os."):
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(touching)
            work()
            os.write(told, str(count).encode())
            code = 0
        except BaseException:
            traceback.print_exc()       # what pytest would have shown
        finally:
            os._exit(code)
    os.close(told)
    with open(touched, "rb") as pipe:
        count = int(pipe.read() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), count


def test_kill_at_any_moment_then_register_again(tmp_path, monkeypatch):
    """Kills spread over all that creating and registering do to files; then as if nothing had happened.

    Whoever waits touches files, too, and does so more often one time than another: a late moment may not come.
    """
    monkeypatch.setattr(git_history, "STALE_AFTER_S", 0.1)
    paths = {number: model(tmp_path, f"round {number}".encode() * 100_000) for number in range(1, 13)}

    def register(root: Path, number: int) -> None:
        with opened(root) as registry:
            registry.register(checkpoint(paths[number], number), paths[number].read_bytes(), METRICS)

    calm, stormy = tmp_path / "calm" / "models", tmp_path / "stormy" / "models"
    ended = [forked(lambda number=number: register(calm, number)) for number in range(1, 13)]
    assert {code for code, _ in ended} == {0}
    moments, killed = random.Random(7), 0
    for number, (_, touched) in enumerate(ended, 1):
        assert touched > 20
        code, _ = forked(lambda number=number: register(stormy, number), kill_at=moments.randint(1, touched))
        assert code in (0, -signal.SIGKILL)
        killed += code != 0
        assert forked(lambda number=number: register(stormy, number))[0] == 0
        assert git(stormy, "fsck", "--strict", "--no-dangling") == ""
    assert killed >= 8
    assert state(stormy) == state(calm)
    assert len([path for path in (tmp_path / "stormy" / "models-data").rglob("*") if path.is_file()]) == 12
    assert sorted(path.name for path in (tmp_path / "stormy").iterdir()) == [".models.lock", "models", "models-data"]
    with opened(stormy) as registry:
        for number, path in paths.items():
            registry.fetch(f"spring/round-{number:05d}", tmp_path / "fetched")
            assert (tmp_path / "fetched").read_bytes() == path.read_bytes()


def test_a_model_of_40_mb_is_held_once_by_whoever_registers_it(tmp_path):
    small, body = model(tmp_path, b"warm up"), os.urandom(1 << 20) * 40

    def peak_mb() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    described = checkpoint(model(tmp_path, body), 2)

    def work() -> None:
        with opened(tmp_path / "models") as registry:
            registry.register(checkpoint(small, 1), small.read_bytes(), METRICS)
            Path("/proc/self/clear_refs").write_text("5")        # forget the peak so far (Linux)
            before = peak_mb()
            registry.register(described, body, METRICS)
            registry.fetch("spring/round-00002", tmp_path / "fetched")
            grown = peak_mb() - before
            if grown > 20:
                raise MemoryError(f"grew by {grown:.0f} MB")

    assert forked(work)[0] == 0
