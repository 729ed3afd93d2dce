"""The coordinator's model store: every committed round as a git tag, its bytes in DVC.

::

    models/                    a git repository of its own, apart from the source checkout
      model.safetensors.dvc    which bytes (the file itself: 'dvc pull')
      checkpoint.json          what they are: round, tensors, recipe, privacy
      metrics.json             how good they are
    models-data/               the DVC remote: every model once, by content

A round of the run 'spring' is the tag ``spring/round-00042``, so a data scientist needs no tool of ours::

    dvc get models model.safetensors --rev spring/round-00042
    dvc metrics diff spring/round-00041 spring/round-00042

The registry is a view of the commits in the object store and can be made again from them: it decides nothing.

Models go straight to the remote, so there is one copy of each, and git is written by dulwich in this process; dvc itself is
imported only to make a registry and to fetch from one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from fedround.errors import ConflictError, ContractError, NotFoundError, SetupError, StoreUnavailableError, TrustError
from fedround.files import sync_folder, take_place, writing_whole
from fedround.records import Checkpoint
from fedround.signing import digest
from fedround.values import parse
from infra import git_history

MODEL, BUNDLE = "model.safetensors", "bundle.zip"
_BLOCK_BYTES = 1 << 20
_POINTER, _CHECKPOINT, _METRICS = f"{MODEL}.dvc", "checkpoint.json", "metrics.json"
_TAG = re.compile(r"[a-z0-9][a-z0-9-]*/round-[0-9]{5}")
_DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
    remote = data
['remote "data"']
    url = ../../{name}-data
"""
_POINTER_TEXT = """\
outs:
- md5: {md5}
  size: {size}
  hash: md5
  path: {name}
"""
_DVC_YAML = f"""\
metrics:
  - {_METRICS}
artifacts:
  model:
    path: {MODEL}
    type: model
    desc: The global model after a committed round
"""


@dataclass(frozen=True)
class ModelVersion:
    """One registered round."""

    tag: str
    checkpoint: Checkpoint
    metrics: Mapping[str, float]


