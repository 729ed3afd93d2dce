"""Compression through the whole of it: noise, compression, the wire, admission, the rule, the commit and its proof."""

from __future__ import annotations

import numpy as np
import pytest

from fedround import codec, layout
from fedround.compression import wire
from fedround.compression.spec import Quantised, TopK
from fedround.errors import ContractError
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.train import train
from fedround.records import Answer, named
from fedround.rounds import site as work
from fedround.signing import seal, unseal
from site_workers import inputs
from site_workers import round as site_round
from site_workers.draws import SiteDraws
from site_workers.rows import read_site_rows
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import NAMES, SmallFederation

KINDS = [{"name": "quantised", "bits": 8}, {"name": "quantised", "bits": 4}, {"name": "top_k", "share": 0.2},
         {"name": "count_sketch", "rows": 3, "size": 0.5, "share": 0.2}]
each_kind = pytest.mark.parametrize("how", KINDS, ids=lambda how: f"{how['name']} {how.get('bits', '')}")


def make(root, how, **changes) -> SmallFederation:
    return small_federation.make(root, compression=how, **changes)


def store_path(federation: SmallFederation, planned, name: str):
    plan = planned.plan
    return federation.root / "store" / layout.delta(name, plan.run, plan.round, plan.attempt)


def arrived(federation: SmallFederation, planned, name: str) -> np.ndarray:
    plan = planned.plan
    return wire.expanded(store_path(federation, planned, name).read_bytes(), plan.agreed.compression,
                         codec.coordinates(plan.tensors), bytes.fromhex(planned.digest))


def computed(monkeypatch, federation: SmallFederation, planned, name: str) -> np.ndarray:
    """A site answers; what it computed before it was compressed."""
    seen, real = [], work.send

    def look(how, delta_D, *others):
        seen.append(delta_D)
        return real(how, delta_D, *others)

    with monkeypatch.context() as patch:
        patch.setattr(work, "send", look)
        federation.answer(name, planned)
    return seen[0]


@each_kind
def test_two_rounds_prove_themselves_and_the_commit_says_how_many_bytes_came(tmp_path, rows_are_judged_here, how):
    federation = make(tmp_path, how)
    federation.round()
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    size = wire.form(planned.plan.agreed.compression, 17).size_bytes
    assert {store_path(federation, planned, name).stat().st_size for name in NAMES} == {size}
    collected = federation.collect(planned)
    for name in NAMES:
        found_D = np.empty(17, np.float32)
        collected.admitted[name].row.numbers.read(0, found_D)
        assert np.array_equal(found_D, arrived(federation, planned, name))
    commit = federation.commit(planned).commit
    assert [update.size_bytes for update in commit.updates] == [size] * 3
    coordinator = federation.coordinator
    assert len(list(verify_run(coordinator.store, "spring", coordinator.identity.key))) == 3


@pytest.mark.parametrize("how", [KINDS[0], KINDS[2]], ids=lambda how: how["name"])
def test_the_noise_comes_first_and_costs_the_same(tmp_path, rows_are_judged_here, monkeypatch, how):
    """What is compressed is what would have left without compression, to the bit, and the ledger says the same of both."""
    federation, plain = make(tmp_path / "one", how), small_federation.make(tmp_path / "plain")
    planned = federation.plan()
    compressed_D = computed(monkeypatch, federation, planned, "north")
    site, terms = federation.site("north"), planned.plan.agreed
    order, rows = site_round.authorise(site, "spring", 1, 1, "train"), read_site_rows(site)
    said = federation.collect(planned).admitted["north"].answer
    assert said.update.mechanism.kind == "dp_sgd"
    given, draws = inputs.read(site, order, rows, lambda: False), SiteDraws(site.noise_secret, order.digest, rows.digest)
    trained = train(site.recipe, Lesson(given.base, given.train), terms.training, said.update.mechanism,
                    draws.training(None, {}), UNGUARDED)
    assert np.array_equal(compressed_D, codec.flatten(trained.delta))
    assert not np.array_equal(compressed_D, arrived(federation, planned, "north"))
    plain.answer("north", plain.plan())
    without = plain.collect(plain.plan()).admitted["north"].answer
    assert (said.mechanisms, said.epsilon) == (without.mechanisms, without.epsilon)


