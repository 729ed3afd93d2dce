"""What of an agreement does not go with a foreign client, in words."""

from __future__ import annotations

from fedround.aggregation.spec import Aggregation
from fedround.learning.algorithms import Ditto
from fedround.learning.spec import Parts
from fedround.privacy.spec import NoPrivacy, Privacy, SitePrivacy


def objection_to_foreign(privacy: Privacy, how: Aggregation, parts: Parts, personal: Ditto | None) -> str | None:
    """Why the rest of an agreement does not go with a foreign client; None if it does."""
    objections = {
        "nobody sees the gradients of its rows, so it can protect no single record: agree on the unit 'site', or on 'none'":
            not isinstance(privacy, SitePrivacy | NoPrivacy),
        f"{how.rule.name} compares updates with one that the coordinator trains, and the client's code is at the sites: "
        "agree on another rule": how.rule.needs_root,
        "it trains all of the model, and nothing of its own: leave [parts] and [personal] out":
            parts != Parts() or personal is not None,
    }
    return next((f"foreign: {words}" for words, holds in objections.items() if holds), None)
