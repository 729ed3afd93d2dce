"""A coordinator's or a region's folder: made whole under another name, and only then there."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedround.errors import SetupError
from fedround.files import keep_private, make_folders, take_place
from fedround.signing import Identity
from infra.settings import CoordinatorSettings, RegionSettings, S3Credential, save_toml


def check_unused(folder: Path) -> None:
    """Raises SetupError if something lies in the folder."""
    if folder.exists() and any(folder.iterdir()):
        raise SetupError(f"{folder} exists and is not empty: choose another folder, or move it away")


@contextmanager
def new_folder(folder: Path, settings: CoordinatorSettings | RegionSettings, identity: Identity,
               credential: S3Credential | None) -> Iterator[Path]:
    """A folder with this key, credential and settings, for the block to fill. When the block ends, it takes its place, closed
    to other users; if the block raises, nothing is left.

    Who is killed before that leaves a folder `.<name>.<chance>` beside the place, which nobody reads.
    """
    check_unused(folder)
    of, file = ("coordinator", "coordinator.toml") if isinstance(settings, CoordinatorSettings) else ("region", "region.toml")
    new = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        for part in (new, new / "keys"):
            make_folders(part, mode=0o700)
        identity.save(new / "keys" / "identity.pem")
        if credential is not None:
            save_toml(credential, new / "keys" / "s3.toml", f"The {of}'s S3 credential. Secret.", secret=True)
        yield new
        save_toml(settings, new / file, f"The {of}'s own settings. Paths are relative to this folder.")
        keep_private(new)
        take_place(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
