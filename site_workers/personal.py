"""The site's personal model (`Ditto`): goes on from round to round beside the shared one, and stays here."""

from __future__ import annotations

from fedround import codec
from fedround.codec import Tensors
from fedround.learning.parts import Rest
from site_workers import kept, learn
from site_workers.authorise import Order
from site_workers.limits import Guard
from site_workers.rows import Rows
from site_workers.site import Site


def keep(site: Site, order: Order, base: Tensors, rows: Rows, rest: Rest, guard: Guard) -> None:
    """Train the personal model for a round and write it, before the answer; does nothing where none is agreed.

    It begins at the shared model. Where the time for the plan is nearly over it does fewer steps. Raises Cancelled.
    """
    plan = order.plan
    if plan.personal is None:
        return
    kept_D = kept.read(site.folder, plan, "personal")
    model = base if kept_D is None else codec.unflatten(kept_D, plan.tensors)
    kept.write_tensors(site.folder, plan, "personal", learn.personal(site, order, model, base, rows, rest, guard))
