"""From settings to a store."""

from __future__ import annotations

from pathlib import Path

from infra.settings import DirectorySettings, S3Credential, S3Settings, load_toml
from infra.stores.base import ObjectStore
from infra.stores.directory import DirectoryStore
from infra.stores.s3 import S3Store


def open_store(settings: S3Settings | DirectorySettings, folder: Path) -> ObjectStore:
    """The store that a member's settings name; an S3 credential is read from `folder`/keys/s3.toml.

    Opening does not connect. Raises SetupError if the credential is missing.
    """
    if isinstance(settings, DirectorySettings):
        return DirectoryStore(folder / settings.path)
    credential = load_toml(S3Credential, folder / "keys" / "s3.toml")
    return S3Store(settings.endpoint, settings.bucket, credential.access_key, credential.secret_key,
                   region=settings.region)
