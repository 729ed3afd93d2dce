"""Attacks on a site by whoever holds the store, the API key, or the coordinator's key. Each stops before a row is read."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path

import pytest

from fedround import layout
from fedround.aggregation.rules import CoordinateMedian
from fedround.aggregation.spec import Aggregation
from fedround.errors import ChainError, ContractError, NotFoundError, TrustError
from fedround.privacy import ledger
from fedround.privacy.spec import NoPrivacy, RecordPrivacy
from fedround.records import Reason
from fedround.signing import Identity, digest, seal
from infra.settings import load_toml, save_toml
from site_workers import outbox
from site_workers.authorise import authorise, refusal_by_policy
from site_workers.policy import SitePolicy
from tasks.plan import Planned
from tests import small_federation
from tests.small_federation import SmallFederation, changed


def forge(where: SmallFederation, planned: Planned, identity: Identity | None = None, **changes: object) -> None:
    """Replace the published plan by a changed one, as whoever owns the bucket can."""
    coordinator = where.coordinator
    plan = changed(planned.plan, **changes)
    path = where.root / "store" / layout.plan(planned.plan.run, planned.plan.round, planned.plan.attempt,
                                                   planned.plan.asks.kind)
    path.unlink()
    path.write_bytes(seal(plan, identity or coordinator.identity))


def order(federation: SmallFederation, number: int = 1, attempt: int = 1):
    return authorise(federation.site("north"), "spring", number, attempt, "train")


def test_a_true_plan_is_accepted(federation: SmallFederation):
    planned = federation.plan()
    assert order(federation).digest == planned.digest


def test_a_plan_by_another_key_is_not_carried_out(federation: SmallFederation):
    forge(federation, federation.plan(), Identity.generate())
    with pytest.raises(TrustError, match="signed by another key"):
        order(federation)


def test_a_plan_of_one_round_under_the_name_of_another_is_not_carried_out(federation: SmallFederation):
    planned = federation.plan()
    first = federation.root / "store" / layout.plan("spring", 1, 1, "train")
    second = federation.root / "store" / layout.plan("spring", 2, 1, "train")
    second.parent.mkdir(parents=True)
    shutil.copyfile(first, second)
    assert planned.plan.round == 1
    with pytest.raises(TrustError, match="is for round 1"):
        order(federation, number=2)


@pytest.mark.parametrize(("change", "match"), [
    ({"parent": "0" * 64}, "does not continue the committed round 0"),
    ({"base_model": "0" * 64}, "starts from another model"),
    ({"cohort": ("east", "south")}, "does not invite 'north'"),
    ({"federation": "another"}, "this site belongs to 'small'"),
])
def test_a_plan_that_does_not_fit_is_not_carried_out(federation: SmallFederation, change: dict, match: str):
    forge(federation, federation.plan(), **change)
    with pytest.raises(TrustError, match=match):
        order(federation)


def test_a_plan_for_a_round_whose_predecessor_is_not_committed(federation: SmallFederation):
    planned = federation.plan()
    (federation.root / "store" / layout.commit("spring", 0)).unlink()
    with pytest.raises(ChainError, match="is not committed"):
        order(federation)
    assert planned.plan.round == 1


def test_a_member_whose_key_the_coordinator_replaced_answers_nothing(federation: SmallFederation):
    path = federation.root / "coordinator" / "federation.toml"
    own = federation.site("north").identity.key
    path.write_text(path.read_text().replace(own, Identity.generate().key))
    federation.plan()
    with pytest.raises(TrustError, match="has another key for 'north'"):
        order(federation)


def test_a_member_that_was_left_out_of_the_federation_answers_nothing(federation: SmallFederation):
    """A plan that asks it all the same is against the log that the plan names."""
    path = federation.root / "coordinator" / "federation.toml"
    head, *members = path.read_text().split("[[sites]]")
    path.write_text(head + "".join(f"[[sites]]{member}" for member in members if '"north"' not in member))
    planned = federation.plan()
    forge(federation, planned, cohort=("north", "east", "south"))
    with pytest.raises(TrustError, match="'north' is no member any more"):
        order(federation)


@pytest.mark.parametrize("where", [0, 9, -1], ids=["length", "header", "data"])
def test_a_base_model_with_a_flipped_byte_is_not_trained_on(federation: SmallFederation, where: int):
    planned = federation.plan()
    path = federation.root / "store" / layout.model(planned.plan.base_model)
    body = bytearray(path.read_bytes())
    body[where] ^= 1
    path.chmod(0o600)
    path.write_bytes(body)
    with pytest.raises(TrustError, match="the stored bytes are not those that the plan names"):
        federation.answer("north", planned)
    assert not (federation.root / "store" / "sites" / "north").exists()


@pytest.mark.parametrize("kind", ["plan", "commit", "log", "federations"])
def test_a_flipped_byte_anywhere_in_what_a_site_is_shown_is_not_believed(federation: SmallFederation, kind: str):
    """Plan, parent commit, log entry, federation file: other bytes in every run, and a site answers nothing."""
    planned = federation.plan()
    store = federation.root / "store"
    path = store / {"plan": layout.plan("spring", 1, 1, "train"), "commit": layout.commit("spring", 0),
                    "log": layout.log_entry(1), "federations": layout.federation(planned.plan.federation_digest)}[kind]
    body = path.read_bytes()
    path.chmod(0o600)
    for where in {0, len(body) - 1, *range(secrets.randbelow(23), len(body), 23)}:
        path.write_bytes(body[:where] + bytes([body[where] ^ 1]) + body[where + 1:])
        with pytest.raises((TrustError, ContractError)):
            order(federation)
    path.write_bytes(body)
    assert order(federation).digest == planned.digest


def test_two_plans_for_one_attempt_are_noticed(federation: SmallFederation):
    planned = federation.plan()
    federation.answer("north", planned)
    forge(federation, planned, deadline_s=61)
    with pytest.raises(ChainError, match="the coordinator has issued two"):
        order(federation)


def test_an_invitation_to_a_round_that_is_over_costs_nothing(federation: SmallFederation):
    """Replayed by whoever holds the API key, to a site that was late then."""
    planned = federation.plan()
    for name in ("east", "south"):
        federation.answer(name, planned)
    federation.commit(planned)
    with pytest.raises(ChainError, match="is committed already"):
        federation.answer("north", planned)
    assert ledger.read(federation.site("north").ledger).charges == ()


def test_an_old_invitation_that_is_sent_again_is_no_history_that_was_rolled_back(federation: SmallFederation):
    """Whoever may start flow runs would make every site cry for help: with a round's plan, and with its first try's."""
    federation.plan()
    again = federation.plan(quorum=3)
    for name in ("north", "east", "south"):
        federation.answer(name, again)
    federation.commit(again)
    federation.round()
    federation.answer("north", federation.plan())
    for attempt in (1, again.plan.attempt):
        with pytest.raises(ChainError, match="an old invitation was sent again"):
            order(federation, attempt=attempt)
    (federation.root / "store" / layout.commit("spring", 2)).unlink()
    with pytest.raises(ChainError, match="the history was rolled back"):
        order(federation)


def test_there_is_no_plan(federation: SmallFederation):
    with pytest.raises(NotFoundError):
        order(federation, number=7)


@pytest.mark.parametrize(("change", "says"), [
    ({"recipe_digest": "1" * 64}, "recipe 1111111111111111 is not approved"),
    ({"contract_digest": "2" * 64}, "contract 2222222222222222 is not approved"),
    ({"privacy": {"unit": "none"}}, "without differential privacy is not allowed"),
    ({"privacy": {"unit": "record", "epsilon": 1.0, "delta_dp": 1e-3, "rounds": 3}}, "delta_dp 0.001 is above"),
])
def test_what_the_policy_forbids_is_refused_and_costs_nothing(federation: SmallFederation, change: dict, says: str):
    if "privacy" in change:
        federation.agree(**change)
    planned = federation.plan()
    if "privacy" not in change:
        forge(federation, planned, **change)
    refusal = refusal_by_policy(federation.site("north"), order(federation))
    assert refusal is not None
    assert (refusal.reason, says in refusal.detail) == (Reason.POLICY, True)
    federation.answer("north", planned)
    assert ledger.read(federation.site("north").ledger).charges == ()


def test_a_site_does_not_open_with_a_recipe_that_nobody_approved(federation: SmallFederation):
    """And not one line of it runs."""
    proof = federation.root / "it-ran"
    (federation.root / "north" / "approved" / "recipe.py").write_text(f"open({str(proof)!r}, 'w')")
    with pytest.raises(ContractError, match="not approved by policy.toml"):
        federation.site("north")
    assert not proof.exists()


def test_a_plan_without_privacy_runs_where_the_operator_allows_it(federation: SmallFederation):
    path = federation.root / "north" / "policy.toml"
    save_toml(load_toml(SitePolicy, path).model_copy(update={"units": ("record", "none")}), path, "changed")
    federation.agree(privacy={"unit": "none"})
    assert federation.answer("north", federation.plan()) == "update"


@pytest.mark.parametrize("lie", [
    {"privacy": RecordPrivacy(epsilon=8.1, delta_dp=1e-5, rounds=3)}, {"privacy": NoPrivacy()},
    {"privacy": RecordPrivacy(epsilon=8.0, delta_dp=1e-5, rounds=2)}, {"aggregation": Aggregation(rule=CoordinateMedian())},
], ids=["more epsilon", "none", "fewer rounds", "another rule"])
def test_attack_a_plan_with_other_privacy_or_another_rule_than_the_file_says_gets_no_answer(federation: SmallFederation,
                                                                                          lie: dict):
    """Whatever the site's policy would allow."""
    planned = federation.plan()
    forge(federation, planned, **lie)
    with pytest.raises(TrustError, match="asks for other privacy or another rule than the federation file says"):
        order(federation)


