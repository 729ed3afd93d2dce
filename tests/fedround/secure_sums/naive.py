"""A second implementation of what a member sends, written from docs/secure-sums.md and the standards, with loops.

X25519 from RFC 7748, section 5; HKDF from RFC 5869; counter mode by hand from AES' block cipher. Slow, and only for tests.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

FIELD, PRIME = 2**255 - 19, 2**256 - 189
BASE = (9).to_bytes(32, "little")


def x25519(scalar: bytes, u: bytes) -> bytes:
    k = bytearray(scalar)
    k[0] &= 248
    k[31] = k[31] & 127 | 64
    number, x1 = int.from_bytes(k, "little"), int.from_bytes(u, "little") & 2**255 - 1
    x2, z2, x3, z3, swapped = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = number >> t & 1
        if swapped ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % FIELD, x1 * (da - cb) ** 2 % FIELD
        x2, z2 = aa * bb % FIELD, e * (aa + 121665 * e) % FIELD
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, FIELD - 2, FIELD) % FIELD).to_bytes(32, "little")


def part(data) -> bytes:
    body = data.encode() if isinstance(data, str) else struct.pack("<Q", data) if isinstance(data, int) else data
    return len(body).to_bytes(8, "little") + body


def hkdf(material: bytes, use: str, *parts, salt: bytes = bytes(32)) -> bytes:
    extracted = hmac.digest(salt, material, "sha256")
    return hmac.digest(extracted, b"fedround/1/secure sums/" + part(use) + b"".join(map(part, parts)) + b"\x01", "sha256")


def stream(key: bytes, count: int) -> list[int]:
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    made = b"".join(block.update(counter.to_bytes(16, "big")) for counter in range((count + 3) // 4))
    return list(struct.unpack(f"<{count}I", made[:4 * count]))


def scalar(secret: bytes, use: str, *parts) -> int:
    return int.from_bytes(hkdf(secret, use, *parts), "little") % PRIME


def slot_key(secret: bytes, epoch: bytes, slot: int) -> bytes:
    return scalar(secret, "slot key", epoch, slot).to_bytes(32, "little")


def keys(secret: bytes, epoch: bytes, slots: int) -> bytes:
    privates = [hkdf(secret, "channel", epoch)] + [slot_key(secret, epoch, slot) for slot in range(slots)]
    return b"fedround/1/secure-sums/keys\n" + b"".join(x25519(private, BASE) for private in privates)


def who(epoch: bytes, offered: dict[str, bytes]) -> bytes:
    said = part("roster") + part(epoch) + b"".join(part(name) + part(offered[name]) for name in sorted(offered))
    return hashlib.sha256(b"fedround/1/secure sums/" + said).digest()


def masked(numbers: list[int], secret: bytes, epoch: bytes, me: str, offered: dict[str, bytes], slot: int,
           context: bytes) -> list[int]:
    group, size = who(epoch, offered), len(numbers)
    seed = scalar(secret, "self seed", epoch, slot).to_bytes(32, "little")
    pads = [(1, hkdf(seed, "self mask", group, slot, me, salt=context))]
    for other in offered:
        if other != me:
            at = len(b"fedround/1/secure-sums/keys\n") + 32 * (1 + slot)
            known = x25519(slot_key(secret, epoch, slot), offered[other][at:at + 32])
            pads.append((1 if me < other else -1, hkdf(known, "pair mask", group, slot, *sorted((me, other)), salt=context)))
    streams = [(sign, stream(key, size)) for sign, key in pads]
    return [(number + sum(sign * pad[i] for sign, pad in streams)) % 2**32 for i, number in enumerate(numbers)]


def shared(secret: int, threshold: int, places: list[int], random) -> dict[int, int]:
    """Shares by Horner's rule from another source of randomness."""
    polynomial = [secret] + [random.randrange(PRIME) for _ in range(threshold - 1)]
    return {place: sum(c * pow(place, power, PRIME) for power, c in enumerate(polynomial)) % PRIME for place in places}


def bonawitz(numbers: dict[str, list[int]], secrets: dict[str, bytes], survivors: list[str], threshold: int, epoch: bytes,
             context: bytes, random) -> list[int]:
    """The whole protocol in one process, from the paper: the sum over the survivors, with keys rebuilt from shares."""
    offered = {name: keys(secret, epoch, 1) for name, secret in secrets.items()}
    group, size, names = who(epoch, offered), len(next(iter(numbers.values()))), sorted(secrets)
    total = [sum(column) % 2**32 for column in zip(*(
        masked(numbers[name], secrets[name], epoch, name, offered, 0, context) for name in survivors), strict=True)]

    def rebuilt(value: int) -> bytes:
        shares = shared(value, threshold, [names.index(name) + 1 for name in survivors][:threshold], random)
        found = 0
        for i, y in shares.items():
            term = y
            for j in shares:
                term = term if i == j else term * j * pow(j - i, -1, PRIME) % PRIME
            found += term
        return (found % PRIME).to_bytes(32, "little")

    for name in names:
        if name in survivors:
            key = hkdf(rebuilt(scalar(secrets[name], "self seed", epoch, 0)), "self mask", group, 0, name, salt=context)
            total = [(a - b) % 2**32 for a, b in zip(total, stream(key, size), strict=True)]
        else:
            private = rebuilt(scalar(secrets[name], "slot key", epoch, 0))
            for other in survivors:
                key = hkdf(x25519(private, offered[other][-32:]), "pair mask", group, 0, *sorted((name, other)), salt=context)
                sign = 1 if other < name else -1
                total = [(a - sign * b) % 2**32 for a, b in zip(total, stream(key, size), strict=True)]
    return total
