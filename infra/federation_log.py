"""The federation log in the object store: read and verified from its first entry, and extended by whoever is first."""

from __future__ import annotations

import functools

from fedround import __version__, layout
from fedround.errors import ChainError, ContractError, NotFoundError, SignatureError, TooLargeError
from fedround.federation import Federation
from fedround.federation_log import LogEntry, Logged, Rotation, changes, check_continues
from fedround.records import LogHead
from fedround.signing import Identity, digest, envelope, seal, unseal
from fedround.values import Signature
from infra.documents import is_ours, newest, read_document, read_federation
from infra.stores import ObjectStore, publish, put_first


def length(store: ObjectStore, coordinator: str) -> int:
    """How many entries the store has; 0 before the federation's first round."""
    numbers = {number for key in store.list(layout.LOG) if (number := layout.parse_log_entry(key)) is not None}
    return newest(numbers, 1, lambda number: _is_entry(store, coordinator, number)) or 0


def signed_length(store: ObjectStore, coordinator: str) -> int:
    """The same, without entries that somebody else put after the coordinator's last one. For readers only."""
    number = length(store, coordinator)
    while number > 0 and not _is_entry(store, coordinator, number):
        number -= 1
    return number


@functools.lru_cache(maxsize=8)
def read_log(store: ObjectStore, coordinator: str, number: int) -> tuple[Logged, ...]:
    """Entries 1 to `number`, verified: signatures, chain, the files they name, and that each file may follow the last.

    Read once per process: the store keeps what is written.
    Raises ChainError or TrustError for the first entry that does not hold.
    """
    log: list[Logged] = []
    for n in range(1, number + 1):
        log.append(_verified(store, coordinator, log[-1] if log else None, n))
    return tuple(log)


def read_up_to(store: ObjectStore, coordinator: str, head: LogHead, source: str) -> tuple[Logged, ...]:
    """The log that ends with `head`. Raises ChainError if the store's log does not contain it."""
    log = read_log(store, coordinator, head.number)
    if log[-1].digest != head.digest:
        raise ChainError(f"{source}: names another entry {head.number} of the federation log than the store has; there are "
                         "two logs. Stop, and compare 'fedround federation log' with other members")
    return log


def extend(store: ObjectStore, identity: Identity, federation: Federation, document: bytes) -> Logged:
    """Put `federation` into force, if it is not already; returns the log's last entry, which names the file that holds.

    document: the signed file, which this publishes first. A file that says the same stays in force, although a later version
    of fedround would write other bytes (a setting that is new, and has its default).
    Raises what `federation_log.changes` raises if the file may not follow the last one; nothing is written then.
    """
    number = length(store, identity.key)
    while True:
        log = read_log(store, identity.key, number)
        if log and log[-1].federation == federation:
            return log[-1]
        before = log[-1].federation if log else None
        entry = LogEntry(
            federation=federation.name, number=number + 1, previous=log[-1].digest if log else None,
            federation_digest=digest(document), changes=changes(before, federation, _handovers(store, before, federation)),
            tool_version=__version__)
        publish(store, layout.federation(digest(document)), document)
        put_first(store, layout.log_entry(number + 1), seal(entry, identity))
        number += 1                     # ours or another's: it is read next, whatever a list says


def read_rotation(store: ObjectStore, site: str, old: str, new: str) -> Signature:
    """What the site's old key left in the store for its new one.

    Raises NotFoundError if there is nothing, SignatureError, ContractError or TooLargeError if it is not by the old key.
    """
    def judge(document: bytes) -> Signature:
        said = unseal(document, Rotation, old, f"the old key of '{site}'")
        if (said.site, said.new) != (site, new):
            raise SignatureError(f"the old key of '{site}' names another key there")
        return envelope(document, "a rotation").signature

    return read_document(store, layout.rotation(site, new), judge)


def _verified(store: ObjectStore, coordinator: str, before: Logged | None, number: int) -> Logged:
    source = f"entry {number} of the federation log"
    entry, document = _entry(store, coordinator, number, source)
    federation = read_federation(store, entry.federation_digest, coordinator, f"federation file of {source}")
    check_continues(before, entry, federation, source)
    return Logged(entry, digest(document), federation)


def _entry(store: ObjectStore, coordinator: str, number: int, source: str) -> tuple[LogEntry, bytes]:
    try:
        return read_document(store, layout.log_entry(number), lambda document: (
            unseal(document, LogEntry, coordinator, source), document))
    except NotFoundError:
        raise ChainError(f"{source}: is not in the store") from None


def _is_entry(store: ObjectStore, coordinator: str, number: int) -> bool:
    """Whether the coordinator signed what lies in this place, for this place. False if nothing lies there."""
    def read() -> None:
        if _entry(store, coordinator, number, "")[0].number != number:
            raise ChainError("another entry was copied there")

    return is_ours(read)


def _handovers(store: ObjectStore, before: Federation | None, after: Federation) -> dict[str, Signature]:
    """The old keys' signatures for new keys, for the members whose key differs. They are not verified here."""
    old = {site.name: site.key for site in before.sites} if before is not None else {}
    found = {}
    for site in after.sites:
        if old.get(site.name, site.key) != site.key:
            try:
                found[site.key] = read_rotation(store, site.name, old[site.name], site.key)
            except (NotFoundError, SignatureError, ContractError, TooLargeError):
                continue
    return found
