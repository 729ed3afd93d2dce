"""What the model has at this site besides what travels: frozen tensors, fetched once, and the private part, which stays."""

from __future__ import annotations

import hashlib

from fedround import codec, layout
from fedround.codec import Tensors
from fedround.files import write_whole
from fedround.learning.parts import NO_REST, Rest, Schemas, schemas
from fedround.learning.spec import Parts
from fedround.types import Purpose
from infra.history import read_named
from site_workers import kept
from site_workers.authorise import Order
from site_workers.site import Site


def rest(site: Site, order: Order) -> Rest:
    """What the plan's base model has besides what travels: see `rest_of`."""
    plan = order.plan
    return rest_of(site, plan.run, plan.rest, plan.parts, before=plan.round + (plan.purpose is Purpose.EVALUATE))


def rest_of(site: Site, run: str, sha256: str | None, agreed: Parts, before: int) -> Rest:
    """The rest of the run's model that `sha256` names, with the private part as of the site's last answer to a round earlier
    than `before`, or as it begins.

    Raises TrustError if the store holds another rest, SetupError if the kept file is damaged.
    """
    if sha256 is None:
        return NO_REST
    found = schemas(site.recipe, agreed)
    began = found.rest_of(_fetched(site, sha256, found, f"rest of the model of run '{run}'"))
    private = kept.newest(site.folder, run, before, "private", found.private) if found.private else None
    return began if private is None else Rest(private, began.frozen)


def keep(site: Site, order: Order, private: Tensors) -> None:
    """Write the private part after this round, before the answer; does nothing where there is none."""
    if private:
        kept.write_tensors(site.folder, order.plan, "private", private)


def depends_on(rest: Rest) -> tuple[bytes, ...]:
    """What noise must depend on, because a release does: the private part. Frozen tensors are named by the plan."""
    return (hashlib.sha256(codec.encode(rest.private)).digest(),) if rest.private else ()


def _fetched(site: Site, sha256: str, found: Schemas, source: str) -> Tensors:
    """From the store, or from the copy here: the file may be far larger than all that travels."""
    path = site.folder / "kept" / f"{sha256}.safetensors"
    if path.exists():
        body = path.read_bytes()
        if hashlib.sha256(body).hexdigest() == sha256:
            return codec.decode(body, found.rest, source)
    body = read_named(site.store, layout.model(sha256), sha256, source, by="plan", max_bytes=codec.size_bytes(found.rest))
    tensors = codec.decode(body, found.rest, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, body, durable=False)      # a torn copy has another digest, and is fetched again
    return tensors
