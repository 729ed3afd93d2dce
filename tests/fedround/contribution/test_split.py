"""A round's value split between its sites: what a coalition's model is, who gets nothing, and how much of it is noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from torch import nn

from fedround import codec
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import ArrayNumbers, Row
from fedround.aggregation.rules import (
    CenteredClipping,
    CoordinateMedian,
    Krum,
    TrimmedMean,
    WeightedMean,
    WeightedTrimmedMean,
)
from fedround.aggregation.spec import Aggregation, NearestNeighbourMixing
from fedround.agreement import Agreement
from fedround.contribution.coalitions import models, taken_apart
from fedround.contribution.shapley import Exact
from fedround.contribution.split import split
from fedround.errors import ContractError
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.many import Judge
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import CLASSIFY, Classify
from fedround.rounds import server
from fedround.rounds.server import Memory, Server
from fedround.terms import Terms

MEAN = Aggregation(rule=WeightedMean())
RULES = {"mean": MEAN, "median": Aggregation(rule=CoordinateMedian()), "trimmed": Aggregation(rule=TrimmedMean(f=1)),
         "weighed": Aggregation(rule=WeightedTrimmedMean(f=1)), "krum": Aggregation(rule=Krum(f=1)),
         "clipping": Aggregation(rule=CenteredClipping(radius=0.5)),
         "mixed": Aggregation(mixing=(NearestNeighbourMixing(f=1),), rule=TrimmedMean(f=1))}
BUDGET = 1 << 26
F = 6
TRUTH_F = np.array([1.0, -1, 0.5, 0, 2, -0.5])


def recipe(classes: int = 2) -> Recipe:
    return Recipe("line", "0" * 64, lambda: nn.Linear(F, 1 if classes == 2 else classes), lambda _: rows(1, 0),
                  Classify(classes=classes))


def rows(count: int, seed: int, classes: int = 2) -> Examples:
    generator = np.random.default_rng(seed)
    x_NF = generator.normal(size=(count, F)).astype(np.float32)
    logit_N = x_NF @ TRUTH_F + generator.normal(size=count)
    return Examples(x_NF, (np.digitize(logit_N, [0.0] if classes == 2 else [-1.0, 1.0])).astype(np.int64))


def update(seed: int, strength: float = 1.0) -> np.ndarray:
    """Towards the truth: (bias, weights)."""
    noise = 0.5 * np.random.default_rng(seed).normal(size=F + 1)
    return (strength * (np.concatenate([[0.0], TRUTH_F]) + noise)).astype(np.float32)


def base(seed: int = 3) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {"bias": np.zeros(1, np.float32), "weight": generator.normal(size=(1, F)).astype(np.float32)}


def terms(how: Aggregation, **optimizer: object) -> Terms:
    return Agreement.model_validate({
        "name": "split", "quorum": 5, "privacy": {"unit": "none"}, "aggregation": how,
        "optimizer": {"name": "fedavg", "learning_rate": 0.5, **optimizer}}).terms()


def combined(how: Aggregation, updates: Mapping[str, np.ndarray], noise: NoiseLaw | None = None,
             centre: np.ndarray | None = None, weights: Mapping[str, float] | None = None) -> server.Combined:
    agreed = weights or {site: 1.0 + turn for turn, site in enumerate(updates)}
    made = [Row(site, agreed[site], ArrayNumbers(sent_D), noise) for site, sent_D in updates.items()]
    remembered = Memory(centre=None if centre is None else ArrayNumbers(centre))
    return server.combine(how, F + 1, made, remembered, lambda _, parts: ArrayNumbers(np.concatenate(list(parts))), seed=b"")


def cohort(**others: np.ndarray) -> dict[str, np.ndarray]:
    return {**{f"site-{seed}": update(seed) for seed in range(5)}, **others}


@pytest.mark.parametrize("how", RULES.values(), ids=RULES)
def test_everybody_makes_the_committed_model_and_nobody_the_servers_step_without_an_update(how: Aggregation):
    about, centre_D = terms(how, momentum=0.5), update(9)
    done = combined(how, cohort(), centre=centre_D if how is RULES["clipping"] else None)
    parts = taken_apart(about, done, BUDGET)
    before = Server(base(), {"velocity": update(20)})
    made_CD = np.concatenate([*models(about, CLASSIFY, before, parts, Exact(len(parts.sites)).coalitions_CN, 3 * 64 * F)])
    committed = server.step(about, CLASSIFY, before, done.result.delta_D, (), {"x": 1.0}).model
    assert (made_CD[-1] == codec.flatten(committed)).all()
    left_D = parts.own_D if how is RULES["clipping"] else np.zeros(F + 1, np.float32)
    assert (made_CD[0] == codec.flatten(server.step(about, CLASSIFY, before, left_D, (), {"x": 1.0}).model)).all()
    assert np.allclose((parts.x_ND.sum(axis=0) + parts.own_D), done.result.delta_D, rtol=1e-5, atol=1e-6)


def test_a_coalition_of_a_mean_is_the_mean_of_its_members():
    updates, about = cohort(), terms(MEAN)
    parts = taken_apart(about, combined(MEAN, updates), BUDGET)
    weight = {site: 1.0 + turn for turn, site in enumerate(updates)}
    for members_N in Exact(5).coalitions_CN[1:]:
        chosen = [site for site, there in zip(parts.sites, members_N, strict=True) if there]
        expected_D = np.average([updates[site] for site in chosen], axis=0, weights=[weight[site] for site in chosen])
        assert np.allclose(parts.deltas(members_N[None])[0], expected_D, rtol=1e-5, atol=1e-6)


def test_of_a_median_a_coalition_has_the_coordinates_where_a_member_is_the_median():
    how = RULES["median"]
    parts = taken_apart(terms(how), combined(how, cohort()), BUDGET)
    for place, site in enumerate(parts.sites):
        mine_D = parts.share_ND[place] == 1
        alone_D = parts.deltas(np.arange(len(parts.sites))[None] == place)[0]
        assert np.allclose(alone_D, np.where(mine_D, cohort()[site], 0))


def test_who_has_no_part_in_the_result_is_no_player():
    how = RULES["krum"]
    done = combined(how, cohort())
    assert len(taken_apart(terms(how), done, BUDGET).sites) == 1


def judged(how: Aggregation, updates: Mapping[str, np.ndarray], noise: NoiseLaw | None = None, draws: int = 0,
           weights: Mapping[str, float] | None = None):
    about, before = terms(how), Server(base())
    judge = Judge(recipe(), codec.schema_of(before.model), {}, rows(300, 1))
    done = combined(how, updates, noise, None, weights)
    return split(about, before, done, judge, seed=b"seed", draws=draws, budget_bytes=BUDGET)


def test_it_adds_up_a_rider_is_near_zero_and_who_pulls_backwards_is_last():
    found = judged(MEAN, cohort(liar=-2 * update(7), rider=np.zeros(F + 1, np.float32)))
    share = dict(zip(found.sites, found.share_N, strict=True))
    assert sum(share.values()) == pytest.approx(found.everybody - found.nobody, abs=1e-12)
    assert min(share, key=share.get) == "liar"
    assert share["liar"] < 0
    assert abs(share["rider"]) < 0.4 * max(share.values()), "what it dilutes, with the second largest weight"
    assert found.exact
    assert (found.sampling_N == 0).all()
    assert found.noise_NN is None, "no noise was declared"


def test_the_noise_of_a_share_is_that_of_the_law():
    """To first order it grows with it; the difference of two shares is not more certain than noise lets it be."""
    quiet, loud = (judged(MEAN, cohort(), NoiseLaw(10.0, std ** 2), draws=25).noise_NN for std in (0.02, 0.04))
    assert np.allclose(loud / quiet, 2.0, rtol=0.3)
    far_N = np.sqrt(quiet.diagonal()[:, None] ** 2 + quiet.diagonal() ** 2)
    assert (quiet[~np.eye(5, dtype=bool)] <= 1.5 * far_N[~np.eye(5, dtype=bool)]).all()
    # Once more by brute force: draw the noise, look at the shares.
    drawn = []
    for seed in range(25):
        moved = {site: (x + 0.02 * np.random.default_rng([seed, n]).normal(size=F + 1)).astype(np.float32)
                 for n, (site, x) in enumerate(cohort().items())}
        drawn.append(judged(MEAN, moved).share_N)
    assert np.allclose(np.std(drawn, axis=0) / quiet.diagonal(), 1.0, atol=0.45)


def test_who_enrols_twice_gets_more_and_the_page_says_how_much():
    """Half the weight each, the same update: the model is the same, the shares are not. At most 0.15 of the round's gain."""
    gained = []
    for seed in range(4):
        updates = {f"s{n}": update(100 * seed + n) for n in range(6)}
        twice = {**updates, "s0-again": updates["s0"]}
        one = judged(MEAN, updates, weights=dict.fromkeys(updates, 1.0))
        two = judged(MEAN, twice, weights={**dict.fromkeys(updates, 1.0), "s0": 0.5, "s0-again": 0.5})
        assert two.everybody == pytest.approx(one.everybody, abs=1e-4)
        both = sum(share for site, share in zip(two.sites, two.share_N, strict=True) if site.startswith("s0"))
        gained.append((both - one.share_N[0]) / (one.everybody - one.nobody))
    assert min(gained) > 0
    assert max(gained) < 0.15


