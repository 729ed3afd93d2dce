"""What a site has said to a plan, as it lies in the store: its answer, or else its last refusal."""

from __future__ import annotations

from fedround import layout
from fedround.errors import NotFoundError
from fedround.records import Plan
from fedround.signing import MAX_DOCUMENT_BYTES
from fedround.values import Purpose
from infra.stores import ObjectStore

_MOST_REFUSALS = 100
"""How many refusals of one plan are looked at. A site writes one each time that it is asked again."""

Asked = tuple[str, str, int, int, Purpose]
"""Site, run, round, attempt and purpose, as a store key names them."""


def said_by(store: ObjectStore, plan: Plan, site: str) -> tuple[str, bytes] | None:
    """The key and the document of the site's answer; if it gave none, of its last refusal. None: it has said nothing."""
    where = site, plan.run, plan.round, plan.attempt, plan.asks.kind
    try:
        return (key := layout.answer(*where)), store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
    except NotFoundError:
        if (count := _refusals(store, where)) == 0:
            return None
        return (key := layout.refusal(*where, count)), store.get(key, max_bytes=MAX_DOCUMENT_BYTES)


def _refusals(store: ObjectStore, where: Asked) -> int:
    """How many refusals lie there, counted from the first.

    They are asked for one by one. So nothing else that the site has put there is looked at, however much there is.
    """
    count = 0
    while count < _MOST_REFUSALS and store.head(layout.refusal(*where, count + 1)) is not None:
        count += 1
    return count
