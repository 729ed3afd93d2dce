"""Object stores behind one write-once protocol: memory, a folder, S3."""

from infra.stores.at_hand import AtHand
from infra.stores.base import ObjectInfo, ObjectStore, publish, put_first
from infra.stores.directory import DirectoryStore
from infra.stores.memory import MemoryStore
from infra.stores.metered import Metered, Traffic
from infra.stores.opening import open_store
from infra.stores.patience import Patience
from infra.stores.probe import require_conditional_writes
from infra.stores.reading import judged, there
from infra.stores.s3 import S3Store

__all__ = ["AtHand", "DirectoryStore", "MemoryStore", "Metered", "ObjectInfo", "ObjectStore", "Patience", "S3Store",
           "Traffic", "judged", "open_store", "publish", "put_first", "require_conditional_writes", "there"]