def test_more_sites_than_twelve_are_sampled():
    found = judged(MEAN, {f"s{seed:02d}": update(seed) for seed in range(14)})
    assert not found.exact
    assert (found.sampling_N > 0).all()
    assert found.share_N.sum() == pytest.approx(found.everybody - found.nobody, abs=1e-12)


def test_what_does_not_fit_into_the_memory_is_refused():
    with pytest.raises(ContractError, match="memory_budget_mb"):
        taken_apart(terms(MEAN), combined(MEAN, cohort()), 1000)


@pytest.mark.parametrize("classes", [2, 3])
def test_many_models_are_worth_what_each_is_alone(classes: int):
    outputs, generator = 1 if classes == 2 else classes, np.random.default_rng(0)
    schema = codec.schema_of({"bias": np.zeros(outputs, np.float32), "weight": np.zeros((outputs, F), np.float32)})
    models_MD = generator.normal(size=(20, outputs * (F + 1))).astype(np.float32)
    models_MD[3] = 0                                                       # every score the same
    about, public = recipe(classes), rows(700, 5, classes)
    together = Judge(about, schema, {}, public)(models_MD)
    for worth, model_D in zip(together, models_MD, strict=True):
        alone = about.task.metrics(scores(about, codec.unflatten(model_D, schema), public))
        assert worth == pytest.approx(getattr(alone, about.task.headline), abs=2e-5)


class Counting(nn.Module):
    """What torch cannot map over weights."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(F, 1)

    def forward(self, x):
        return self.line(x) * float(self.line.weight.sum() > -1e9)


def test_a_model_that_torch_cannot_map_takes_its_turn():
    about = Recipe("turn", "1" * 64, Counting, lambda _: rows(1, 0))
    schema = codec.schema_of({"line.bias": np.zeros(1, np.float32), "line.weight": np.zeros((1, F), np.float32)})
    models_MD = np.random.default_rng(1).normal(size=(3, F + 1)).astype(np.float32)
    judge = Judge(about, schema, {}, rows(200, 5))
    expected = [about.task.metrics(scores(about, codec.unflatten(one_D, schema), rows(200, 5))).auc for one_D in models_MD]
    assert judge(models_MD) == pytest.approx(expected)
