"""A secret in shares, any `threshold` of which give it back, and fewer of which say nothing (Shamir 1979,
doi 10.1145/359168.359176): values of a random polynomial modulo a prime, of degree threshold - 1, that is the secret
at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

PRIME = 2 ** 256 - 189
SHARE_BYTES = 32


def share(secret: int, coefficients: Sequence[int], place: int) -> int:
    """The share at a place, 1 or more. coefficients: threshold - 1 of them, uniform and secret."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value + coefficient) * place % PRIME
    return (value + secret) % PRIME


def weights(places: Sequence[int]) -> list[int]:
    """By which the shares at these places, all different, are multiplied in the sum that is the secret."""
    found = []
    for place in places:
        over, under = 1, 1
        for other in places:
            if other != place:
                over, under = over * other % PRIME, under * (other - place) % PRIME
        found.append(over * pow(under, -1, PRIME) % PRIME)
    return found
