"""What the agreed promise is worth at the sites that took part, in other words than epsilon.

Everything is computed from what the sites declared, by a quick upper bound (`fedround.privacy.quick`): the exact cost of what
a liar declares can take minutes. `fedround privacy plan` and `site ledger` have the exact numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from fedround.privacy.calibration import mu_squared
from fedround.privacy.participation import times_paid
from fedround.privacy.profile import DELTAS, upward
from fedround.privacy.quick import epsilon_at_most
from fedround.privacy.spec import DpSgd, NoPrivacy
from fedround.records import Update
from fedround.rounds.campaign import beside
from fedround.terms import Terms


def in_words(terms: Terms, updates: Mapping[str, Update]) -> str:
    """A sentence, or nothing if nothing is promised. updates: by site."""
    privacy = terms.privacy
    if isinstance(privacy, NoPrivacy) or not updates:
        return ""
    counted = Counter(beside(privacy, terms.evaluation, terms.groups, terms.drift))

    def cost(delta_dp: float) -> float:
        return max(epsilon_at_most([(one, times_paid(one, privacy.rounds)), *counted.items()], delta_dp, privacy.unit)
                   for one in (update.mechanism for update in updates.values()))

    mu = math.sqrt(mu_squared(privacy.epsilon, privacy.delta_dp))
    others = ", ".join(f"{upward(cost(delta), 2)} at {delta:g}" for delta in DELTAS if delta != privacy.delta_dp)
    leaks = "" if (rows := _most_rows(terms, updates.values())) is None else (
        f"; delta times a site's rows: at most {rows * privacy.delta_dp:.2g}")
    return (f"the whole campaign costs one {privacy.unit} an epsilon of at most {privacy.epsilon:g} at delta "
            f"{privacy.delta_dp:g}, as a Gaussian of mu {upward(mu, 3)} does; by a quick bound, {others}{leaks}")


def _most_rows(terms: Terms, updates: Iterable[Update]) -> int | None:
    """Training rows of the largest site, as far as its noise tells them; None: it does not."""
    batch = terms.training.batch_size or 0
    return max((rows for update in updates if (rows := _rows(update, batch)) is not None), default=None)


def _rows(update: Update, batch: int) -> int | None:
    if update.rows is None and isinstance(update.mechanism, DpSgd):
        return math.ceil(batch / update.mechanism.sampling_rate)
    return update.rows
