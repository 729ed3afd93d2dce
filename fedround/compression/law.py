"""What compression does to the law of an upload's noise."""

from __future__ import annotations

from fedround.aggregation.noise_law import NoiseLaw, with_rounding
from fedround.compression import quantised, wire
from fedround.compression.spec import Compression, Quantised
from fedround.errors import ContractError


def law_of_what_arrives(how: Compression, law: NoiseLaw | None, read: wire.Read, size: int, source: str, *,
                        is_judged: bool) -> NoiseLaw | None:
    """Quantisation adds to the variance. A compression that leaves numbers out has no known law.

    read: the compressed file's data. is_judged: whether a gate needs the law; raises ContractError, naming `source`, if it
    does and the law cannot be told.
    """
    if law is None or not isinstance(how, Quantised):
        return None
    variance, longest = quantised.rounding(quantised.scales(read, size), how, size)
    rounded = with_rounding(law, variance, longest)
    if rounded is None and is_judged:
        raise ContractError(f"{source}: its steps of {longest:.3g} are too long for noise of {law.std:.3g} to blur, so "
                            "the gate cannot judge it: agree on 8 bits, on more noise, or on an aggregation without a gate")
    return rounded
