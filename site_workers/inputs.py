"""All that a site works on in one round, read once: what the plan names, from the store, and what was kept here."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fedround import codec, layout
from fedround.codec import Schema, Tensors
from fedround.errors import TrustError
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.recipe import schemas
from fedround.learning.spec import Parts
from fedround.records import Plan, Train
from fedround.rounds.site import Inputs
from fedround.signing import digest
from site_workers import kept
from site_workers.authorise import Order
from site_workers.rows import Rows
from site_workers.site import Site


def read(site: Site, order: Order, rows: Rows) -> Inputs:
    """What the plan names and what this site keeps.

    Raises TrustError if the store holds other bytes than the plan names, SetupError if a kept file is damaged.
    """
    plan = order.plan
    return Inputs(recipe=site.recipe, base=_named(site, plan, plan.base_model, "base model"),
                  begun=begun(site, plan.run, plan.rest, plan.agreed.parts),
                  served={blob.name: codec.flatten(_named(site, plan, blob.digest, f"'{blob.name}'"))
                          for blob in (plan.asks.state if isinstance(plan.asks, Train) else ())},
                  kept=kept.of_plan(site.folder, plan, _private(site, plan)),
                  train=rows.train, validation=rows.validation, column=rows.column)


def begun(site: Site, run: str, sha256: str | None, agreed: Parts) -> Rest:
    """What the run's model has besides what travels, as it begins at every site: the file that `sha256` names.

    Raises TrustError if the store holds another.
    """
    if sha256 is None:
        return NO_REST
    found = schemas(site.recipe, agreed)
    return found.rest_of(_fetched_once(site, sha256, found.rest, f"rest of the model of run '{run}'"))


def _private(site: Site, plan: Plan) -> Schema:
    return () if plan.rest is None else schemas(site.recipe, plan.agreed.parts).private


def _named(site: Site, plan: Plan, sha256: str, what: str) -> Tensors:
    """Tensors like the model's, checked against the digest that the plan names them by."""
    source = f"{what} of round {plan.round}"
    return codec.decode(_fetched(site, sha256, plan.tensors, source), plan.tensors, source)


def _fetched(site: Site, sha256: str, schema: Schema, source: str) -> bytes:
    body = site.store.get(layout.model(sha256), max_bytes=codec.size_bytes(schema))
    if digest(body) != sha256:
        raise TrustError(f"{source}: the stored bytes are not those that the plan names")
    return body


def _fetched_once(site: Site, sha256: str, schema: Schema, source: str) -> Tensors:
    """From the store, or from the copy here: the file may be far larger than all that travels."""
    path = site.folder / "kept" / f"{sha256}.safetensors"
    if path.exists():
        body = path.read_bytes()
        if hashlib.sha256(body).hexdigest() == sha256:
            return codec.decode(body, schema, source)
    body = _fetched(site, sha256, schema, source)
    tensors = codec.decode(body, schema, source)
    _copy(body, path)
    return tensors


def _copy(body: bytes, path: Path) -> None:
    """A half-written copy has another digest, and is fetched again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(body)
    temporary.replace(path)
