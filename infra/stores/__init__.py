"""Object stores behind one write-once protocol: memory, a folder, S3."""

from infra.stores.at_hand import AtHand
from infra.stores.base import ObjectInfo, ObjectStore, publish
from infra.stores.directory import DirectoryStore
from infra.stores.memory import MemoryStore
from infra.stores.opening import open_store
from infra.stores.probe import require_conditional_writes
from infra.stores.s3 import S3Store

__all__ = ["AtHand", "DirectoryStore", "MemoryStore", "ObjectInfo", "ObjectStore", "S3Store", "open_store",
           "publish", "require_conditional_writes"]
