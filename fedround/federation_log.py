"""The federation log: which sites were members, with which key, under which agreement, and since when. It is hash-chained
and signed.

Entry n names the digest of entry n - 1 and of the federation file that holds from there on, and says what that file changes.
The file before it determines what a file may change (`changes`), so any reader of both can check it. Plans name the log's
head: it is the federation's clock. A key is valid for an answer to a plan if the file at the plan's head gives it to the
site. Later enrolments, rotations and revocations do not change that.

A member's key changes in two ways: the old key signs for the new one (`Rotated`), or the old key is revoked and the site
is enrolled anew. A key that was revoked stays revoked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from fedround.errors import ChainError, TrustError
from fedround.federation import Federation
from fedround.records import LogHead
from fedround.signing import is_signed
from fedround.spoken import how_many
from fedround.values import MAX_NUMBER, Digest, Name, PublicKey, Rows, Signature, Signed, ToolVersion, Value, Weight


class LogBegun(Value):
    """The federation begins; every member is enrolled by the same entry."""

    kind: Literal["begin"] = "begin"
    coordinator: PublicKey


class SettingsChanged(Value):
    """Something that every round asks for has changed; the two files say how."""

    kind: Literal["settings"] = "settings"
    keys: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")], ...]


class Enrolled(Value):
    """A site is a member from here on."""

    kind: Literal["enrol"] = "enrol"
    site: Name
    key: PublicKey
    weight: Weight
    rows: Rows | None = None
    """The agreed number of training rows, if there is one."""


class Reweighed(Value):
    """A member counts for more or less than before."""

    kind: Literal["weight"] = "weight"
    site: Name
    weight: Weight


class Resized(Value):
    """Another number of training rows is agreed with a member, or none any more."""

    kind: Literal["rows"] = "rows"
    site: Name
    rows: Rows | None


class Departed(Value):
    """A site is no member any more. It may come back, with the same key."""

    kind: Literal["leave"] = "leave"
    site: Name
    key: PublicKey


class Rotation(Signed):
    """What a site's old key signs to hand over to a new one."""

    kind: ClassVar[str] = "rotation"

    federation: Name
    site: Name
    old: PublicKey
    new: PublicKey


class Rotated(Value):
    """A member signs with another key from here on. Its old key signed this change."""

    kind: Literal["rotate"] = "rotate"
    site: Name
    old: PublicKey
    new: PublicKey
    signature: Signature
    """By the old key, of the `Rotation`."""


class Revoked(Value):
    """A key is invalid from here on, for ever. Rounds before this entry still verify."""

    kind: Literal["revoke"] = "revoke"
    site: Name
    key: PublicKey


Change = Annotated[LogBegun | SettingsChanged | Enrolled | Reweighed | Resized | Departed | Rotated | Revoked,
                   Field(discriminator="kind")]


class LogEntry(Signed):
    """One line of the log, signed by the coordinator."""

    kind: ClassVar[str] = "log-entry"

    federation: Name
    number: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    previous: Digest | None
    federation_digest: Digest
    """The federation file that holds from here on."""
    changes: Annotated[tuple[Change, ...], Field(min_length=1)]
    tool_version: ToolVersion


@dataclass(frozen=True)
class Logged:
    """An entry that was verified, its digest, and the federation file that it names."""

    entry: LogEntry
    digest: str
    federation: Federation

    @property
    def head(self) -> LogHead:
        """Names the log up to here."""
        return LogHead(number=self.entry.number, digest=self.digest)


