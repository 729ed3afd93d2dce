"""Which ids two members have in common, by commutative blinding (Diffie-Hellman; Meadows 1986, Huberman et al. 1999).

Each has a secret number, a and b. Of every id it sends H(id)^a in the order of these values; the peer returns them, raised,
in the same order. Both then hold H(id)^ab of their own ids and of the peer's, and compare.

Promised, against a peer that keeps to the protocol and uses its own ids, in the random-oracle model under the decisional
Diffie-Hellman assumption on Curve25519 (Agrawal, Evfimievski and Srikant 2003, doi 10.1145/872757.872771, statement 3): each
learns the common ids and how many the other has, and nothing else. Whoever only sees what is sent learns the two numbers,
since each set is encrypted to the peer besides (`box`).
Not promised: anything against a peer that puts ids into its set that it only guesses; it learns which of them are there. A
policy's greatest number bounds how many it may try. That both learn the same: a peer may return what it likes.

H maps to the curve itself and never to its twist: a point's side stays what it is when it is raised, and would tell one bit
of each id. All points are u-coordinates of RFC 7748; its clamping makes every power one of the subgroup of prime order.

N ids here, M there.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fedround.errors import Cancelled, ContractError
from fedround.spoken import how_many

POINT_BYTES = 32
_DOMAIN = b"fedround/1/vertical/point"
_FIELD, _A = 2 ** 255 - 19, 486_662
_BITS = (1 << 255) - 1


def point(customer: str, link: bytes) -> bytes:
    """H(id): a point of the curve, for this exchange alone."""
    text, place = customer.encode(), 0
    while True:
        told = hashlib.sha256(_DOMAIN + link + struct.pack("<QI", len(text), place) + text).digest()
        u = int.from_bytes(told, "little") & _BITS
        if u < _FIELD and _is_on_curve(u):
            return u.to_bytes(POINT_BYTES, "little")
        place += 1


def _is_on_curve(u: int) -> bool:
    """Whether u³ + A u² + u is a square (RFC 7748); on the twist it is none. Zero is of order two, and none of ours."""
    return pow((u * u + _A * u + 1) * u % _FIELD, (_FIELD - 1) // 2, _FIELD) == 1


def raised(points: Iterable[bytes], key: X25519PrivateKey, whose: str,
           stop: Callable[[], bool] = lambda: False) -> list[bytes]:
    """Every point to the power of the secret number. Raises ContractError, naming the member, for one of small order, and
    Cancelled as soon as `stop` says so: they may be millions.
    """
    found = list[bytes]()
    try:
        for one in points:
            if stop():
                raise Cancelled(f"ids of '{whose}' were not blinded to the end; nothing of them was told")
            found.append(key.exchange(X25519PublicKey.from_public_bytes(one)))
    except ValueError:
        raise ContractError(f"'{whose}' sent a point of small order, which is no id's: ask what it runs") from None
    return found


def blinded(customers: Sequence[str], key: X25519PrivateKey, link: bytes, whose: str,
            stop: Callable[[], bool] = lambda: False) -> tuple[list[bytes], list[int]]:
    """H(id)^a of each id in ascending order, which depends on no row's place; and whose each of them is, by place. stop: as
    `raised`.
    """
    found = raised((point(one, link) for one in customers), key, whose, stop)
    order = sorted(range(len(found)), key=found.__getitem__)
    return [found[place] for place in order], order


def common(mine_N: Sequence[bytes], order_N: Sequence[int], theirs_M: Iterable[bytes]) -> tuple[list[int], bytes]:
    """The places of the common ids among one's own, in an order that both find and neither chose: of H(id)^ab. With it a
    digest of these values, by which both see whether they found the same.

    mine_N: the returned points; order_N: whose each is. theirs_M: the peer's points, raised.
    """
    known = set(theirs_M)
    found = sorted((double, order_N[place]) for place, double in enumerate(mine_N) if double in known)
    return [place for _, place in found], hashlib.sha256(b"".join(double for double, _ in found)).digest()


def written(points: Sequence[bytes]) -> bytes:
    """The one form of a list of points."""
    return b"".join(points)


def read(body: bytes, source: str, most: int | None = None) -> list[bytes]:
    """A list of points that all differ, ascending where `most` bounds it: as a set is sent. Raises ContractError."""
    if len(body) % POINT_BYTES or not body:
        raise ContractError(f"{source}: {len(body)} bytes are no list of points")
    found = [body[at:at + POINT_BYTES] for at in range(0, len(body), POINT_BYTES)]
    if len(set(found)) < len(found):
        raise ContractError(f"{source}: names an id twice")
    if most is not None and len(found) > most:
        raise ContractError(f"{source}: a set of {how_many(len(found), 'id')}, and at most {most} are allowed")
    return found
