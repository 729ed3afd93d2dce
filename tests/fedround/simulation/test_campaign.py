"""The simulator's laws: what does not change a result, what is refused, and what a result says."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from fedround.aggregation import engine
from fedround.aggregation.rows import ArrayNumbers, Row
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.aggregation.staleness import Pace
from fedround.aggregation.verdict import Verdict
from fedround.agreement import Agreement
from fedround.codec import encode, flatten
from fedround.errors import ContractError, QuorumError
from fedround.hours import Closed
from fedround.learning.algorithms import FedProx
from fedround.learning.decay import Decay
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.parts import NO_REST
from fedround.learning.recipe import Recipe, initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Classify
from fedround.privacy.spec import NoPrivacy, PersonPrivacy, RecordPrivacy
from fedround.selection import Random
from fedround.simulation import sites as sites_module
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.crew import Trainer
from fedround.simulation.crowd import FEW, mean_of_crowd
from fedround.simulation.partition import Dirichlet, deal, take
from fedround.simulation.sites import Site, Sites
from fedround.simulation.spool import Updates
from fedround.standing import Reputation

RECIPE = Recipe("blobs", "0" * 64, lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), lambda rows: rows,
                Classify(classes=3))
AGREED = Agreement(name="blobs", quorum=1, privacy=NoPrivacy(), aggregation=Aggregation(rule=WeightedMean()),
                   training=LocalTraining(local_steps=4, batch_size=16, learning_rate=0.3))
PRIVATE = AGREED.model_copy(update={"privacy": RecordPrivacy(epsilon=8.0, delta_dp=1e-5, rounds=3)})


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def blobs(rows: int, seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, rows)
    centres = 1.5 * np.eye(4)[:3]
    return Examples((centres[labels] + generator.normal(size=(rows, 4))).astype(np.float32), labels)


def some_sites(count: int, rows: int = 600) -> dict[str, Site]:
    examples, held_out = blobs(rows), blobs(rows, seed=1)
    parts = deal(Dirichlet(concentration=1.0), examples, count, seed=0)
    return {name: Site(take(examples, places), take(held_out, places)) for name, places in parts.items()}


def model_of(**asked) -> bytes:
    given = {"agreement": AGREED, "recipe": RECIPE, "sites": some_sites(10), "rounds": 3, "chance": Seeded(0), **asked}
    return encode(simulate(**given).model)


def test_it_learns_and_says_how_well():
    result = simulate(AGREED, RECIPE, some_sites(10), rounds=15, chance=Seeded(0), test=blobs(400, seed=2), judge_every=5)
    reached = [one.test.accuracy for one in result.rounds if one.test is not None]
    assert len(reached) == 3
    assert reached[-1] > 0.65
    assert result.last.validation.accuracy == pytest.approx(reached[-1], abs=0.08)
    assert 5 < len(result.at_sites) <= 10
    assert result.epsilon is None


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("agreement", [AGREED, PRIVATE], ids=["plain", "private"])
def test_same_seed_same_bytes_another_seed_others(agreement, stacked):
    given = some_sites(10 if agreement is AGREED else 3)       # noise is calibrated for each size
    one, same, other = (model_of(agreement=agreement, sites=given, stacked=stacked, chance=Seeded(seed))
                        for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize("stacked", [False, True])
def test_the_order_in_which_sites_are_given_does_not_matter(stacked):
    given = some_sites(10)
    backwards = dict(reversed(given.items()))
    assert model_of(sites=given, stacked=stacked) == model_of(sites=backwards, stacked=stacked)


@pytest.mark.parametrize("sites", [10, FEW + 6])
def test_updates_in_a_file_give_the_bytes_of_updates_in_memory(sites):
    given = some_sites(sites)
    assert model_of(sites=given, memory_bytes=0, stacked=True) == model_of(sites=given, stacked=True)


def test_stacked_training_ends_where_training_one_by_one_does():
    """With every row in every step nothing is drawn, so only rounding differs."""
    whole = AGREED.model_copy(update={"training": AGREED.training.model_copy(update={"batch_size": 1000})})
    one_by_one, together = (simulate(whole, RECIPE, some_sites(10), rounds=3, chance=Seeded(0), stacked=stacked)
                            for stacked in (False, True))
    assert flatten(together.model) == pytest.approx(flatten(one_by_one.model), abs=1e-5)
    assert together.notes == one_by_one.notes == ()


def test_the_mean_of_a_crowd_has_the_engines_bytes_and_leaves_out_whom_it_leaves_out():
    generator = np.random.default_rng(0)
    rows_ND = generator.normal(size=(FEW + 9, 301)).astype(np.float32)
    rows_ND[3, 7], rows_ND[5] = np.nan, rows_ND[5] * 1e9
    weights = {f"site-{n:02d}": float(weight) for n, weight in enumerate(generator.integers(1, 500, len(rows_ND)))}
    rows = [Row(site, weight, ArrayNumbers(row_D)) for (site, weight), row_D in zip(weights.items(), rows_ND, strict=True)]
    by_engine = engine.aggregate(rows, Aggregation(rule=WeightedMean()), 301)
    with Updates(len(rows_ND), 301) as updates:
        updates.put(range(len(rows_ND)), rows_ND)
        by_us = mean_of_crowd(updates, weights, 301)
    assert by_us.delta_D.tobytes() == by_engine.delta_D.tobytes()
    assert by_us.verdicts == {site: standing.verdict for site, standing in by_engine.standings.items()}
    assert by_us.verdicts["site-03"] is Verdict.NOT_FINITE
    assert by_us.verdicts["site-05"] is Verdict.NORM


def test_a_crowd_in_a_file_is_averaged_in_little_memory(tmp_path):
    sites, size = 400, 25_000                   # 40 MB
    with Updates(sites, size, memory_bytes=0) as updates:
        for place in range(sites):
            updates.put([place], np.full((1, size), float(place), np.float32))
        tracemalloc.start()
        agreed = mean_of_crowd(updates, {f"{place:04d}": 1.0 for place in range(sites)}, size)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert agreed.delta_D == pytest.approx(np.full(size, (sites - 1) / 2))
    assert peak < 10 << 20


def test_a_share_of_the_sites_is_asked_another_in_every_round():
    result = simulate(AGREED, RECIPE, some_sites(20), rounds=8, chance=Seeded(3), share=0.25)
    assert {one.asked for one in result.rounds} == {5}
    assert sum(result.took_part.values()) == 40
    assert len(result.took_part) > 10, "sites that were drawn at least once"
    assert result.last.received_bytes == 5 * len(encode(result.model))
    assert result.sent_bytes == 8 * 2 * 5 * len(encode(result.model))


def test_epsilon_is_what_was_agreed_when_all_rounds_are_run_and_less_before():
    whole, part = (simulate(PRIVATE, RECIPE, some_sites(3), rounds=rounds, chance=Seeded(0), stacked=True).epsilon
                   for rounds in (3, 1))
    assert part < 7.5 < whole <= 8.0
    with pytest.raises(ContractError, match="pays for 3 rounds, 4 are asked"):
        simulate(PRIVATE, RECIPE, some_sites(3), rounds=4, chance=Seeded(0))


def test_noise_is_calibrated_for_a_few_sizes_and_never_too_small(monkeypatch):
    exact = simulate(PRIVATE, RECIPE, some_sites(5), rounds=1, chance=Seeded(0), stacked=True)
    monkeypatch.setattr(sites_module, "MOST_SIZES", 3)
    rounded = simulate(PRIVATE, RECIPE, some_sites(5), rounds=1, chance=Seeded(0), stacked=True)
    assert "calibrated for 3 of them" in rounded.notes[0]
    for site, mechanism in exact.mechanisms.items():
        assert rounded.mechanisms[site].noise_multiplier >= mechanism.noise_multiplier
        assert rounded.mechanisms[site].sampling_rate == mechanism.sampling_rate
    assert len({mechanism.noise_multiplier for mechanism in rounded.mechanisms.values()}) == 3


def test_stragglers_do_less_where_partial_work_is_kept():
    keeping = AGREED.model_copy(update={"training": LocalTraining(
        local_steps=4, batch_size=16, learning_rate=0.3, partial="keep", algorithm=FedProx(mu=0.1))})
    slow = model_of(agreement=keeping, steps=lambda number, site: 1, stacked=True)
    one_step = keeping.model_copy(update={"training": keeping.training.model_copy(update={"local_steps": 1})})
    assert slow != model_of(agreement=keeping, stacked=True)
    assert model_of(agreement=keeping, steps=lambda number, site: 1, rounds=1) == model_of(agreement=one_step, rounds=1)


def test_a_model_that_cannot_be_stacked_is_trained_one_by_one_and_that_is_said():
    class Branches(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2.0 if x.sum() > 0 else 1.0)

    recipe = dataclasses.replace(RECIPE, build_model=lambda: Branches(4, 3))
    asked, plain = (simulate(AGREED, recipe, some_sites(4), rounds=2, chance=Seeded(0), stacked=stacked)
                    for stacked in (True, False))
    assert "trained one by one: its model cannot be stacked" in asked.notes[0]
    assert encode(asked.model) == encode(plain.model)


def test_a_warm_start_is_where_round_one_begins():
    begun = {name: array + 1 for name, array in initial_tensors(RECIPE, 0).items()}
    assert model_of(model=begun, rounds=1) != model_of(rounds=1)
    assert model_of(model=initial_tensors(RECIPE, 0), rounds=1) == model_of(rounds=1)


def test_what_cannot_be_is_refused():
    with pytest.raises(ContractError, match="a site at least"):
        simulate(AGREED, RECIPE, {}, rounds=1, chance=Seeded(0))
    with pytest.raises(ContractError, match="a share of sites above 0"):
        model_of(share=0.0)
    with pytest.raises(QuorumError, match="the quorum is 11"):
        model_of(agreement=AGREED.model_copy(update={"quorum": 11}))
    with pytest.raises(ContractError, match="from 0 to 2"):
        model_of(sites={"one": Site(Examples(np.zeros((2, 4), np.float32), np.array([0, 3])))})


def test_no_two_things_that_a_seed_draws_for_a_site_are_the_same():
    """Two releases with the same noise would tell their difference: a simulated one would look better than a live one."""
    def streams(seed: int, number: int, site: str):
        draws = Seeded(seed).of(number, site)
        return (*(draws.statistic(place, {}) for place in (0, 1)), draws.training(None, {}), draws.compression(),
                draws.personal())

    whose = [(0, 1, "a"), (0, 1, "b"), (0, 2, "a"), (1, 1, "a")]
    drawn = [tuple(one.random(3)) for who in whose for one in (*streams(*who), Seeded(who[0]).root(who[1]))]
    assert len(set(drawn)) == 4 * 5 + 3, "the coordinator's own rows have no site"
    assert [tuple(one.random(3)) for one in streams(0, 1, "a")] == drawn[:5]


def test_what_was_agreed_and_is_not_simulated_is_said():
    agreed = AGREED.model_copy(update={"enough": 2, "pace": Pace(max_age=2)})
    sites = {name: dataclasses.replace(site, closed=(Closed(first="2026-12-24", last="2026-12-26"),))
             for name, site in some_sites(3).items()}
    late, away = simulate(agreed, RECIPE, sites, rounds=1, chance=Seeded(0)).notes
    assert "nobody is late without a clock, so [pace], 'enough' changes nothing" in late
    assert "nobody is away without a calendar" in away


# -- whom a round asks, and how it trains -------------------------------------------------------------------------------


def test_attack_who_sends_nonsense_sits_out_as_agreed_and_the_model_follows_the_others():
    """The crew stands for a site that lies: its updates are not finite."""
    agreed = AGREED.model_copy(update={"reputation": Reputation(window=3, exclude_after=2, exclude_for=2)})
    sites = some_sites(4)
    honest = Trainer(RECIPE, {name: site.train for name, site in sites.items()}, agreed.training, Seeded(0))

    def lying(chunks):
        for chunk in chunks:
            learnt = honest.train(chunk)
            for place, job in enumerate(chunk.jobs):
                if job.site == min(sites):
                    learnt.delta_SD[place] = np.nan
            yield learnt

    result = simulate(agreed, RECIPE, sites, rounds=6, chance=Seeded(0), crew=lying)
    assert [one.unasked for one in result.rounds] == [(), (), (min(sites),), (min(sites),), (), ()]
    liar, *others = result.participation.parts
    assert (liar.asked, liar.answered, liar.used, liar.weight) == (4, 4, 0, 0.0)
    assert all(part.used == 6 for part in others)
    assert result.participation.moved == pytest.approx(liar.agreed)


def test_a_selection_lets_a_run_be_longer_than_its_promise_and_who_has_given_all_refuses():
    agreed = PRIVATE.model_copy(update={"selection": Random(sites=3, within=2)})
    result = simulate(agreed, RECIPE, some_sites(4), rounds=4, chance=Seeded(0), stacked=True)
    assert max(result.took_part.values()) == 3
    assert sum(result.took_part.values()) + sum(len(one.refused) for one in result.rounds) == 4 * 3
    assert result.epsilon <= 8.0
    with pytest.raises(ContractError, match=r"\[selection\] says who is asked in each round: leave 'share' out"):
        simulate(agreed, RECIPE, some_sites(4), rounds=1, chance=Seeded(0), share=0.5)
    with pytest.raises(ContractError, match="selection: 3 sites are asked in each round, and there are 2"):
        simulate(agreed, RECIPE, some_sites(2), rounds=1, chance=Seeded(0))


@pytest.mark.parametrize("of", ["learning_rate", "local_steps"])
def test_a_rule_lowers_what_stacked_sites_do_as_if_it_had_been_agreed_so(of):
    """Rounds 2 and 3 of a decay are two rounds of what it leaves, from the model of the first."""
    def agreed(**changed) -> Agreement:
        return AGREED.model_copy(update={"training": AGREED.training.model_copy(update=changed)})

    rule = Decay(of=of, factor=0.5, least=0.5, every=1)
    sites, rate = some_sites(5), {"learning_rate": 0.15} if of == "learning_rate" else {"local_steps": 2}
    asked = {"recipe": RECIPE, "sites": sites, "stacked": True}
    first = simulate(agreement=AGREED, rounds=1, chance=Seeded(0), **asked)
    whole = simulate(agreement=agreed(rule=rule), rounds=2, chance=Seeded(0), **asked)
    second = simulate(agreement=agreed(**rate), rounds=1, chance=Later(0), model=first.model, **asked)
    assert encode(whole.model) == encode(second.model)
    assert encode(whole.model) != encode(simulate(agreement=AGREED, rounds=2, chance=Seeded(0), **asked).model)


class Later(Seeded):
    """What `Seeded` draws in the round after."""

    def together(self, number: int, chunk: int) -> int:
        return super().together(number + 1, chunk)


# -- held-out rows ------------------------------------------------------------------------------------------------------


def test_rows_that_sites_hold_out_share_passes_and_are_scored_as_at_each_site_alone():
    """Bit for bit, with a site that holds out nothing, rows that count for nothing, and one of 130 rows."""
    own = blobs(40)
    some = Examples(own.inputs, own.targets, np.arange(40) % 3 > 0)
    sites = {"ash": Site(own, blobs(5)), "birch": Site(own), "cedar": Site(own, some), "elm": Site(own, blobs(130, seed=3))}
    model = initial_tensors(RECIPE, 1)
    found = Sites(AGREED.terms(), RECIPE, sites, NO_REST, Seeded(0)).scored(model)
    assert {name: len(told) for name, told in found.items()} == {"ash": 5, "cedar": 26, "elm": 130}
    for name, told in found.items():
        alone = scores(RECIPE, model, sites[name].validation)
        assert {key: part.tobytes() for key, part in told.numbers.items()} == {
            key: part.tobytes() for key, part in alone.numbers.items()}


# -- persons --------------------------------------------------------------------------------------------------------------


def test_persons_are_simulated_by_the_arithmetic_of_a_live_site_and_need_their_column():
    people = AGREED.model_copy(update={"privacy": PersonPrivacy(
        epsilon=8.0, delta_dp=1e-5, rounds=3, person="who", rows_per_person=2)})
    train, held_out = blobs(120), blobs(60, seed=1)
    who = np.arange(180) % 50
    sites = {name: Site(train, held_out, columns={"who": who}) for name in ("north", "south")}
    asked = {"agreement": people, "recipe": RECIPE, "rounds": 3, "chance": Seeded(0)}
    result = simulate(sites=sites, stacked=True, **asked)
    assert "sites are trained one by one: persons are drawn, and not rows" in result.notes
    assert {one.rows_per_person for one in result.mechanisms.values()} == {2}
    assert {one.sampling_rate for one in result.mechanisms.values()} == {16 / 50}
    assert 7.9 < result.epsilon <= 8.0
    assert encode(result.model) == encode(simulate(sites=sites, **asked).model)
    with pytest.raises(ContractError, match="site 'north': there is no column 'who'"):
        simulate(sites={name: Site(train, held_out) for name in sites}, **asked)