@pytest.mark.parametrize("how", KINDS[2:], ids=lambda how: how["name"])
def test_what_arrived_and_what_waits_are_together_what_was_computed(tmp_path, rows_are_judged_here, monkeypatch, how):
    federation, total_D, arrived_D = make(tmp_path, how), np.zeros(17), np.zeros(17)
    for number in (1, 2, 3):
        planned = federation.plan()
        total_D += computed(monkeypatch, federation, planned, "north")
        arrived_D += arrived(federation, planned, "north")
        for name in ("east", "south"):
            federation.answer(name, planned)
        federation.commit(planned)
        path = federation.root / "north" / "kept" / "spring" / "residual" / f"{number:05d}-01.safetensors"
        waits_D = codec.flatten(codec.decode(path.read_bytes(), planned.plan.tensors, "residual"))
        assert arrived_D + waits_D == pytest.approx(total_D, abs=1e-5)
        assert np.abs(waits_D).max() > 1e-3
    assert len(list(path.parent.iterdir())) == 2        # older ones than a retry needs are gone


@pytest.mark.parametrize("how", [KINDS[1], KINDS[2]], ids=lambda how: how["name"])
@pytest.mark.parametrize("where", ["send", "release"])
def test_killed_and_started_again_it_ends_with_the_same_bytes(tmp_path, rows_are_judged_here, how, where):
    federation = make(tmp_path / "one", how)
    federation.round()
    planned = federation.plan()
    undisturbed = federation.undisturbed("north", planned, tmp_path / "other")
    federation.killed("north", planned, *((work, "send") if where == "send" else (site_round.release, "release")))
    federation.answer("north", planned)
    kept = [sorted((path.relative_to(one.root), path.read_bytes()) for path in one.root.glob("north/kept/**/*.safetensors"))
            for one in (federation, undisturbed)]
    assert kept[0] == kept[1]
    assert store_path(federation, planned, "north").read_bytes() == store_path(undisturbed, planned, "north").read_bytes()


def test_a_residual_that_a_backup_brought_back_is_not_sent_twice(tmp_path, rows_are_judged_here, monkeypatch):
    federation = make(tmp_path, KINDS[2])
    federation.round()
    folder = federation.root / "north" / "kept" / "spring" / "residual"
    old = (folder / "00001-01.safetensors").read_bytes()
    federation.round()
    (folder / "00002-01.safetensors").unlink()
    (folder / "00001-01.safetensors").write_bytes(old)
    planned = federation.plan()
    alone_D = computed(monkeypatch, federation, planned, "north")
    found_D = arrived(federation, planned, "north")
    assert np.array_equal(found_D[found_D != 0], alone_D[found_D != 0])


def test_quantised_updates_carry_scaffold(tmp_path, rows_are_judged_here):
    """c is the mean of all c_i, of what arrived."""
    training = {"local_steps": 3, "batch_size": 32, "learning_rate": 0.5, "algorithm": {"name": "scaffold"}}
    federation = make(tmp_path, KINDS[1], training=training)
    federation.round()
    planned = federation.plan()
    weight = {site.name: site.weight for site in federation.coordinator.federation.sites}
    own = [weight[name] * codec.flatten(codec.decode(
        (federation.root / name / "kept" / "spring" / "control" / "00001-01.safetensors").read_bytes(), planned.plan.tensors,
        "control")) for name in NAMES]
    stored = federation.root / "store" / layout.model(named(planned.plan.asks.state, "control"))
    server = codec.decode(stored.read_bytes(), planned.plan.tensors,
                          "control")
    assert codec.flatten(server) == pytest.approx(sum(own) / sum(weight.values()), abs=1e-4)


# -- the law of the noise ----------------------------------------------------------------------------------------------

CROWD = ("ash", "birch", "cedar", "elm", "fir", "oak", "pine")
LOUD = {"names": CROWD, "recipe": small_federation.WIDE, "max_epsilon": 900.0, "aggregation": None, "quorum": 5,
        "evaluation": {"bins": 10, "noise_std": 40.0},
        "privacy": {"unit": "record", "epsilon": 1.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 6}}


@pytest.mark.parametrize("bits", [8, 4])
def test_a_gate_judges_quantised_updates_by_a_law_that_knows_of_it(tmp_path, rows_are_judged_here, bits):
    """Honest sites pass, the one who sends hardly any noise does not."""
    federation = make(tmp_path, {"name": "quantised", "bits": bits}, **LOUD)
    planned = federation.plan()
    for name in CROWD:
        federation.answer(name, planned)
    lie_with(federation, "fir", planned, lambda honest_D: 0.01 * honest_D)
    collected = federation.collect(planned)
    row, plain = collected.admitted["ash"].row, np.empty(24_001, np.float32)
    row.read(0, plain)
    assert np.square(plain.astype(float)).mean() == pytest.approx(row.law.variance, rel=5 * np.sqrt(2 / 24_001))
    commit = federation.commit(planned).commit
    verdicts = {update.site: update.verdict for update in commit.updates}
    assert verdicts.pop("fir") != "used"
    assert set(verdicts.values()) == {"used"}
    assert commit.note == ""


