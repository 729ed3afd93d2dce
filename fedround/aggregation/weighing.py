"""What the sites' weights follow instead of staying as agreed, as values. `fairness` computes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedround.values import Value

Cap = Annotated[float, Field(gt=1, le=100, description="how far a weight may leave the agreed one, as a ratio")]


class QFair(Value):
    """q-FFL: a site counts its agreed weight times (its loss / the median loss)^q (Li et al. 2020, arXiv:1905.10497).

    The model is fitted more to sites that it fits badly. Here the losses change only the weights. The rule and the server's
    optimizer decide how long the step is. Losses are read in the noised counts of scores that sites send anyway, so they
    cost no privacy. A site can lie about its loss: it then counts at most `cap` times what was agreed. A minority of liars
    cannot control the median.
    """

    name: Literal["q_ffl"] = "q_ffl"
    q: Annotated[float, Field(gt=0, le=10)]
    cap: Cap


class Agnostic(Value):
    """Agnostic federated learning: weights climb along the sites' losses, round after round, to the mixture of sites that the
    model fits worst (Mohri et al. 2019, arXiv:1902.00146), among the mixtures in which no site counts more than `cap` times,
    or less than 1/cap of, what was agreed.

    rate: how far a share of the whole moves for a loss of 1. What holds for `QFair`'s losses and liars holds here.
    """

    name: Literal["afl"] = "afl"
    rate: Annotated[float, Field(gt=0, le=10)]
    cap: Cap


class Quality(Value):
    """The other way round: a site counts its agreed weight times (the median loss / its loss)^q, at least 1/cap of what was
    agreed and never more than that.

    A site whose rows the model fits badly, because its labels are wrong, say, counts less. What is told of a loss can only
    lower a weight, so a liar gains nothing by it; nor does it take anything from others, because a minority does not move the
    median. An honest site with unusual rows counts less, too: what `QFair` is against.
    """

    name: Literal["quality"] = "quality"
    q: Annotated[float, Field(gt=0, le=10)]
    cap: Cap


Fairness = Annotated[QFair | Agnostic | Quality, Field(discriminator="name")]
