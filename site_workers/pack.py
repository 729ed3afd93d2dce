"""From a delta that may leave to the bytes that do, by the plan's compression; what that leaves over waits here."""

from __future__ import annotations

from fedround import codec
from fedround.codec import Tensors
from fedround.compression import wire
from fedround.compression.spec import is_unbiased
from fedround.privacy.noise import stream
from site_workers import kept
from site_workers.authorise import Order
from site_workers.rows import Rows
from site_workers.site import Site


def pack(site: Site, order: Order, delta: Tensors, rows: Rows) -> tuple[bytes, Tensors]:
    """The payload, and the delta that arrives with it.

    Under a compression that keeps numbers back they are added to the next round's delta of the run (error feedback): over
    the rounds, what arrives and what waits are together what was computed. It is noised before it comes here, so nothing of
    this costs privacy. Everything repeats: the residual is that of the last answer, the draws are the site's own stream's.
    """
    plan = order.plan
    if plan.compression is None:
        return codec.encode(delta), delta
    waiting_D = None if is_unbiased(plan.compression) else kept.read(site.folder, plan, "residual")
    vector_D = codec.flatten(delta) if waiting_D is None else codec.flatten(delta) + waiting_D
    draws, seed = stream(site.noise_secret, order.digest.encode(), rows.digest, b"compression"), bytes.fromhex(order.digest)
    payload = wire.compress(vector_D, plan.compression, draws.random, seed)
    arrives_D = wire.expanded(payload, plan.compression, len(vector_D), seed)
    if not is_unbiased(plan.compression):
        kept.write(site.folder, plan, "residual", vector_D - arrives_D)
    return payload, codec.unflatten(arrives_D, plan.tensors)
