"""Who is left out too often sits out for as long as was agreed, in everybody's sight, and is then asked again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround import layout
from fedround.aggregation.verdict import Verdict
from fedround.errors import ChainError, ContractError
from fedround.federation import Federation, SiteEntry
from fedround.privacy.spec import NoPrivacy
from fedround.records import Exclusion, Plan
from fedround.rounds.asking import first_that_counts
from fedround.rounds.earlier import Earlier
from fedround.rounds.reputation import exclusions
from fedround.signing import digest, seal
from fedround.standing import Reputation
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation
from tests.tasks.test_aggregate import poisoned

MEMBERS = ("north", "east", "south")
POLICY = Reputation(window=4, exclude_after=2, exclude_for=3)
policies = st.builds(
    lambda window, after, rounds: Reputation(window=window, exclude_after=min(window, after), exclude_for=rounds),
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
patterns = st.lists(st.booleans(), min_size=1, max_size=40)


def federation_with(policy: Reputation | None, quorum: int = 1) -> Federation:
    return Federation(
        name="small", coordinator=f"ed25519:{99:064x}", recipe="tiny", recipe_digest="0" * 64, contract_digest="0" * 64,
        quorum=quorum, privacy=NoPrivacy(), reputation=policy,
        sites=tuple(SiteEntry(name=name, key=f"ed25519:{n + 1:064x}", weight=1.0) for n, name in enumerate(MEMBERS)))


def lived(federation: Federation, lies: list[bool], liar: str = "east") -> list[tuple[Exclusion, ...]]:
    """Round after round: `liar` is left out whenever it is asked and `lies` says so. Who was excluded in each round."""
    past: list[Earlier] = []
    for number, lie in enumerate(lies, 1):
        out = exclusions(federation, MEMBERS, number, past[first_that_counts(federation, number) - 1:])
        asked = set(MEMBERS) - {exclusion.site for exclusion in out}
        verdicts = {site: Verdict.GATE if lie and site == liar else Verdict.USED for site in sorted(asked)}
        past.append(Earlier(number, asked, verdicts, excluded=out))
    return [one.excluded for one in past]


def sat_out(federation: Federation, lies: list[bool]) -> list[int]:
    return [number for number, out in enumerate(lived(federation, lies), 1) if out]


def test_two_of_four_rounds_cost_three_and_then_it_begins_anew():
    lies = [True, False, True] + [True] * 9
    #       1 left out, 3 left out: out in 4, 5, 6; asked and left out in 7, 8: out in 9, 10, 11
    assert sat_out(federation_with(POLICY), lies) == [4, 5, 6, 9, 10, 11]


def test_what_is_served_does_not_count_twice_although_the_window_still_shows_it():
    long_memory = federation_with(Reputation(window=6, exclude_after=2, exclude_for=2))
    assert sat_out(long_memory, [True, True] + [False] * 6) == [3, 4]


def test_two_that_are_farther_apart_than_the_window_cost_nothing():
    assert sat_out(federation_with(POLICY), [True, False, False, False, True, False, False]) == []


@given(policies, patterns)
def test_nobody_sits_out_but_the_liar_and_everybody_hears_why(policy: Reputation, lies: list[bool]):
    for out in lived(federation_with(policy), lies):
        assert {exclusion.site for exclusion in out} <= {"east"}
        assert all("gate" in exclusion.reason for exclusion in out)


@given(policies, patterns)
def test_who_sits_out_does_so_for_exactly_as_long_as_agreed(policy: Reputation, lies: list[bool]):
    out = sat_out(federation_with(policy), lies)
    starts = [number for number in out if number - 1 not in out or (out.index(number) % policy.exclude_for == 0)]
    for start in starts:
        assert [n for n in range(start, start + policy.exclude_for) if n <= len(lies) and n not in out] == []
    whole = len(out) - sum(number > len(lies) - policy.exclude_for for number in out)
    assert len(out) % policy.exclude_for == 0 or out[-1] == len(lies)
    assert whole >= 0


@given(policies, st.integers(1, 40))
def test_who_never_lies_is_always_asked(policy: Reputation, rounds: int):
    assert sat_out(federation_with(policy), [False] * rounds) == []


@given(patterns)
def test_without_a_policy_everybody_is_always_asked(lies: list[bool]):
    assert sat_out(federation_with(None), lies) == []


def test_a_quorum_that_cannot_be_met_without_the_excluded_stops_and_says_what_to_do():
    with pytest.raises(ContractError, match=r"'east' \(left out of 2 .* excluded, 2 sites are left and the quorum is 3"):
        lived(federation_with(POLICY, quorum=3), [True, True, True])


def test_what_nobody_signed_counts_against_nobody():
    """Somebody with access to the bucket can make an answer unreadable: that is a rejection, and no verdict on the site."""
    federation = federation_with(POLICY)
    past = [Earlier(number, MEMBERS, {}) for number in range(1, 5)]
    assert exclusions(federation, MEMBERS, 5, past) == ()


def test_a_policy_that_can_never_act_is_refused():
    with pytest.raises(ValueError, match="can never be reached"):
        Reputation(window=2, exclude_after=3, exclude_for=1)


# -- in a whole federation ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Six rounds in which east sends NaN whenever it is asked."""
    federation = small_federation.make(
        tmp_path_factory.mktemp("watched"), quorum=2, max_epsilon=50.0,
        reputation={"window": 4, "exclude_after": 2, "exclude_for": 2},
        privacy={"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 9})
    for _ in range(6):
        federation.round(lies={"east": poisoned})
    return federation


def plans(federation: SmallFederation) -> list[Plan]:
    from infra.history import read_commit, read_plan

    store, key = federation.coordinator.store, federation.coordinator.identity.key
    return [read_plan(store, read_commit(store, "spring", number, key).commit, key) for number in range(1, 7)]


def test_plans_name_who_is_not_asked_why_and_until_when(watched: SmallFederation):
    assert [plan.cohort == MEMBERS for plan in plans(watched)] == [True, True, False, False, True, True]
    third = plans(watched)[2]
    assert third.cohort == ("north", "south")
    assert third.excluded == (Exclusion(
        site="east", until=5, reason="left out of 2 of the last 4 rounds: 2 × not_finite"),)


def test_the_proof_computes_the_exclusions_again(watched: SmallFederation):
    proofs = list(verify_run(watched.coordinator.store, "spring", watched.coordinator.identity.key))
    assert [proof.excluded for proof in proofs] == [(), (), (), ("east",), ("east",), (), ()]
    assert [proof.left_out for proof in proofs] == [(), ("east",), ("east",), (), (), ("east",), ("east",)]


def test_a_coordinator_that_excludes_whom_it_likes_is_found_out(watched: SmallFederation, tmp_path):
    """With its own good key, and a commit that fits the plan."""
    fork = watched.copy(tmp_path / "fork")
    planned = fork.plan()
    assert [out.site for out in planned.plan.excluded] == ["east"]
    unfair = planned.plan.model_copy(update={
        "cohort": ("east", "south"), "attempt": 2,
        "excluded": (Exclusion(site="north", until=99, reason="left out of 4 of the last 4 rounds: 4 × gate"),)})
    document = seal(unfair, fork.coordinator.identity)
    fork.coordinator.store.put_once(layout.plan("spring", 7, 2, "train"), document)
    from tasks.plan import Planned

    lie = Planned(unfair, digest(document), planned.parent)
    for name in unfair.cohort:
        fork.answer(name, lie)
    fork.commit(lie)
    with pytest.raises(ChainError, match="excludes others than the agreed policy does"):
        list(verify_run(fork.coordinator.store, "spring", fork.coordinator.identity.key))


def test_taking_the_policy_out_of_the_file_asks_everybody_again(watched: SmallFederation, tmp_path):
    fork = watched.copy(tmp_path / "fork")
    assert fork.plan().plan.excluded
    path = fork.root / "coordinator" / "federation.toml"
    text = path.read_text()
    start = text.index("[reputation]")
    end = text.index("[", start + 1)
    path.write_text(text[:start] + text[end:])
    plan = fork.plan().plan
    assert (plan.excluded, plan.cohort, plan.attempt) == ((), MEMBERS, 2)