def lie_with(federation: SmallFederation, name: str, planned, change) -> None:
    """A member sends other numbers, well compressed and well signed."""
    honest_D = arrived(federation, planned, name)
    send(federation, name, planned, wire.compress(change(honest_D).astype(np.float32), planned.plan.agreed.compression,
                                                  np.random.default_rng(0).random, bytes.fromhex(planned.digest)))


def send(federation: SmallFederation, name: str, planned, body: bytes) -> None:
    """A member sends these bytes under its own good signature."""
    plan, site = planned.plan, federation.site(name)
    answer = federation.root / "store" / layout.answer(name, plan.run, plan.round, plan.attempt, plan.asks.kind)
    said = unseal(answer.read_bytes(), Answer, site.identity.key, name)
    update = said.update.model_copy(update={"payload": codec.payload_of(body)})
    for path, new in ((store_path(federation, planned, name), body),
                      (answer, seal(said.model_copy(update={"update": update}), site.identity))):
        path.chmod(0o600)
        path.write_bytes(new)


def test_steps_that_noise_cannot_blur_are_not_admitted_behind_a_gate(tmp_path, rows_are_judged_here):
    """A site that makes its steps long could hide anything in what rounding is said to add."""
    federation = make(tmp_path, {"name": "quantised", "bits": 4}, **LOUD)
    planned = federation.plan()
    for name in CROWD:
        federation.answer(name, planned)

    def one_long_number(honest_D):
        honest_D[0] = 100 * np.abs(honest_D).max()
        return honest_D

    lie_with(federation, "fir", planned, one_long_number)
    collected = federation.collect(planned)
    assert set(collected.rejected) == {"fir"}
    assert "too long for noise" in collected.rejected["fir"].reason


@pytest.mark.parametrize("how", KINDS[2:], ids=lambda how: how["name"])
def test_what_leaves_no_law_is_refused_with_a_gate_and_with_scaffold(tmp_path, rows_are_judged_here, how):
    with pytest.raises(ContractError, match="gate"):
        make(tmp_path / "a", how, aggregation={"gate": {"f": 0}, "rule": {"name": "weighted_mean"}})
    with pytest.raises(ContractError, match="scaffold"):
        make(tmp_path / "b", how, training={"algorithm": {"name": "scaffold"}})
    federation = make(tmp_path / "c", how, names=CROWD, aggregation=None, quorum=5)
    assert str(federation.coordinator.federation.how_to_aggregate()) == "spectral_filter(f=1)"


# -- attacks -----------------------------------------------------------------------------------------------------------


def after(body: bytes, how) -> bytearray:
    return bytearray(body[len(wire.form(how, 17).header):])


ATTACKS = {
    "uncompressed": (Quantised(), lambda body, how: codec.encode({"x": np.ones(17, np.float32)}), "bytes, expected"),
    "another compression": (Quantised(), lambda body, how: wire.compress(
        np.ones(17, np.float32), TopK(share=0.2), np.zeros, b""), "bytes, expected"),
    "one byte more": (Quantised(), lambda body, how: body + b"\0", "bytes, expected"),
    "another header": (Quantised(), lambda body, how: body.replace(b'"I8"', b'"U8"'), "tensors are not"),
    "an infinite scale": (Quantised(), lambda body, how: body.replace(
        bytes(after(body, how)[:4]), np.float32(np.inf).tobytes()), "finite"),
    "a second file for the same numbers": (Quantised(), lambda body, how: body[:-17] + bytes(17), "127 steps"),
    "places that do not exist": (TopK(share=0.2), lambda body, how: body[:-32] + np.array(
        [0, 1, 2, 17], "<u4").tobytes() + body[-16:], "below 17"),
    "a place twice": (TopK(share=0.2), lambda body, how: body[:-32] + np.array([0, 1, 1, 2], "<u4").tobytes() + body[-16:],
                      "ascend")}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_malformed_payload_is_not_admitted_and_the_round_goes_on(tmp_path, rows_are_judged_here, attack):
    how, change, says = attack
    federation = make(tmp_path, how.model_dump())
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    send(federation, "east", planned, change(store_path(federation, planned, "east").read_bytes(), how))
    collected = federation.collect(planned)
    assert set(collected.rejected) == {"east"}
    assert says in collected.rejected["east"].reason
    assert {update.site for update in federation.commit(planned).commit.updates} == {"north", "south"}


def test_a_file_that_is_longer_than_the_plan_says_is_never_read_to_its_end(tmp_path, rows_are_judged_here):
    """The size comes from the plan; what the site declares is compared with it before a byte is fetched."""
    federation = make(tmp_path, KINDS[0])
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    body = store_path(federation, planned, "east").read_bytes()
    send(federation, "east", planned, body + bytes(1 << 20))
    assert f"expected {len(body)}" in federation.collect(planned).rejected["east"].reason
    assert not list((federation.root / "coordinator" / "spool").rglob("east*"))
