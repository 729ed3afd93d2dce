"""What the coordinator remembers survives the coordinator, and nothing that was left out stays in it."""

from __future__ import annotations

import dataclasses
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fedround import codec, layout
from fedround.aggregation.history import History
from fedround.aggregation.rows import ArrayNumbers, FileNumbers, Numbers, Row
from fedround.aggregation.rules import CenteredClipping, WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.errors import ContractError, StoreDeniedError, TrustError
from fedround.records import Commit, SiteMemory
from fedround.rounds import server
from fedround.rounds.server import Average
from fedround.signing import digest
from infra.history import read_commit
from infra.stores import MemoryStore
from tasks.memory import Shelf, flat_schema
from tasks.recompute import Bench
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation, changed
from tests.tasks.conftest import CROWD, WIDTH, objects
from tests.tasks.test_aggregate import poisoned
from tests.tasks.test_publish import KilledError, Mortal, survivor


def memory(commit: Commit) -> dict[str, SiteMemory]:
    return {said.site: said for said in commit.memory}


def average(federation: SmallFederation, commit: Commit, site: str) -> np.ndarray:
    body = federation.coordinator.store.get(layout.memory(memory(commit)[site].average))
    return codec.decode(body, flat_schema("average", WIDTH), site)["average"]


def upload(federation: SmallFederation, commit: Commit, site: str) -> np.ndarray:
    body = federation.coordinator.store.get(layout.delta(site, commit.run, commit.round, 1))
    return np.frombuffer(body, dtype="<f4")[-WIDTH:]


def test_an_average_is_the_mean_of_the_uploads_and_its_law_that_of_their_noise(crowd: SmallFederation):
    commits = [crowd.round("mean") for _ in range(3)]
    uploads = [upload(crowd, commit, "ash") for commit in commits]
    expected = (uploads[0] / 4 + uploads[1] / 2 + uploads[2]) / 1.75          # beta 0.5
    assert np.allclose(average(crowd, commits[2], "ash"), expected, atol=1e-6)
    first, last = memory(commits[0])["ash"], memory(commits[2])["ash"]
    assert (first.weight, last.weight) == (1.0, 1.75)
    assert last.variance == pytest.approx(first.variance * (1 / 16 + 1 / 4 + 1) / 1.75 ** 2)
    assert last.signal_bound == pytest.approx(first.signal_bound)


def test_who_misses_a_round_keeps_his_average_and_a_newcomer_begins(crowd: SmallFederation):
    first = crowd.round("missing", sites=CROWD[:6])
    second = crowd.round("missing", sites=CROWD[1:])
    assert sorted(memory(first)) == sorted(CROWD[:6])
    assert memory(second)["ash"] == memory(first)["ash"]
    assert memory(second)["birch"].weight == 1.5
    assert memory(second)["pine"].weight == 1.0
    assert average(crowd, second, "pine").tobytes() == upload(crowd, second, "pine").tobytes()


def test_what_was_left_out_is_forgotten(crowd: SmallFederation):
    first = crowd.round("forgotten")
    second = crowd.round("forgotten", lies={"fir": poisoned})
    third = crowd.round("forgotten", lies={"fir": lambda update_D: -10 * update_D})
    assert memory(first)["fir"] == memory(second)["fir"] == memory(third)["fir"]
    honest_again = crowd.round("forgotten")
    assert {str(update.verdict) for update in honest_again.updates} == {"used"}
    assert memory(honest_again)["fir"].weight == 1.5


def test_a_coordinator_that_starts_anew_remembers_the_same_bytes(crowd: SmallFederation, tmp_path):
    """Another machine, an empty spool: what is remembered lies in the store."""
    crowd.round("restart")
    planned = crowd.plan("restart")
    for name in CROWD:
        crowd.answer(name, planned)
    real, stores = crowd.coordinator.store, []
    for folder in (crowd.coordinator.folder, tmp_path):
        store = MemoryStore()
        for key in real.list(""):
            store.put_once(key, real.get(key))
        crowd.commit(planned, dataclasses.replace(crowd.coordinator, store=store, folder=folder))
        stores.append(objects(store))
    assert stores[0] == stores[1]


def test_killed_at_any_write_and_started_again_it_remembers_the_same_bytes(crowd: SmallFederation, tmp_path):
    crowd.round("killed")
    planned = crowd.plan("killed")
    for name in CROWD:
        crowd.answer(name, planned)

    def coordinator(store: MemoryStore):
        return dataclasses.replace(crowd.coordinator, store=store, folder=tmp_path)

    before = objects(crowd.coordinator.store)
    whole = Mortal(before, 1000, "before")
    crowd.commit(planned, coordinator(whole))
    puts = len(objects(whole)) - len(before)
    assert puts == len(CROWD) + 5           # every average, model, optimizer state, distances, checkpoint, commit
    for k in range(1, puts + 1):
        mortal = Mortal(before, k, "after")
        with pytest.raises(KilledError):
            crowd.commit(planned, coordinator(mortal))
        left = survivor(mortal)
        crowd.commit(planned, coordinator(left))
        assert objects(left) == objects(whole)


def kept(federation: SmallFederation) -> set[str]:
    return {path.stem for path in (federation.coordinator.folder / "spool" / "memory").iterdir()}


