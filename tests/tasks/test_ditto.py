"""A personal model beside the shared one: it stays, it serves its site, and nothing that leaves knows of it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from fedround import codec, layout
from fedround.errors import ContractError
from fedround.learning.evaluate import scores
from fedround.privacy import ledger
from fedround.rounds import site as work
from site_workers import kept as site_kept
from site_workers import round as site_round
from site_workers.export import own_model
from site_workers.rows import read_site_rows
from tests import small_federation
from tests.small_federation import NAMES, SmallFederation
from tests.tasks.test_personalisation import in_the_store, numbers_of

DITTO = {"name": "ditto", "pull": 0.1}


@pytest.fixture
def make(tmp_path, rows_are_judged_here):
    return lambda **changes: small_federation.make(tmp_path / "federation", **{"personal": DITTO, **changes})


def kept(federation: SmallFederation, site: str, number: int) -> bytes:
    return (federation.root / site / "kept" / "spring" / "personal" / f"{number:05d}-01.safetensors").read_bytes()


def test_it_never_leaves_and_goes_on_from_round_to_round(make):
    """Every byte in the store is searched for every number of every personal model."""
    federation = make()
    found = []
    for number in (1, 2):
        federation.round()
        found += [kept(federation, name, number) for name in NAMES]
    assert len(set(found)) == 6
    stored = in_the_store(federation).values()
    for number in itertools.chain.from_iterable(numbers_of(body) for body in found):
        assert not any(number.tobytes() in body or repr(float(number)).encode() in body for body in stored)
    assert federation.recomputed() == 3
    assert len(ledger.read(federation.site("north").ledger).charges) == 2


def test_not_a_bit_of_what_leaves_depends_on_it(make, tmp_path, monkeypatch):
    federation = make()
    federation.round()
    planned = federation.plan()
    without = federation.copy(tmp_path / "without")
    federation.answer("north", planned)
    with monkeypatch.context() as patch:
        patch.setattr(site_kept, "write", lambda *_: None)
        without.answer("north", planned)
    sent = [(one.root / "store" / layout.delta("north", "spring", 2, 1)).read_bytes() for one in (federation, without)]
    assert sent[0] == sent[1]
    answer = layout.answer("north", "spring", 2, 1, planned.plan.asks.kind)
    one, other = (json.loads((of.root / "store" / answer).read_bytes())["body"] for of in (federation, without))
    assert {**one, "ledger_head": ""} == {**other, "ledger_head": ""}       # which tells the second of the charge
    assert not (without.root / "north" / "kept" / "spring" / "personal" / "00002-01.safetensors").exists()


def test_it_goes_on_with_its_own_numbers_and_begins_anew_at_the_shared_model_if_they_are_lost(make, tmp_path):
    federation = make()
    federation.round()
    planned = federation.plan()
    lost = federation.copy(tmp_path / "lost")
    (lost.root / "north" / "kept" / "spring" / "personal" / "00001-01.safetensors").unlink()
    for one in (federation, lost):
        one.answer("north", planned)
    assert kept(federation, "north", 2) != kept(lost, "north", 2)
    delta = layout.delta("north", "spring", 2, 1)
    assert (federation.root / "store" / delta).read_bytes() == (lost.root / "store" / delta).read_bytes()


def test_one_that_goes_astray_stops_no_answer_and_leaves_the_last_one_in_place(make, tmp_path, monkeypatch, caplog):
    """It learns from gradients that nobody clips: whether an answer comes must not tell how that went."""
    federation = make()
    federation.round()
    planned = federation.plan()
    sound = federation.undisturbed("north", planned, tmp_path / "sound")
    with monkeypatch.context() as patch:
        patch.setattr(work, "personalise", lambda _, lesson, *__, **___: (
            {name: np.full_like(array, np.nan) for name, array in lesson.base.items()}, {}))
        assert federation.answer("north", planned) == "update"
    delta = layout.delta("north", "spring", 2, 1)
    assert (federation.root / "store" / delta).read_bytes() == (sound.root / "store" / delta).read_bytes()
    assert not (federation.root / "north" / "kept" / "spring" / "personal" / "00002-01.safetensors").exists()
    assert kept(federation, "north", 1) == kept(sound, "north", 1)
    assert "personal model is not finite and not kept" in caplog.text


def test_killed_before_the_answer_it_ends_as_if_it_had_not_been(make, tmp_path):
    federation = make()
    federation.round()
    planned = federation.plan()
    undisturbed = federation.undisturbed("north", planned, tmp_path / "undisturbed")
    federation.killed("north", planned, site_round.release, "release")
    assert federation.answer("north", planned) == "update"
    assert kept(federation, "north", 2) == kept(undisturbed, "north", 2)


def test_a_site_that_is_unlike_the_others_is_served_by_its_own(tmp_path, rows_are_judged_here):
    """One site's labels mean the opposite: the shared model is wrong there, its personal one is right."""
    federation = small_federation.make(
        tmp_path, personal=DITTO, units=("record", "none"), privacy={"unit": "none"}, optimizer={"name": "fedavg"},
        training={"local_steps": 20, "batch_size": 32, "learning_rate": 0.5})
    for (seed, part), member in itertools.product(enumerate(("train", "validation")), NAMES):
        frame = small_federation.rows(300, seed)
        above = (frame["x1"] > frame["x2"]).astype(int)
        frame.assign(y=1 - above if member == "south" else above).to_parquet(
            federation.root / "data" / member / f"{part}.parquet")
    for _ in range(4):
        federation.round()
    accuracy = {}
    for member, own in itertools.product(NAMES, (False, True)):
        site = federation.site(member)
        found = scores(site.recipe, own_model(site, personal=own).tensors, read_site_rows(site).validation)
        accuracy[member, own] = float(((found["score"] > 0.5) == found["truth"]).mean())
    assert accuracy["south", False] < 0.2
    assert min(accuracy[member, True] for member in NAMES) > 0.9


@pytest.mark.parametrize(("changes", "says"), [
    ({"personal": {"name": "ditto", "pull": 4.0}}, "above 1 every step overshoots"),
    ({"parts": {"private": ["2.*"]}}, "private parts or on a personal model"),
])
def test_what_cannot_be_agreed_together_is_refused(make, changes, says):
    with pytest.raises(ContractError, match=says):
        make(**changes)


def test_the_personal_model_is_like_the_plans(make):
    federation = make()
    federation.round()
    assert codec.decode(kept(federation, "north", 1), federation.plan().plan.tensors, "personal")
    assert np.isfinite(numbers_of(kept(federation, "north", 1))).all()
