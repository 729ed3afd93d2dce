"""Rules and slow sites in a whole federation: planned, admitted, charged, committed, and computed again by a proof."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedround import layout
from fedround.errors import ChainError
from fedround.privacy.spec import DpSgd
from fedround.records import Answer
from fedround.signing import seal, unseal
from infra.history import read_commit
from tasks.agreed import Proven, check_agreed
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation

STEPS = {"local_steps": 4, "batch_size": 32, "learning_rate": 0.5}


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Three rounds whose score tells nothing new: the rule lowers the steps after the second."""
    federation = small_federation.make(tmp_path_factory.mktemp("pace"), evaluation={"bins": 10, "noise_std": 3.0}, training={
        **STEPS, "learning_rate": 1e-6, "rule": {"name": "plateau", "of": "local_steps", "patience": 1, "least": 0.1}})
    for _ in range(3):
        federation.round()
    return federation


def test_a_plateau_on_noised_scores_lowers_the_steps_for_all_and_a_proof_computes_it_again(settled: SmallFederation):
    coordinator = settled.coordinator
    commits = [read_commit(coordinator.store, "spring", number, coordinator.identity.key).commit for number in (1, 2, 3)]
    assert [commit.agreed.training.local_steps for commit in commits] == [4, 4, 2]
    assert all(commit.score is not None and commit.score.margin > 0 for commit in commits)
    assert len(list(verify_run(coordinator.store, "spring", coordinator.identity.key))) == 4
    for name in settled.names:
        charges = [json.loads(line) for line in (settled.root / name / "ledger.jsonl").read_text().splitlines()[1:]]
        assert all("'steps': 4" in str(charge) for charge in charges), "all agreed steps are paid in each round"


def test_attack_a_commit_that_tells_another_score_is_found(settled: SmallFederation, tmp_path: Path):
    federation = settled.copy(tmp_path)
    coordinator = federation.coordinator
    last = read_commit(coordinator.store, "spring", 3, coordinator.identity.key).commit
    path = federation.root / "store" / layout.commit("spring", 3)
    path.chmod(0o600)
    path.write_bytes(seal(last.model_copy(update={"score": last.score.model_copy(update={"value": 0.9})}),
                          coordinator.identity))
    with pytest.raises(ChainError, match="says another score of the base model"):
        list(verify_run(coordinator.store, "spring", coordinator.identity.key))


def test_attack_a_plan_with_another_learning_rate_than_the_rule_gives_is_found(federation: SmallFederation):
    planned = federation.plan()
    training = planned.plan.agreed.training
    faster = small_federation.changed(planned.plan, training=training.model_copy(update={"learning_rate": 0.6}))
    with pytest.raises(ChainError, match="asks for something else than the federation file.*training"):
        check_agreed(faster, federation.coordinator.federation, Proven(planned.parent), [], "round 1")


def test_a_slow_site_does_fewer_steps_from_its_first_round_of_a_run_on_and_pays_for_these(
        tmp_path: Path, rows_are_judged_here: None):
    """East needed ten minutes for a step, by its own notes; it has one minute. It does as few as it may, in all rounds."""
    federation = small_federation.make(tmp_path, training={**STEPS, "partial": "normalise", "fewest_steps": 1})
    site = federation.site("east")
    (site.folder / "speed.json").write_text(json.dumps(
        {"recipe": site.recipe.digest, "batch_size": 32, "seconds_a_step": 600.0}))
    federation.round()
    assert json.loads((site.folder / "speed.json").read_text())["seconds_a_step"] < 600
    federation.round()
    for number in (1, 2):
        said = {name: _update(federation, name, number).mechanism for name in federation.names}
        assert {name: one.steps for name, one in said.items()} == {"east": 1, "north": 4, "south": 4}
        assert all(isinstance(one, DpSgd) for one in said.values())
    last = list(verify_run(federation.coordinator.store, "spring", federation.coordinator.identity.key))[-1]
    assert 0 < last.epsilons["east"] <= 8


def _update(federation: SmallFederation, name: str, number: int):
    body = federation.coordinator.store.get(layout.answer(name, "spring", number, 1, "train"))
    return unseal(body, Answer, federation.site(name).identity.key, name).update


def test_attack_a_site_that_says_fewer_steps_than_may_be_is_not_admitted(tmp_path: Path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path, training={**STEPS, "partial": "keep", "fewest_steps": 2})
    planned = federation.plan()
    for name in federation.names:
        federation.answer(name, planned)
    said = _update(federation, "east", 1).mechanism
    federation.lie("east", planned, lambda delta_D: delta_D, mechanism=said.model_copy(update={"steps": 1}))
    (rejected,) = federation.commit(planned).commit.rejected
    assert "took 1 step, the plan asks for 4, and for 2 at least" in rejected.reason