def changes(before: Federation | None, after: Federation, rotations: Mapping[str, Signature]) -> tuple[Change, ...]:
    """What the file `after` changes in `before` (None: the log begins), in a fixed order; empty if nothing.

    rotations: by new key, what the old key signed.
    Raises ChainError for changes that no file may make: the federation's name or coordinator, or what was revoked;
    TrustError for a member's key that changed without the old key's signature.
    """
    if before is None:
        return (LogBegun(coordinator=after.coordinator), *(
            Enrolled(site=site.name, key=site.key, weight=site.weight, rows=site.rows) for site in after.sites))
    if (before.name, before.coordinator) != (after.name, after.coordinator):
        raise ChainError(f"federation '{before.name}': its name and its coordinator's key never change; begin a new "
                         "federation, with a store of its own")
    if not set(before.revoked) <= set(after.revoked):
        raise ChainError(f"federation '{before.name}': a key that was revoked stays in 'revoked'; put it back")
    keys = tuple(sorted(name for name in Federation.model_fields if name not in ("sites", "revoked")
                        and getattr(before, name) != getattr(after, name)))
    old = {site.name: site for site in before.sites}
    new = {site.name: site for site in after.sites}
    owner = {site.key: site.name for site in before.sites}
    found: list[Change] = [SettingsChanged(keys=keys)] if keys else []
    found += [Revoked(site=owner.get(key, "nobody"), key=key) for key in after.revoked if key not in before.revoked]
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            if old[name].key not in after.revoked:
                found.append(Departed(site=name, key=old[name].key))
        elif name not in old or old[name].key in after.revoked:
            found.append(Enrolled(site=name, key=new[name].key, weight=new[name].weight, rows=new[name].rows))
        else:
            if old[name].key != new[name].key:
                found.append(_rotated(before.name, name, old[name].key, new[name].key, rotations))
            if old[name].weight != new[name].weight:
                found.append(Reweighed(site=name, weight=new[name].weight))
            if old[name].rows != new[name].rows:
                found.append(Resized(site=name, rows=new[name].rows))
    return tuple(found)


def _rotated(federation: str, site: str, old: str, new: str, rotations: Mapping[str, Signature]) -> Rotated:
    signature = rotations.get(new)
    said = Rotation(federation=federation, site=site, old=old, new=new)
    if signature is None or not is_signed(said, old, signature):
        raise TrustError(f"federation '{federation}': the key of '{site}' changed and its old key did not sign for that. The "
                         "site runs 'fedround site rotate'; if its old key is lost or stolen: 'fedround federation revoke', "
                         "then 'fedround federation add'")
    return Rotated(site=site, old=old, new=new, signature=signature)


def check_continues(log: Logged | None, entry: LogEntry, federation: Federation, source: str) -> None:
    """Whether `entry`, with the file that it names, may follow `log`. Raises ChainError or TrustError that says why not."""
    number, previous = (1, None) if log is None else (log.entry.number + 1, log.digest)
    if (entry.number, entry.previous, entry.federation) != (number, previous, federation.name):
        raise ChainError(f"{source}: does not continue entry {number - 1}")
    rotations = {change.new: change.signature for change in entry.changes if isinstance(change, Rotated)}
    before = None if log is None else log.federation
    if entry.changes != changes(before, federation, rotations):
        raise ChainError(f"{source}: the federation file that it names changes something else than the entry says")


def handed_over(log: Sequence[Logged], key: str) -> tuple[str, ...]:
    """The earlier keys in the chain of rotations that leads to `key`, the newest first."""
    return _chain({change.new: change.old for change in _rotations(log)}, key)


def took_over(log: Sequence[Logged], key: str) -> tuple[str, ...]:
    """The later keys in the chain of rotations that begins with `key`, the oldest first."""
    return _chain({change.old: change.new for change in _rotations(log)}, key)


def _rotations(log: Sequence[Logged]) -> list[Rotated]:
    return [change for logged in log for change in logged.entry.changes if isinstance(change, Rotated)]


def _chain(following: dict[str, str], key: str) -> tuple[str, ...]:
    found: list[str] = []
    while key in following:
        key = following.pop(key)
        found.append(key)
    return tuple(found)


def in_words(change: Change) -> str:
    """A change as one line for people."""
    match change:
        case LogBegun():
            words = "the federation begins"
        case SettingsChanged():
            words = f"settings changed: {', '.join(change.keys)}"
        case Enrolled():
            rows = "" if change.rows is None else f", for {how_many(change.rows, 'row')}"
            words = f"'{change.site}' is enrolled with key {_short(change.key)} and weight {change.weight:g}{rows}"
        case Reweighed():
            words = f"'{change.site}' has weight {change.weight:g}"
        case Resized():
            agreed = "no agreed number of rows" if change.rows is None else how_many(change.rows, "row")
            words = f"'{change.site}' has {agreed}"
        case Departed():
            words = f"'{change.site}' leaves (key {_short(change.key)})"
        case Rotated():
            words = f"'{change.site}' rotates its key to {_short(change.new)}, as its old one {_short(change.old)} says"
        case Revoked():
            words = f"key {_short(change.key)} of '{change.site}' is revoked"
    return words


def _short(key: str) -> str:
    return key[:24] + "…"
