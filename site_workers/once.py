"""What a site does once ever for secure sums, and remembers: whom it dealt to, what a slot is used for, what it revealed.

::

    sums/<epoch>/shares          the plan for which it dealt shares of this epoch's secrets
    sums/<epoch>/dealt           the finding that says who dealt: the epoch's roster
    sums/<epoch>/<slot>-plan     the plan whose answer the slot masks
    sums/<epoch>/<slot>-masked   the digest of what the slot has masked: other rows, or a library that rounds otherwise, would
                                 make other numbers for the same plan
    sums/<epoch>/<slot>-signed   the plan in answer to which it signed whose numbers are in the slot's sum
    sums/<epoch>/<slot>-reveal   the plan for which it revealed shares of the slot
    sums/<epoch>/closed          the folder was recovered: what it revealed is not known any more

Each file is on the disk, with its name, before anything that rests on it is made, and never changes. Whoever could make a
site do one of these twice could read one member's numbers, or leave members out of a sum.
"""

from __future__ import annotations

from pathlib import Path

from fedround.errors import SetupError, TrustError
from fedround.files import create_once, make_folders
from fedround.values import Digest

SHARES, DEALT, _CLOSED = "shares", "dealt", "closed"


def plan_of(slot: int) -> str:
    """What a slot is used for."""
    return f"{slot:04d}-plan"


def masked_by(slot: int) -> str:
    """What it has masked."""
    return f"{slot:04d}-masked"


def signed_by(slot: int) -> str:
    """In answer to what it was signed who is in its sum."""
    return f"{slot:04d}-signed"


def reveal_of(slot: int) -> str:
    """For what shares of it were revealed."""
    return f"{slot:04d}-reveal"


def promise(folder: Path, epoch: Digest, what: str, named: Digest, source: str) -> None:
    """From now on `what` is `named`, for ever. Raises TrustError if it is something else already: nothing is done then."""
    place = folder / "sums" / epoch / what
    try:
        make_folders(place.parent, mode=0o700)
        if create_once(place, named.encode()):
            return
        known = place.read_text()
    except OSError as error:
        raise SetupError(f"{place}: it cannot be kept for what these keys are used ({error.strerror}), so they are not used; "
                         "make room, or mend the folder's permissions") from None
    if known != named:
        raise TrustError(f"{source}: this site has used these keys for something else, {known[:16]}, and never uses them "
                         "twice. The coordinator has asked two things for one: ask it, and compare 'fedround verify'")


def is_kept(folder: Path, epoch: Digest, what: str) -> bool:
    """Whether this has been promised."""
    return (folder / "sums" / epoch / what).exists()


def close(folder: Path, epoch: Digest) -> None:
    """Never use this epoch's keys again."""
    promise(folder, epoch, _CLOSED, epoch, "recovered folder")


def is_closed(folder: Path, epoch: Digest) -> bool:
    """Whether the folder has been recovered since."""
    return is_kept(folder, epoch, _CLOSED)
