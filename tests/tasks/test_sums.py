"""Answers that are added up under masks: nobody reads one of them, and the sum is what all have, with shared noise."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from fedround.errors import ContractError, TrustError
from infra.stores import DirectoryStore
from tasks.contribution import contributed
from tasks.recompute import Bench
from tasks.unmask import plan_reveal
from tasks.verify import verify_run
from tests import summing
from tests.small_federation import LABELS, NAMES
from tests.summing import Summing


@pytest.fixture
def sums(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> Summing:
    return summing.make(tmp_path_factory.mktemp("sums"))


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> Summing:
    """One question was concluded. Its tests put back what they change."""
    federation = summing.make(tmp_path_factory.mktemp("added"))
    federation.concluded(LABELS)
    return federation


@pytest.mark.parametrize("key", [
    "runs/spring/reveals/00000/plan-01.json", "runs/spring/keys/00000/plan-01.json", "runs/spring/keys/00000/finding-01.json",
    "runs/spring/shares/00000/plan-01.json", "runs/spring/shares/00000/finding-01.json",
    "runs/spring/measurements/00000/finding-01.json", "sites/east/spring/measurements/00000/01/payload.bin",
    "sites/east/spring/measurements/00000/01/answer.json", "sites/east/spring/reveals/00000/01/payload.bin",
    "sites/east/spring/reveals/00000/01/answer.json", "of the keys", "of the shares"])
def test_a_flipped_bit_in_whatever_a_sum_rests_on_is_found(added: Summing, key: str):
    store = added.root / "store"
    begins = {"of the keys": b"fedround/1/secure-sums/keys", "of the shares": b"fedround/1/secure-sums/dealt"}.get(key)
    path = store / key if begins is None else next(
        path for path in (store / "runs/spring/relayed").iterdir() if path.read_bytes().startswith(begins))
    honest = path.read_bytes()
    path.chmod(0o600)
    middle = len(honest) // 2
    path.write_bytes(honest[:middle] + bytes([honest[middle] ^ 1]) + honest[middle + 1:])
    with pytest.raises((TrustError, ContractError)):
        list(verify_run(added.coordinator.store, "spring", added.coordinator.identity.key))
    path.write_bytes(honest)


def test_who_contributed_is_not_computed_from_a_sum_and_no_site_is_asked_for(sums: Summing):
    sums.train()
    with pytest.raises(ContractError, match="nobody knows what a site added"):
        contributed(sums.coordinator, "spring", 1)


def test_the_sum_is_what_all_have_with_the_noise_of_one_release(sums: Summing):
    finding = sums.concluded()
    for found, counts, noise in zip(finding.totals, sums.exact(), (4.0, 6.0), strict=True):
        assert 0 < np.abs(found.table - counts).max() < 8 * noise
    assert [told.site for told in finding.answers] == sorted(NAMES)
    assert finding.sum is not None
    assert finding.sum.wrong == ()


def test_nobody_waits_once_enough_have_revealed(sums: Summing, monkeypatch: pytest.MonkeyPatch):
    sums.keys()
    planned = sums.ask()
    for name in NAMES:
        sums.answer(name, planned)
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    collected = sums.revealing(planned, sites=("north", "east"))
    assert (waits, len(collected.sum.said.reveals)) == ([], 2)


def test_while_others_wait_nothing_is_read_that_was_read_before(sums: Summing, monkeypatch: pytest.MonkeyPatch):
    """The coordinator hands on the answers that it has admitted; a site reads the question once, and no history again."""
    sums.keys()
    planned, read, honest = sums.ask(), list[str](), DirectoryStore.get
    for name in NAMES:
        sums.answer(name, planned)
    answers = sums.collect(planned)

    def noted(self: DirectoryStore, key: str, **limits: int) -> bytes:
        read.append(key)
        return honest(self, key, **limits)

    monkeypatch.setattr(DirectoryStore, "get", noted)
    plan_reveal(sums.coordinator, planned, answers)
    assert not [key for key in read if key.endswith("answer.json")]
    read.clear()
    sums.answer("north", planned)
    asked = next(place for place, key in enumerate(read) if "/reveals/" in key and "/plan-" in key)
    assert read[asked:].count(read[asked]) == 1
    assert not [key for key in read[asked:] if key.startswith(("log/", "federations/")) or key.endswith("commit.json")]


def test_a_round_trains_on_the_sum_and_is_proven_and_computed_again(sums: Summing, tmp_path: Path):
    for _ in range(2):
        committed = sums.train()
    assert committed.commit.round == 2
    assert committed.commit.totals[0].statistic.word == "scores"
    assert {one.norm for one in committed.commit.updates} == {None}
    sums.concluded()
    key, store = sums.coordinator.identity.key, sums.coordinator.store
    proofs = list(verify_run(store, "spring", key, bench=Bench(tmp_path, store)))
    assert [(proof.recomputed, proof.not_recomputed) for proof in proofs[1:]] == [(True, "")] * 2
    assert proofs[2].revealed == tuple(sorted(NAMES))
    assert proofs[2].findings[0].revealed == tuple(sorted(NAMES))
