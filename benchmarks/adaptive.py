"""Attacks of our own that know the defence: each tries several answers on the coordinator's own code and sends the worst.

All push against the direction in which the honest sites learnt, before noise: the noise of others is no use to a liar, and
pushing against it (as attacks on the honest mean do) wastes almost all of the push.

`quiet_push` is made against gate >> nearest-neighbour mixing >> trimmed mean. Liars stay within every bound of the gate,
and short: then they lie nearer to the honest rows than those do to each other, and mixing takes them in.
`short_sighted` is the same, against the direction that the liars themselves learnt instead of the honest sites.
`magnet` may also read the honest rows before it answers, which nobody can who has no access to the store: liars lean
towards the noise of all honest rows, as far as the gate allows, and so are everybody's neighbours.
`framing` leans towards the noise of a few honest rows beyond the bound, so that leaving out those honest rows explains all
conflicts as well as leaving out the liars.
`near_the_floor` is made against the spectral filter: the liars' common part gives an eigenvalue about as large as the
largest one of honest noise, so that the filter thins out honest rows as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from benchmarks.attacks import Attack, Floats, View, direction, largest_product, own_directions
from fedround.aggregation.gate import norm_bounds

SIGMAS = 4.0        # the gate's own
MARGIN = 0.98       # of each bound: lies keep off the edge
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.9)
LEANS = (0.05, 0.15, 0.3, 0.8)


def quiet_push(view: View) -> Floats:
    """A common push within the gate's pair bound, and as little noise as its norm bound asks for, or as honest rows have."""
    bound = MARGIN * largest_product(view, SIGMAS)
    own_LD = own_directions(view)
    return _worst(view, (_filled(view, _push(view, share * bound), own_LD, length)
                         for share in SHARES for length in _lengths(view)))


def short_sighted(view: View) -> Floats:
    """`quiet_push` by liars who know no more of where to go than what their own rows teach them."""
    return quiet_push(replace(view, learnt_D=view.own_D))


def magnet(view: View) -> Floats:
    """`quiet_push` that also leans towards the noise of every honest row."""
    bound = MARGIN * largest_product(view, SIGMAS)
    own_LD = own_directions(view)
    noise_D = _noise(view).sum(axis=0) / max(view.noise_energy, 1e-12)
    return _worst(view, (_filled(view, _push(view, share * bound) + lean * bound * noise_D, own_LD, _lengths(view)[0])
                         for share in SHARES for lean in LEANS))


def framing(view: View) -> Floats:
    """`quiet_push` that is in conflict with as many honest rows as there are liars, or fewer."""
    bound = largest_product(view, SIGMAS)
    own_LD, length = own_directions(view), _lengths(view)[0]
    accusation_HD = 1.3 * bound * _noise(view) / max(view.noise_energy, 1e-12)
    push_D = _push(view, 0.4 * bound)
    return _worst(view, (_filled(view, push_D + accusation_HD[:framed].sum(axis=0), own_LD, length)
                         for framed in range(1, view.liars + 1)))


def near_the_floor(view: View) -> Floats:
    """A common push, and own noise, whose eigenvalue is half to twice the largest one of the honest rows."""
    centred_HD = view.honest_HD - view.honest_mean_D
    floor = float(np.linalg.eigvalsh(centred_HD @ centred_HD.T)[-1])
    own_LD = own_directions(view)
    mean_D = view.honest_mean_D
    along = float(mean_D @ direction(view.learnt_D))
    # L liars whose mean is d away from that of the H honest rows give an eigenvalue of d^2 L H / (L + H).
    farthest = floor * view.sites / (view.liars * len(view.honest_HD))

    def push(share: float) -> Floats:
        """As long as its end is so much of the way from the honest mean."""
        return _push(view, max(0.0, np.sqrt(max(0.0, along**2 - mean_D @ mean_D + share * farthest)) - along) ** 2)

    return _worst(view, (push(share) + np.sqrt(max(0.0, 1 - share) * floor) * own_LD for share in (0.5, 0.8, 1.0, 1.3, 1.7)))


ADAPTIVE: dict[str, Attack] = {"quiet_push": quiet_push, "short_sighted": short_sighted, "magnet": magnet,
                               "framing": framing, "near_the_floor": near_the_floor}


def _worst(view: View, answers: Iterable[Floats]) -> Floats:
    """The answer after which the coordinator moves least in the direction that was learnt, or farthest against it."""
    learnt_D = view.learnt_D
    return min(answers, key=lambda rows_LD: float(view.server(np.vstack([rows_LD, view.honest_HD])) @ learnt_D))


def _push(view: View, energy: float) -> Floats:
    """(D,), `energy` is the squared norm."""
    return -np.sqrt(energy) * direction(view.learnt_D)


def _lengths(view: View) -> tuple[float, ...]:
    """The shortest row that the gate lets through, and an honest one."""
    if view.law is None:
        return (view.clip_norm,)
    shortest, _ = norm_bounds(view.law, view.coordinates, SIGMAS)
    return shortest / MARGIN, float(np.sqrt(view.noise_energy + view.clip_norm**2 / 2))


def _filled(view: View, common_D: Floats, own_LD: Floats, length: float) -> Floats:
    """Rows with a common part, and as much of their own as makes them `length` long."""
    own = max(0.0, length**2 - float(common_D @ common_D))
    return common_D + np.sqrt(own) * own_LD


def _noise(view: View) -> Floats:
    """The honest rows without their part along what was learnt: almost all of it is noise."""
    learnt_D = direction(view.learnt_D)
    return view.honest_HD - np.outer(view.honest_HD @ learnt_D, learnt_D)
