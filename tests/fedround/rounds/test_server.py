"""The server's half of a round: what is aggregated, what is remembered, and what the next round begins with."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.aggregation import engine
from fedround.aggregation.gate import fits_its_law
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import ArrayNumbers, Row
from fedround.aggregation.rules import CenteredClipping, TrimmedMean, WeightedMean
from fedround.aggregation.spec import Aggregation, Gate
from fedround.aggregation.verdict import Verdict
from fedround.aggregation.weighing import QFair
from fedround.agreement import Agreement
from fedround.codec import flatten
from fedround.compression.spec import Quantised, TopK
from fedround.errors import ContractError
from fedround.learning.algorithms import Scaffold
from fedround.learning.law import law_of
from fedround.learning.tasks import CLASSIFY, Classify
from fedround.privacy.spec import DpSgd
from fedround.rounds import server
from fedround.rounds.server import Memory, Server, combine, keeps_centre, law, read, share_of, step, weigh
from fedround.rounds.site import declare
from fedround.statistics import Release, Scores

D = 301
MEAN = Aggregation(rule=WeightedMean())
SGD = DpSgd(noise_multiplier=2.0, clip_norm=1.0, sampling_rate=0.5, steps=3)


def agreed(**changes: object) -> Agreement:
    return Agreement.model_validate({
        "name": "rounds", "quorum": 1, "privacy": {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 5},
        "aggregation": MEAN, "training": {"local_steps": 3, "batch_size": 16, "learning_rate": 0.5}} | changes)


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=D).astype(np.float32)


def row(site: str, update_D: np.ndarray, weight: float = 1.0, noise: NoiseLaw | None = None) -> Row:
    return Row(site, weight, ArrayNumbers(update_D), noise)


def shelf(_: str, blocks) -> ArrayNumbers:
    return ArrayNumbers(np.concatenate(list(blocks)))


# -- from updates to one delta -----------------------------------------------------------------------------------------


def test_without_a_history_it_is_what_the_engine_makes_of_the_rows_and_nothing_is_remembered():
    rows = [row(name, vector(seed), seed + 1.0) for seed, name in enumerate("abc")]
    done = combine(MEAN, D, rows, Memory(), shelf, seed=b"seed")
    assert done.result.delta_D.tobytes() == engine.aggregate(rows, MEAN, D, seed=b"seed").delta_D.tobytes()
    assert done.averages == done.remember({}) == {}
    assert done.used == ["a", "b", "c"]


@given(st.integers(1, 5), st.sampled_from([0.3, 0.5, 0.9]))
def test_with_a_history_the_mean_is_of_moving_averages_whose_weights_add_up_to_one(rounds, beta):
    """Of T uploads the one that is a rounds old counts beta^a, in shares."""
    how, memory = MEAN.model_copy(update={"history": beta}), Memory()
    for number in range(rounds):
        rows = [row("a", vector(number)), row("b", vector(100 + number), 3.0)]
        done = combine(how, D, rows, memory, shelf, seed=b"")
        memory = Memory(done.remember(memory.averages))
    weight_T = np.array([beta ** (rounds - 1 - number) for number in range(rounds)])
    weight_T /= weight_T.sum()
    expected_D = sum(share * (vector(number).astype(float) + 3 * vector(100 + number)) / 4
                     for number, share in enumerate(weight_T))
    assert done.result.delta_D == pytest.approx(expected_D, abs=1e-5)
    assert list(memory.averages) == ["a", "b"]


def test_who_misses_a_round_keeps_its_average_and_who_joins_begins_anew():
    how = MEAN.model_copy(update={"history": 0.5})
    first = combine(how, D, [row("a", vector(0)), row("b", vector(1))], Memory(), shelf, seed=b"").remember({})
    second = combine(how, D, [row("b", vector(2)), row("c", vector(3))], Memory(first), shelf, seed=b"").remember(first)
    assert list(second) == ["a", "b", "c"]
    assert second["a"] is first["a"]
    assert second["b"].history.weight == 1.5
    assert read(second["c"].numbers, 0, D).tobytes() == vector(3).tobytes()
    assert read(second["c"].numbers, 7, 5).tobytes() == vector(3)[7:12].tobytes()


def test_an_update_that_was_left_out_is_not_remembered():
    how = MEAN.model_copy(update={"history": 0.5})
    honest, hostile = vector(0), vector(1)
    hostile[5] = np.nan
    done = combine(how, D, [row("a", honest), row("b", hostile)], Memory(), shelf, seed=b"")
    assert done.result.standings["b"].verdict is Verdict.NOT_FINITE
    assert done.used == ["a"]
    assert set(done.averages) == {"a", "b"}
    assert list(done.remember({})) == ["a"]
    before = combine(how, D, [row("b", honest)], Memory(), shelf, seed=b"").remember({})
    kept = combine(how, D, [row("a", honest), row("b", hostile)], Memory(before), shelf, seed=b"").remember(before)
    assert kept["b"] is before["b"]


def test_attack_one_upload_without_its_noise_does_not_hide_in_an_average():
    """The average of a loud past and one silent upload fits its law; so the gate is shown the upload itself."""
    noise, size, names = NoiseLaw(signal_bound=0.1, variance=1.0), 300, "abcde"
    how = Aggregation(rule=TrimmedMean(f=1), gate=Gate(f=1), history=0.95)
    draws, memory = np.random.default_rng(0), Memory()

    def honest() -> np.ndarray:
        return draws.normal(size=size).astype(np.float32)

    for _ in range(8):
        done = combine(how, size, [row(name, honest(), noise=noise) for name in names], memory, shelf, seed=b"")
        memory = Memory(done.remember(memory.averages))
        assert done.used == list(names)
    silent = np.zeros(size, np.float32)
    done = combine(how, size, [row(name, silent if name == "a" else honest(), noise=noise) for name in names], memory, shelf,
                   seed=b"")
    hidden = done.averages["a"]
    assert fits_its_law(float(np.linalg.norm(read(hidden.numbers, 0, size))), hidden.history.law, how.gate, size)
    assert done.used == list(names[1:])
    assert done.remember(memory.averages)["a"] is memory.averages["a"]


@given(st.sampled_from([1e-6, 1.0, 1e6]))
def test_whether_an_average_is_shown_does_not_hang_on_the_unit_of_the_numbers(unit):
    noise, size = NoiseLaw(signal_bound=0.1 * unit, variance=unit ** 2), 300
    how = Aggregation(rule=TrimmedMean(f=1), gate=Gate(f=1), history=0.5)
    draws, memory, shown = np.random.default_rng(0), Memory(), []
    for _ in range(2):
        rows = [row(name, (unit * draws.normal(size=size)).astype(np.float32), noise=noise) for name in "abcde"]
        done = combine(how, size, rows, memory, shelf, seed=b"")
        memory = Memory(done.remember(memory.averages))
        shown.append([one.numbers is done.averages[one.site].numbers for one in done.rows])
    assert shown == [[True] * 5] * 2


@pytest.mark.parametrize("block", [1, 100, D, 10 * D])
def test_averages_are_the_same_whatever_is_read_at_once(block, monkeypatch):
    how, found = MEAN.model_copy(update={"history": 0.5}), []
    for size in (block, 1 << 18):
        monkeypatch.setattr(server, "_BLOCK", size)
        first = combine(how, D, [row("a", vector(0))], Memory(), shelf, seed=b"").remember({})
        found.append(combine(how, D, [row("a", vector(1))], Memory(first), shelf, seed=b"").averages["a"])
    assert read(found[0].numbers, 0, D).tobytes() == read(found[1].numbers, 0, D).tobytes()


def test_the_engine_is_told_all_that_the_combination_was_told(monkeypatch):
    told = []
    monkeypatch.setattr(engine, "aggregate", lambda rows, how, size, **named: told.append(named))
    root, centre, sweeper = ArrayNumbers(vector(7)), ArrayNumbers(vector(8)), object()
    named = {"seed": b"seed", "root": root, "memory_budget_bytes": 1 << 20, "sweeper": sweeper}
    combine(MEAN, D, [row("a", vector(1))], Memory(centre=centre), shelf, **named)
    assert told == [{**named, "centre": centre}]


def test_a_rule_begins_where_the_memory_says():
    how = Aggregation(rule=CenteredClipping(radius=0.1))
    assert keeps_centre(how)
    assert not keeps_centre(MEAN)
    rows, far = [row(name, vector(seed)) for seed, name in enumerate("abc")], ArrayNumbers(np.full(D, 5.0, np.float32))
    origin, elsewhere = (combine(how, D, rows, Memory(centre=centre), shelf, seed=b"").result.delta_D
                         for centre in (None, far))
    assert elsewhere.tobytes() == engine.aggregate(rows, how, D, centre=far).delta_D.tobytes()
    assert np.linalg.norm(origin) < 1 < np.linalg.norm(elsewhere - origin)


# -- what everybody counts ---------------------------------------------------------------------------------------------

WEIGHTS = {"a": 1.0, "b": 3.0, "c": 4.0}
TASK = Classify()


def told(right: float, wrong: float) -> Release:
    statistic = Scores(noise_std=0.0, bins=2)
    return Release(statistic=statistic, numbers=(right, wrong, wrong, right), mechanism=statistic.mechanism)


def test_without_fairness_everybody_counts_what_was_agreed_whatever_is_told():
    terms = agreed().terms()
    assert weigh(terms, TASK, WEIGHTS, {"a": told(1, 99)}, {"a": 0.5}) == WEIGHTS


def test_with_fairness_who_loses_more_counts_more_and_who_says_nothing_counts_as_the_median():
    fair = agreed(aggregation=MEAN.model_copy(update={"fairness": QFair(q=1.0, cap=10.0)})).terms()
    said = {"a": told(10, 90), "b": told(90, 10), "c": None}
    weights = weigh(fair, TASK, dict.fromkeys("abc", 1.0), said, {})
    losses = [TASK.mean_loss(said["a"]), TASK.mean_loss(said["b"])]
    expected = np.array([*losses, np.median(losses)]) / np.median(losses)
    assert [weights[name] for name in "abc"] == pytest.approx(expected / expected.sum())


@given(st.sets(st.sampled_from("abc"), min_size=1))
def test_a_share_is_of_the_whole_federation_by_weight_or_by_heads(used):
    by_weight = sum(WEIGHTS[name] for name in used) / 8
    assert share_of(sorted(used), WEIGHTS, weighted=True) == pytest.approx(by_weight)
    assert share_of(list(used)[::-1], WEIGHTS, weighted=False) == pytest.approx(len(used) / 3)
    assert share_of("abc", WEIGHTS, weighted=True) == 1.0


def test_a_share_is_the_same_to_the_last_bit_whoever_arrives_first():
    weights = {"a": 0.2, "b": 0.1, "c": 0.9, "d": 0.5}
    shares = {share_of(order, dict(items), weighted=True) for order in itertools.permutations("abc")
              for items in (weights.items(), reversed(weights.items()))}
    assert len(shares) == 1


# -- what the noise is -------------------------------------------------------------------------------------------------


def nothing(start: int, count: int) -> bytes:
    raise AssertionError("numbers that travel as they are have no file")


def test_the_law_of_an_upload_is_that_of_its_training_with_what_the_site_said():
    terms = agreed().terms()
    for said, rows, steps in ((declare(SGD, terms.training, 40, 3, None), None, None),
                              (declare(SGD, terms.training, 40, 2, None), None, 2),
                              (declare(SGD.model_copy(update={"sampling_rate": 1.0}), terms.training, 9, 3, None), 9, None)):
        assert law(terms, said, nothing, D, "site 'a'") == law_of(said.mechanism, terms.training, rows, steps)


def test_compression_adds_to_the_law_or_leaves_none_and_a_gate_that_needs_one_is_told():
    said = declare(SGD, agreed().training, 40, 3, None)
    sparse = agreed(compression=TopK(share=0.1)).terms()
    assert law(sparse, said, nothing, D, "site 'a'") is None
    coarse = agreed(compression=Quantised(bits=4), aggregation=Aggregation(rule=WeightedMean(), gate=Gate(f=0))).terms()

    def long_steps(start: int, count: int) -> bytes:
        return np.full(count // 4 + 1, 1e6, "<f4").tobytes()[:count]

    with pytest.raises(ContractError, match="site 'a': its steps of"):
        law(coarse, said, long_steps, D, "site 'a'")


# -- the next model ----------------------------------------------------------------------------------------------------

MODEL = {"0.weight": np.ones((2, 3), np.float32), "0.bias": np.zeros(2, np.float32)}


def test_a_step_moves_the_model_and_continues_the_optimizer():
    terms = agreed(optimizer={"name": "fedavg", "learning_rate": 0.5, "momentum": 0.5}).terms()
    delta_D = np.arange(8, dtype=np.float32)
    one = step(terms, CLASSIFY, Server(MODEL), delta_D, "abc", WEIGHTS)
    two = step(terms, CLASSIFY, one, delta_D, "abc", WEIGHTS)
    assert Server(MODEL).size(terms) == 8
    assert flatten(one.model) == pytest.approx(flatten(MODEL) + 0.5 * delta_D)
    assert flatten(two.model) == pytest.approx(flatten(one.model) + 0.5 * 1.5 * delta_D)
    assert one.optimizer["velocity"].tolist() == delta_D.tolist()
    assert one.served == {}


@pytest.mark.parametrize(("rule", "share"), [(WeightedMean(), 4 / 8), (TrimmedMean(f=0), 2 / 3)], ids=["weight", "heads"])
def test_what_is_served_stands_for_the_share_of_the_federation_that_was_used(rule, share):
    training = {"local_steps": 4, "learning_rate": 0.25, "algorithm": {"name": "scaffold"}}
    terms = agreed(aggregation=Aggregation(rule=rule), training=training).terms()
    delta_D, past_D = np.ones(8, np.float32), np.full(8, 2.0, np.float32)
    after = step(terms, CLASSIFY, Server(MODEL, served={"control": past_D}), delta_D, ["a", "b"], WEIGHTS)
    expected = Scaffold().at_server({"control": past_D}, delta_D, terms.training, share)
    assert after.served["control"].tolist() == expected["control"].tolist()
    assert after.served["control"][0] == pytest.approx((1 - share) * 2 - share * 1)


def test_a_step_leaves_what_it_began_with_as_it_was():
    before = Server({name: array.copy() for name, array in MODEL.items()})
    step(agreed().terms(), CLASSIFY, before, np.ones(8, np.float32), "abc", WEIGHTS)
    assert flatten(before.model).tolist() == flatten(MODEL).tolist()
    assert dataclasses.replace(before).optimizer is None