def test_the_next_round_finds_the_averages_on_its_own_disk_and_believes_them_only_by_their_digest(crowd: SmallFederation):
    first = crowd.round("local")
    assert kept(crowd) == {said.average for said in first.memory}
    altered = crowd.coordinator.folder / "spool" / "memory" / f"{memory(first)['oak'].average}.safetensors"
    altered.write_bytes(altered.read_bytes()[:-1] + b"?")
    second = crowd.round("local")
    assert kept(crowd) == {said.average for said in second.memory}
    expected = (upload(crowd, first, "oak") / 2 + upload(crowd, second, "oak")) / 1.5
    assert np.allclose(average(crowd, second, "oak"), expected, atol=1e-6)


def test_a_memory_that_was_altered_stops_the_next_round_of_a_new_machine_and_the_proof(crowd: SmallFederation):
    commit = crowd.round("altered")
    shutil.rmtree(crowd.coordinator.folder / "spool")
    path = crowd.root / "store" / layout.memory(memory(commit)["oak"].average)
    body = bytearray(path.read_bytes())
    body[-3] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(body))
    planned = crowd.plan("altered")
    for name in CROWD:
        crowd.answer(name, planned)
    with pytest.raises(TrustError, match="not the one that names it"):
        crowd.commit(planned)
    with pytest.raises(TrustError, match="memory of round 1"):
        list(verify_run(crowd.coordinator.store, "altered", crowd.coordinator.identity.key))


class AsASite(MemoryStore):
    """What a site's credential lets it read."""

    def head(self, key):
        if key.startswith("memory/"):
            raise StoreDeniedError("not for sites")
        return super().head(key)


def test_a_site_proves_the_run_without_reading_what_is_remembered_of_the_others(crowd: SmallFederation):
    crowd.round("as-a-site")
    store = AsASite()
    for key, body in objects(crowd.coordinator.store).items():
        store.put_once(key, body)
    key = crowd.coordinator.identity.key
    assert [proof.memory_unseen for proof in verify_run(store, "as-a-site", key)] == [False, True]
    assert not any(proof.memory_unseen for proof in verify_run(crowd.coordinator.store, "as-a-site", key))


def test_without_a_history_nothing_is_remembered(federation: SmallFederation):
    commit = federation.round()
    assert commit.memory == ()
    kept = list(federation.coordinator.store.list("memory/"))
    assert kept == [layout.memory(commit.blob("distances") or "")]


def test_centered_clipping_begins_where_the_last_round_ended(tmp_path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path, aggregation={"rule": {"name": "centered_clipping", "radius": 0.01}})
    first = federation.round()
    assert isinstance(first.agreed.aggregation.rule, CenteredClipping)
    body = federation.coordinator.store.get(layout.memory(first.blob("centre") or ""))
    centre_D = codec.decode(body, flat_schema("centre", 17), "centre")["centre"]
    planned = federation.plan()
    for name in small_federation.NAMES:
        federation.answer(name, planned)
    from tasks.aggregate import aggregate

    result = aggregate(federation.coordinator, planned, federation.collect(planned)).result
    step = float(np.linalg.norm(result.delta_D - centre_D))
    assert 0 < step <= 3 * 0.01 + 1e-6           # three steps of at most the radius, from there and not from zero
    assert federation.commit(planned).commit.blob("centre") != first.blob("centre")


def blended(crowd: SmallFederation, run: str, folder: Path, upload: Numbers, past: Numbers,
            size: int) -> tuple[Average, Shelf]:
    """A site's average with this upload in it, half of it new."""
    planned = crowd.plan(run)
    shelf = Shelf(Bench(folder, MemoryStore()), dataclasses.replace(
        planned, plan=changed(planned.plan, tensors=flat_schema("w", size))))
    how = Aggregation(history=0.5, rule=WeightedMean())
    average, _ = server._with_past(how, size, Row("ash", 1.0, upload), Average(History(2.0, None), past), shelf)
    return average, shelf


def test_blending_holds_blocks_and_not_rows(crowd: SmallFederation, tmp_path: Path):
    size = 6_000_000
    past, new = (np.full(size, value, np.float32) for value in (1, 2))
    past.tofile(tmp_path / "past")
    new.tofile(tmp_path / "new")
    del past, new
    tracemalloc.start()
    try:
        average, shelf = blended(crowd, "in-blocks", tmp_path, FileNumbers(tmp_path / "new", 0),
                                 FileNumbers(tmp_path / "past", 0), size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20          # one row is 24 MB
    body = average.numbers.path.read_bytes()
    mixed = codec.decode(body, flat_schema("average", size), "out")["average"]
    assert (mixed == 1.5).all()
    (said,) = shelf.said_of({"ash": average})
    assert (said.average, said.weight) == (digest(body), 2.0)


def test_an_average_of_another_length_is_no_average(crowd: SmallFederation, tmp_path: Path):
    with pytest.raises(ContractError, match="ends after 2 coordinates"):
        blended(crowd, "too-short", tmp_path, ArrayNumbers(np.zeros(2, np.float32)), ArrayNumbers(np.zeros(3, np.float32)), 3)


def test_the_commit_says_the_same_to_everybody_who_reads_it(crowd: SmallFederation):
    commit = crowd.round("same")
    assert read_commit(crowd.coordinator.store, "same", 1, crowd.coordinator.identity.key).commit == commit
