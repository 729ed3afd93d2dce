"""How updates are made smaller before they leave: the values. In TOML: `compression = {name = "quantised", bits = 8}`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedround.values import Value

Share = Annotated[float, Field(gt=0, le=0.5)]


class Quantised(Value):
    """Every number becomes a whole number of steps, rounded up or down at random so that its mean is what it was (QSGD, with
    the largest number of a block as its scale: Alistarh et al. 2017, arXiv:1610.02132).

    It is unbiased, so the site keeps nothing back. What it adds to the variance is known, so a gate can still judge uploads.
    8 bits: 127 steps to either side, a quarter of the bytes; 4 bits: 7 steps, an eighth.
    """

    name: Literal["quantised"] = "quantised"
    bits: Literal[8, 4] = 8


class TopK(Value):
    """Only the `share` of numbers that are largest leaves, with their places; the rest waits at the site and is added to the
    next round's (Aji and Heafield 2017, arXiv:1704.05021; error feedback: Stich et al. 2018, arXiv:1809.07599).

    Twice `share` of the bytes. Over the rounds everything leaves, but late. What a site still keeps when a run ends never
    leaves. Where updates are mostly noise, what is large is noise. No law of the noise holds of what leaves, so no gate can
    judge it.
    """

    name: Literal["top_k"] = "top_k"
    share: Share


class CountSketch(Value):
    """A table of `rows` lines in which every number is added up, with a sign, at one place of each line; the coordinator
    reads the `share` of numbers that seem largest as the median of their places (Charikar et al. 2002; FetchSGD: Rothchild
    et al. 2020, arXiv:2007.07682). Read errors and the numbers left out wait at the site, as with `TopK`.

    size: numbers in the table, as a share of the model's. A number is misread by about the length of all others, divided by
    the square root of a line's places: this is good for few large numbers, and useless for many equal ones, where more and
    more waits. Here every site's table is read separately, because rules judge updates, not their sum. So `TopK` carries
    more in the same number of bytes, and is recommended.
    """

    name: Literal["count_sketch"] = "count_sketch"
    rows: Annotated[int, Field(ge=1, le=15)] = 5
    size: Share
    share: Share


Compression = Annotated[Quantised | TopK | CountSketch, Field(discriminator="name")]


def is_unbiased(how: Quantised | TopK | CountSketch | None) -> bool:
    """Whether the decoded update of each round is unbiased over the site's own draws: then nothing waits."""
    return how is None or isinstance(how, Quantised)
