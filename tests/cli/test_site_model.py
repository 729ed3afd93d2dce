"""`fedround site model`: what a site's operator gets for use at the site, and what nobody else hears of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedround import layout
from fedround.records import Commit
from fedround.signing import digest, seal
from tests import small_federation
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import SmallFederation
from tests.tasks.test_personalisation import in_the_store, kept, numbers_of

NAMES = {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.fixture
def make(tmp_path: Path, rows_are_judged_here: None):
    def federation(**changes) -> SmallFederation:
        made = small_federation.make(tmp_path / "federation", **changes)
        made.round()
        return made

    return federation


def test_it_is_the_shared_model_with_the_sites_own_head_whole_and_for_its_owner_alone(fedround: Fedround, make, tmp_path):
    federation, out = make(parts={"private": ["2.*"]}), tmp_path / "model.safetensors"
    told = json.loads(fedround("site", "model", federation.root / "north", "--out", out, "--json").stdout)
    model, commit = load_file(out), federation.plan().parent.commit
    assert {*model} == NAMES
    assert [model["2.bias"].tolist(), model["2.weight"].ravel().tolist()] == [
        numbers_of(kept(federation, "north", 1))[:1].tolist(), numbers_of(kept(federation, "north", 1))[1:].tolist()]
    shared = load_file(federation.root / "store" / layout.model(commit.model))
    assert all(np.array_equal(model[name], shared[name]) for name in shared)
    assert (told["run"], told["round"], told["shared"]) == ("spring", 1, commit.model)
    assert told["sha256"] == digest(out.read_bytes())
    assert told["metrics"]["rows"] == 80
    assert out.stat().st_mode & 0o077 == 0


def test_the_personal_model_comes_by_its_name(fedround: Fedround, make, tmp_path):
    federation = make(personal={"name": "ditto", "pull": 0.1})
    for kind in ("--personal", "--no-such"):
        result = fedround("site", "model", federation.root / "north", "--out", tmp_path / "model.safetensors", kind)
        assert result.exit_code == (0 if kind == "--personal" else 2)
    stored = federation.root / "north" / "kept" / "spring" / "personal" / "00001-01.safetensors"
    assert (tmp_path / "model.safetensors").read_bytes() == stored.read_bytes()


def test_where_there_is_no_personal_model_it_says_how_to_get_one(fedround: Fedround, make, tmp_path):
    federation = make()
    one_sentence(fedround("site", "model", federation.root / "north", "--out", tmp_path / "m", "--personal"), "ditto")
    assert not (tmp_path / "m").exists()


def test_fine_tuning_helps_at_this_site_repeats_and_is_neither_sent_nor_charged(fedround: Fedround, make, tmp_path):
    federation = make()
    before, outs = in_the_store(federation), [tmp_path / name for name in ("one", "other")]
    book = (federation.root / "north" / "ledger.jsonl").read_bytes()
    for out in outs:
        told = json.loads(fedround("site", "model", federation.root / "north", "--out", out, "--fine-tune", "200",
                                   "--learning-rate", "0.2", "--json").stdout)
    assert told["metrics"]["auc"] > told["before_fine_tuning"]["auc"]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert in_the_store(federation) == before
    assert (federation.root / "north" / "ledger.jsonl").read_bytes() == book


def test_of_several_runs_it_asks_which(fedround: Fedround, make, tmp_path):
    federation = make(max_epsilon=40.0)
    federation.round("summer")
    one_sentence(fedround("site", "model", federation.root / "north", "--out", tmp_path / "m"), "spring, summer")
    one_sentence(fedround("site", "model", federation.root / "north", "--out", tmp_path / "m", "--run", "autumn"), "no run")
    assert "run 'summer' after round 1" in fedround("site", "model", federation.root / "north", "--out", tmp_path / "m",
                                                   "--run", "summer").stdout


def test_another_history_than_the_site_has_seen_is_not_used(fedround: Fedround, make, tmp_path):
    """Signed by the coordinator, and not the round that this site's plan continued."""
    federation = make()
    federation.round()
    path, coordinator = federation.root / "store" / layout.commit("spring", 1), federation.coordinator
    commit = Commit.model_validate_json(json.dumps(json.loads(path.read_bytes())["body"]))
    for key in (path, federation.root / "store" / layout.commit("spring", 2)):
        key.chmod(0o600)
    path.write_bytes(seal(commit.model_copy(update={"note": "another"}), coordinator.identity))
    (federation.root / "store" / layout.commit("spring", 2)).unlink()
    one_sentence(fedround("site", "model", federation.root / "north", "--out", tmp_path / "m"), "two histories")
