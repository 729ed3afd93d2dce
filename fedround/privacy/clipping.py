"""Where the clip norm goes next, when it follows a quantile (Andrew et al. 2021, arXiv:1905.03871).

The shares are noised at the sites and already charged, so using them costs nothing more. The clip norm is the same for all
sites and stands in the plan: updates stay comparable, the coordinator's gate knows how long an honest one can be, and a site
keeps no state. The median of the sites' shares is taken. So if fewer than half of the sites lie, they cannot move it beyond
the honest shares. This is not used for the unit `site`: there a site has one vote in each round, and its own noise would
hide it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from fedround.privacy.spec import AdaptiveClipping, GradientPrivacy, Privacy

SMALLEST, LARGEST = 1e-6, 1000.0


def next_clip_norm(clip_norm: float, shares: Sequence[float], adaptive: AdaptiveClipping) -> float:
    """The next round's clip norm, to six digits; the same as before if nobody told a share.

    shares: of each site, the noised share of gradients that were within `clip_norm`.
    It moves by a factor of exp(adaptive.learning_rate) at most, and stays within [SMALLEST, LARGEST].
    """
    if not shares:
        return clip_norm
    share = min(max(statistics.median(shares), 0.0), 1.0)
    moved = clip_norm * math.exp(-adaptive.learning_rate * (share - adaptive.quantile))
    return float(f"{min(max(moved, SMALLEST), LARGEST):.6g}")


def next_privacy(agreed: Privacy, last: Privacy, shares: Sequence[float]) -> Privacy:
    """The privacy settings of the next round, after a round with the settings `last` whose used sites reported `shares`.

    If the clip norm follows the gradients, it is the next one. If `agreed` differs from `last` in anything but the clip norm,
    it starts again with its own clip norm.
    """
    if not isinstance(agreed, GradientPrivacy) or agreed.adaptive is None or not isinstance(last, GradientPrivacy):
        return agreed
    if last.model_copy(update={"clip_norm": agreed.clip_norm}) != agreed:
        return agreed
    return agreed.model_copy(update={"clip_norm": next_clip_norm(last.clip_norm, shares, agreed.adaptive)})
