"""SCAFFOLD's control variate of this site, c_i: computed from what was released, kept here, and never sent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedround import codec
from fedround.learning import control
from fedround.learning.spec import Scaffold
from site_workers import authorise, kept
from site_workers.authorise import Order
from site_workers.site import Site

Float32 = npt.NDArray[np.float32]


def shift(site: Site, order: Order) -> Float32 | None:
    """How the plan corrects gradients, c - c_i: c as the plan names it, c_i as of the site's last answer to an earlier round.

    None where the plan asks for another algorithm, or neither is there yet. Raises TrustError if the store holds another c,
    SetupError if the file of c_i is damaged.
    """
    if not isinstance(order.plan.training.algorithm, Scaffold):
        return None
    server = authorise.server_control(site, order)
    return control.shift(None if server is None else codec.flatten(server), kept.read(site.folder, order.plan, "control"))


def keep(site: Site, order: Order, shift_D: Float32 | None, sent_D: Float32) -> None:
    """Write c_i after this round, before the answer; does nothing under another algorithm. sent_D: what arrives."""
    plan = order.plan
    if isinstance(plan.training.algorithm, Scaffold):
        kept.write(site.folder, plan, "control", control.next_of_site(shift_D, sent_D, plan.training))
