"""What a model is said to have cost is what the runs cost that it comes from."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fedround.privacy.spec import NoPrivacy, Privacy, RecordPrivacy, SitePrivacy
from tasks.certificate import _spent
from tasks.proofs import RoundProof

RECORD = RecordPrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20)
SITE = SitePrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20)


def a_run(*epsilons: float | None, part: str = "", privacy: Privacy = RECORD) -> list[RoundProof]:
    """Round 0, and a round whose sites said so."""
    begun = RoundProof(0, "", "", 1, (), (), 2, 3, in_ledger=part)
    said = {f"site-{place}": epsilon for place, epsilon in enumerate(epsilons)}
    return [begun, RoundProof(1, "", "", 1, tuple(said), (), 2, 3, privacy=privacy, epsilons=said, in_ledger=part)]


@pytest.mark.parametrize(("lineage", "spent"), [
    ([a_run(1.0, 2.0)], 2.0),
    ([a_run(1.0, None)], 1.0),
    ([a_run(None, None)], None),
    ([a_run(1.0), a_run(2.0), a_run(4.0)], 7.0),
    ([a_run(1.0, part="2026-w02-aa"), a_run(3.0, part="2026-w03-aa"), a_run(4.0, part="2026-w02-aa")], 5.0),
    ([a_run(1.0, part="2026-w02-aa"), a_run(3.0, part="2026-w03-aa"), a_run(4.0)], 7.0),
    ([a_run(1.0, part="2026-w02-aa"), a_run(3.0, part="2026-01-bb")], 4.0),
    ([a_run(None, privacy=NoPrivacy())], None),
], ids=["one run", "as far as they say", "unknown", "the same rows", "weeks", "weeks and all rows", "weeks and months",
        "without privacy"])
def test_epsilon_is_what_one_record_spent_on_all_runs_that_the_model_comes_from(lineage: Sequence[list[RoundProof]],
                                                                                spent: float | None):
    assert _spent(lineage) == spent


@pytest.mark.parametrize("before", [a_run(None, privacy=NoPrivacy()), a_run(None), a_run(2.0, privacy=SITE)],
                         ids=["without privacy", "unknown", "another unit"])
def test_attack_a_short_private_run_that_begins_with_a_model_of_another_promise(before: list[RoundProof]):
    """A model that was trained without noise is not private after one more round with it."""
    assert _spent([a_run(1.0), before]) is None