def test_a_rule_that_the_file_leaves_to_the_quorum_is_the_coordinators_to_name(tmp_path: Path):
    """Another version may take another rule for it, and the site answers all the same."""
    federation = small_federation.make(tmp_path, aggregation=None)
    planned = federation.plan()
    forge(federation, planned, aggregation=Aggregation(rule=CoordinateMedian()))
    assert order(federation).plan.agreed.aggregation.rule == CoordinateMedian()


def test_the_outbox_names_what_was_sent(federation: SmallFederation):
    planned = federation.plan()
    federation.answer("north", planned)
    entry = outbox.find(federation.site("north").safe, planned.plan)
    assert entry is not None
    sent = (federation.root / "store" / layout.answer("north", "spring", 1, 1, "train")).read_bytes()
    assert entry.answer == sent
    assert json.loads(sent)["body"]["plan"] == planned.digest == digest(
        (federation.root / "store" / layout.plan("spring", 1, 1, "train")).read_bytes())


def test_only_the_one_door_writes_to_the_store():
    """`release` sends answers; `preflight` writes fixed bytes that depend on nothing."""
    folder = Path(__file__).parents[2] / "site_workers"
    writers = {path.name for path in folder.glob("*.py") if "put_once" in path.read_text() or "publish(" in path.read_text()}
    assert writers == {"release.py", "preflight.py"}
