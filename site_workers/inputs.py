"""All that a site works on in one round, read once: what the plan names, from the store, and what was kept here."""

from __future__ import annotations

from collections.abc import Callable

from fedround import codec, layout
from fedround.codec import Schema, Tensors
from fedround.files import make_folders, write_whole
from fedround.learning.foreign.site import Elsewhere
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.recipe import order_of, schemas
from fedround.learning.spec import Parts
from fedround.records import Plan, Train
from fedround.rounds.site import Inputs
from fedround.signing import digest
from infra.documents import read_named, read_tensors
from site_workers import kept
from site_workers.authorise import Order
from site_workers.foreign.host import trainer
from site_workers.rows import Rows
from site_workers.site import Site


def read(site: Site, order: Order, rows: Rows, cancelled: Callable[[], bool]) -> Inputs:
    """What the plan names and what this site keeps. cancelled: ends a foreign client.

    Raises TrustError if the store holds other bytes than the plan names, SetupError if a kept file is damaged.
    """
    plan = order.plan
    return Inputs(recipe=site.recipe, base=_named(site, plan, plan.base_model, "base model"),
                  begun=begun(site, plan.run, plan.rest, plan.agreed.parts),
                  served={blob.name: codec.flatten(_named(site, plan, blob.digest, f"'{blob.name}'"))
                          for blob in (plan.asks.state if isinstance(plan.asks, Train) else ())},
                  kept=kept.of_plan(site.safe, plan, _private(site, plan)),
                  train=rows.train, validation=rows.validation, column=rows.columns.__getitem__, device=site.settings.device,
                  elsewhere=_elsewhere(site, plan, cancelled))


def _elsewhere(site: Site, plan: Plan, cancelled: Callable[[], bool]) -> Elsewhere | None:
    """Where a foreign client trains; None: the recipe has none."""
    if site.recipe.foreign is None:
        return None
    seconds = min(plan.deadline_s, site.policy.limits.seconds)
    travels = {spec.name for spec in plan.tensors}
    return trainer(site, plan.round, tuple(name for name in order_of(site.recipe) if name in travels), cancelled, seconds)


def begun(site: Site, run: str, sha256: str | None, agreed: Parts) -> Rest:
    """The part of the run's model that does not travel, as it begins at every site: the file that `sha256` names.

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
    return read_tensors(site.store, sha256, plan.tensors, f"{what} of round {plan.round}", by="plan")


def _fetched_once(site: Site, sha256: str, schema: Schema, source: str) -> Tensors:
    """From the store, or from the copy here: this file may be far larger than all that travels."""
    path = site.folder / "kept" / f"{sha256}.safetensors"
    if path.exists():
        body = path.read_bytes()
        if digest(body) == sha256:
            return codec.decode(body, schema, source)
    body = read_named(site.store, layout.model(sha256), sha256, source, by="plan", max_bytes=codec.size_bytes(schema))
    tensors = codec.decode(body, schema, source)
    make_folders(path.parent, mode=0o700)
    write_whole(path, body, durable=False)      # a torn copy has another digest, and is fetched again
    return tensors