class ModelRegistry:
    """A git repository with a DVC remote beside it. One process registers at a time; others wait for it."""

    def __init__(self, root: Path):
        self.root = root
        self._lock = _lock(root)

    @classmethod
    def open(cls, root: Path) -> ModelRegistry:
        """Open the registry at `root`; it is created if nothing is there. If that is killed half way, nothing is there.

        Needs neither a git nor a dvc command, no git identity and no network; `root` may lie inside another checkout. Raises
        SetupError if something else is at `root`.
        """
        root = root.absolute()
        with _lock(root):
            if not root.exists() or not any(root.iterdir()):
                _create(root)
        if not (root / ".git").is_dir() or not (root / ".dvc" / "config").is_file():
            raise SetupError(f"{root} exists and is not a model registry: choose another folder, or move that one away")
        return cls(root)

    def register(self, checkpoint: Checkpoint, model: bytes, metrics: Mapping[str, float]) -> str:
        """Keep a round's model for good and return its tag, ``<run>/round-<number>``; the tag comes last.

        Registering a round again changes nothing (the metrics of the first time stand); after a kill it finishes what
        was begun. Raises TrustError if `model` is to be kept and not what `checkpoint` describes; ConflictError if the tag
        stands for another checkpoint; StoreUnavailableError without space, or while another program keeps it busy.
        """
        from dulwich.file import FileLocked
        from zc.lockfile import LockError

        tag = f"{checkpoint.run}/round-{checkpoint.round:05d}"
        if not all(math.isfinite(value) for value in metrics.values()):
            raise ContractError(f"metrics of {tag}: expected finite numbers")
        try:
            with self._lock:
                known = git_history.read(self.root, tag)
                if known is None:
                    with self._alone():
                        self._add(tag, checkpoint, model, metrics)
        except (OSError, LockError, FileLocked) as error:
            raise StoreUnavailableError(f"model registry {self.root}: {tag} could not be registered ({error}); make "
                                        "room, or wait for the other program, and register it again") from error
        if known is not None and self._version(tag).checkpoint != checkpoint:
            raise ConflictError(f"model registry {self.root}: {tag} stands for another checkpoint; a version is never "
                                "replaced: give the run another name")
        return tag

    def note(self, tag: str, metrics: Mapping[str, float]) -> None:
        """Keep numbers that are of no single model under a tag of their own, for `dvc metrics`; once.

        Raises as `register`.
        """
        from dulwich.file import FileLocked
        from zc.lockfile import LockError

        try:
            with self._lock:
                if git_history.read(self.root, tag) is not None:
                    return
                with self._alone():
                    git_history.clear_stale_locks(self.root)
                    git_history.commit(self.root, {_METRICS: _readable(dict(metrics))}, f"{tag}\n")
                    git_history.tag(self.root, tag)
        except (OSError, LockError, FileLocked) as error:
            raise StoreUnavailableError(f"model registry {self.root}: {tag} could not be kept ({error}); make room, or wait "
                                        "for the other program, and try again") from error

    def _add(self, tag: str, checkpoint: Checkpoint, model: bytes, metrics: Mapping[str, float]) -> None:
        git_history.clear_stale_locks(self.root)
        if digest(model) != checkpoint.model.sha256:
            raise TrustError(f"these bytes are not the model of round {checkpoint.round} of run '{checkpoint.run}': their "
                             f"SHA-256 is not {checkpoint.model.sha256[:12]}…")
        pointer = _POINTER_TEXT.format(md5=self._keep(model), size=checkpoint.model.size_bytes, name=MODEL)
        git_history.commit(self.root, message=f"{tag}\n\nmodel {checkpoint.model.sha256}\n", files={
            _POINTER: pointer.encode(), _CHECKPOINT: _readable(checkpoint.model_dump(mode="json")),
            _METRICS: _readable(dict(metrics))})
        git_history.tag(self.root, tag)

    def _alone(self) -> AbstractContextManager[object]:
        """Keeps every dvc command out of the registry: this is dvc's own lock."""
        from zc.lockfile import LockFile

        place = self.root / ".dvc" / "tmp"
        place.mkdir(exist_ok=True)
        return contextlib.closing(LockFile(str(place / "lock")))

    def keep_bundle(self, bundle: bytes) -> bytes:
        """Put a bundle into the DVC remote, durably; returns the pointer file that belongs into git.

        Raises StoreUnavailableError without space, or while another program keeps the registry busy.
        """
        from zc.lockfile import LockError

        try:
            with self._lock, self._alone():
                md5 = self._keep(bundle)
        except (OSError, LockError) as error:
            raise StoreUnavailableError(f"model registry {self.root}: the bundle could not be kept ({error}); make room, or "
                                        "wait for the other program, and try again") from error
        return _POINTER_TEXT.format(md5=md5, size=len(bundle), name=BUNDLE).encode()

    def _keep(self, body: bytes) -> str:
        """Put a file into the DVC remote, durably, and return the MD5 that names it there.

        'dvc add --to-remote' does the same, but reads and writes a file twice.
        """
        data = self.root.with_name(f"{self.root.name}-data")
        data.mkdir(exist_ok=True)
        partial, name = data / ".partial", hashlib.md5(body, usedforsecurity=False).hexdigest()
        partial.unlink(missing_ok=True)                    # what a kill left
        with partial.open("xb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        place = data / "files" / "md5" / name[:2] / name[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.chmod(0o444)
        partial.replace(place)
        for folder in place.parents[:5]:                   # down from the one that holds the registry and its data
            sync_folder(folder)
        return name

    def versions(self) -> list[ModelVersion]:
        """Every registered round, by run and number."""
        return [self._version(tag) for tag in git_history.tags(self.root) if _TAG.fullmatch(tag)]

    def fetch(self, tag: str, destination: Path) -> None:
        """Write the model of `tag` to `destination`, whole and with the SHA-256 of its checkpoint, or not at all.

        Raises NotFoundError if there is no such tag, or its bytes are gone; TrustError if the bytes have changed.
        """
        from dvc.api import DVCFileSystem
        from dvc.exceptions import DvcException

        _hush()
        version = self._version(tag)
        wanted, hasher = version.checkpoint.model.sha256, hashlib.sha256()
        try:
            with (contextlib.closing(DVCFileSystem(str(self.root), rev=tag)) as files, files.open(MODEL, "rb") as source,
                  writing_whole(destination, durable=True, mode=0o600) as file):
                while (block := source.read(_BLOCK_BYTES)) != b"":
                    hasher.update(block)
                    file.write(block)
                if hasher.hexdigest() != wanted:
                    raise TrustError(f"model registry {self.root}: the bytes of {tag} are not those that were registered; "
                                     "restore them from the object store")
        except (FileNotFoundError, DvcException) as error:
            raise NotFoundError(f"model registry {self.root}: the bytes of {tag} are gone ({error}); restore them from "
                                "the object store") from error

    def read_bundle(self, tag: str) -> bytes:
        """The bundle that a promotion's tag names. Raises NotFoundError if it has none, or its bytes are gone."""
        from dvc.api import DVCFileSystem
        from dvc.exceptions import DvcException
        from scmrepo.exceptions import RevError

        _hush()
        try:
            with contextlib.closing(DVCFileSystem(str(self.root), rev=tag)) as files, files.open(BUNDLE, "rb") as source:
                found: bytes = source.read()
                return found
        except (FileNotFoundError, DvcException, RevError) as error:
            raise NotFoundError(f"model registry {self.root}: no bundle under '{tag}' ({type(error).__name__}): "
                                "'fedround models stages' shows what there is") from error

    def _version(self, tag: str) -> ModelVersion:
        files = git_history.read(self.root, tag) if _TAG.fullmatch(tag) else None
        if files is None or not {_CHECKPOINT, _METRICS} <= set(files):
            raise NotFoundError(f"model registry {self.root} has no version '{tag}'; 'git tag' in it lists them")
        checkpoint = parse(Checkpoint, files[_CHECKPOINT], f"{_CHECKPOINT} of {tag}")
        return ModelVersion(tag, checkpoint, json.loads(files[_METRICS]))


def _create(root: Path) -> None:
    """Make the registry beside its place and move it there whole."""
    from dvc.repo import Repo

    _hush()
    draft = root.with_name(f".{root.name}-draft")
    shutil.rmtree(draft, ignore_errors=True)               # what a kill left
    draft.mkdir()
    git_history.create(draft)
    Repo.init(str(draft)).close()
    git_history.commit(draft, message="An empty model registry", also=[".dvcignore", ".dvc/.gitignore"], files={
        ".dvc/config": _DVC_CONFIG.format(name=root.name).encode(),
        ".gitignore": f"/{MODEL}\n".encode(), "dvc.yaml": _DVC_YAML.encode()})
    take_place(draft, root)


def _hush() -> None:
    """Once dvc is imported: it prints hints and progress for people at a terminal."""
    logging.getLogger("dvc").setLevel(logging.ERROR)


def _lock(root: Path) -> FileLock:
    """Held while the registry is made or written; it ends with its process."""
    root.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(root.with_name(f".{root.name}.lock"), timeout=60)


def _readable(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


