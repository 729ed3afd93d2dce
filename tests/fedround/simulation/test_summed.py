"""A simulated federation that adds up: the sum is that of the sites' own numbers, on the ring of a live one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedround.agreement import Agreement
from fedround.errors import ContractError, QuorumError
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe, initial
from fedround.learning.trees.declared import builder_of
from fedround.learning.trees.spec import Axis, Trees
from fedround.privacy.accounting import epsilon
from fedround.privacy.units import alone
from fedround.records import Train
from fedround.rounds.offer import offer
from fedround.rounds.summed import Added, in_ring, layout, read
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.measuring import measure
from fedround.simulation.sites import Site, Sites
from fedround.simulation.summed import added_up, terms_of
from fedround.statistics import Histogram

RECIPE = Recipe("line", "0" * 64, lambda: nn.Linear(3, 1), lambda rows: rows)
AGES = Histogram(noise_std=3.0, column="age", edges=(20.0, 40.0))
NAMES = tuple("abcde")
UNION = {"name": "union_step", "batch_size": 1000, "learning_rate": 4.0}
SETTINGS = {"name": "sums", "quorum": 4, "combine": {"name": "secure_sum", "threshold": 4, "dropouts": 1, "colluders": 1},
            "training": UNION, "privacy": {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 8}}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def settings(**changes) -> Agreement:
    return Agreement.model_validate({**SETTINGS, **changes})


def site(number: int) -> Site:
    generator, count = np.random.default_rng(number), 150
    x_NF = generator.normal(size=(count, 3)).astype(np.float32)
    y_N = (x_NF[:, 0] + generator.normal(scale=0.3, size=count) > 0).astype(np.int64)
    return Site(Examples(x_NF, y_N), Examples(x_NF, y_N), columns={"age": generator.uniform(0, 90, 2 * count)})


SITES = {name: site(number) for number, name in enumerate(NAMES)}
TEST = site(99).train


def test_a_campaign_learns_and_says_both_prices():
    agreement = settings()
    result = simulate(agreement, RECIPE, SITES, rounds=8, chance=Seeded(1), test=TEST)
    assert result.last.test.auc > 0.95
    assert result.last.received_bytes == 5 * 4 * 4
    (mechanism,) = set(result.mechanisms.values())
    assert (mechanism.shared_by, mechanism.sampling_rate) == (3, 1.0)
    assert result.epsilon <= 8.0 < result.epsilon_alone
    again = simulate(agreement, RECIPE, SITES, rounds=8, chance=Seeded(1))
    assert all(np.array_equal(again.model[name], result.model[name]) for name in result.model)


def test_the_sum_is_that_of_what_the_sites_put_on_the_ring_to_the_last_bit():
    agreement, asks = settings(), Train(statistics=())
    terms = terms_of(agreement, dict.fromkeys(NAMES, 150))
    base, rest = initial(RECIPE, 1)
    everybody = Sites(terms, RECIPE, SITES, rest, Seeded(1))
    added = added_up(everybody, asks, 2, NAMES[:4], terms, base)
    parts = layout(asks, terms, 4, offer(asks, terms, 1, lambda _: True).mechanisms)
    each = [in_ring(parts, one_S) for one_S in everybody.summands(asks, 2, NAMES[:4], terms, base)]
    assert len({one.tobytes() for one in each}) == 4
    assert np.array_equal(np.add.reduce(each[::-1], dtype=np.uint32), added.total_GS[0])


def test_members_that_drop_out_leave_a_sum_as_long_as_enough_are_left():
    agreement = settings()
    result = simulate(agreement, RECIPE, SITES, rounds=3, chance=Seeded(1), share=0.8, test=TEST)
    assert {one.asked for one in result.rounds} == {4}
    with pytest.raises(QuorumError, match="3 of 5 members are left"):
        simulate(agreement, RECIPE, SITES, rounds=3, chance=Seeded(1), share=0.6)


def test_too_few_members_for_the_promise_are_refused_before_any_round():
    three = {name: SITES[name] for name in "abc"}
    with pytest.raises(ContractError, match="combine"):
        simulate(settings(), RECIPE, three, rounds=3, chance=Seeded(1))


def test_trees_grow_from_sums():
    trees = Trees(rounds=8, per_round=5, depth=2, learning_rate=0.5, axes=(Axis(low=-2, high=2),) * 3)
    recipe = Recipe("grown", "1" * 64, builder_of(trees, RECIPE.task), lambda rows: rows, trees=trees)
    result = simulate(settings(training=trees), recipe, SITES, rounds=8, chance=Seeded(1), test=TEST)
    assert result.last.test.auc > 0.85


def test_a_question_is_answered_by_the_sum_alone():
    found = measure(settings(), RECIPE, SITES, [AGES], chance=Seeded(1))
    assert found.at_sites == {}
    exact = np.sum([AGES.cells(Evidence(one)) for one in SITES.values()], axis=0)
    assert found.totals[0].noise_std == pytest.approx(3.0 * (5 / 3) ** 0.5)
    assert np.abs(found.totals[0].table - exact).max() < 6 * found.totals[0].noise_std
    assert not np.array_equal(found.totals[0].table, exact)
    assert found.epsilon(1e-5) == epsilon([AGES.mechanism], 1e-5)
    (mechanism,) = found.mechanisms
    assert epsilon([alone(mechanism)], 1e-5) > found.epsilon(1e-5)


class Evidence:
    def __init__(self, one: Site):
        self.column = one.column


def test_groups_of_simulated_members_are_dealt_anew_for_every_round_and_learn():
    sites = {f"{name}{number}": site(3 * number + place) for number in range(4) for place, name in enumerate("abc")}
    how = {"name": "secure_sum", "threshold": 10, "dropouts": 1, "colluders": 1}
    grouped = settings(combine={**how, "groups": {"count": 3, "liars": 1}}, quorum=11)
    terms = terms_of(grouped, dict.fromkeys(sites, 150))
    base, rest = initial(RECIPE, 0)
    everybody, cohort = Sites(terms, RECIPE, sites, rest, Seeded(1)), sorted(sites)
    added = added_up(everybody, Train(statistics=()), 1, cohort, terms, base)
    assert (added.total_GS.shape, terms.shared_by) == ((3, 4), 2)
    others = added_up(everybody, Train(statistics=()), 2, cohort, terms, base)
    assert not np.array_equal(added.read.delta_D, others.read.delta_D)
    result = simulate(grouped, RECIPE, sites, rounds=4, chance=Seeded(1), test=TEST)
    assert result.last.test.auc > 0.9
    with pytest.raises(ContractError, match="fewer groups"):
        terms_of(grouped, dict.fromkeys(list(sites)[:11], 150))


@pytest.mark.parametrize(("count", "liars"), [(3, 1), (5, 1), (5, 2), (7, 2)])
def test_law_groups_with_liars_move_no_number_out_of_what_the_others_say(count: int, liars: int):
    """Against a loop over numbers: the lowest and the highest are left out, the rest is averaged. A plain mean is another."""
    members = {f"m{number:02d}": 150 for number in range(4 * count)}
    how = {"name": "secure_sum", "threshold": len(members) - 1, "dropouts": 1, "colluders": 1}
    terms = terms_of(settings(combine={**how, "groups": {"count": count, "liars": liars}}, quorum=len(members) - 1), members)
    asks = Train(statistics=())
    mechanisms = offer(asks, terms, 1, lambda _: True).mechanisms
    honest_GD = np.random.default_rng(count).normal(size=(count, 5))

    def said(total_GD: np.ndarray) -> np.ndarray:
        return read(asks, terms, [Added([total_D], 4, 600.0) for total_D in total_GD], mechanisms).delta_D

    one_GD = np.stack([read(asks, terms.model_copy(update={"combine": terms.combine.model_copy(update={"groups": None})}),
                            [Added([total_D], 4, 600.0)], mechanisms).delta_D for total_D in honest_GD])
    want_D = [np.mean(sorted(one_GD[:, d].tolist())[liars:count - liars]) for d in range(5)]
    np.testing.assert_allclose(said(honest_GD), want_D, rtol=1e-5)
    assert np.abs(said(honest_GD) - one_GD.mean(axis=0)).max() > 0.01 * np.abs(one_GD).max()
    for lie in (1e6, -1e6):
        lied_GD = honest_GD.copy()
        lied_GD[:liars] = lie
        told_D, rest_GD = said(lied_GD), one_GD[liars:]
        assert (told_D >= rest_GD.min(axis=0) - 1e-6).all()
        assert (told_D <= rest_GD.max(axis=0) + 1e-6).all()
