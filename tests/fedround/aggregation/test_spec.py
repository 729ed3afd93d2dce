"""Aggregations as values: how they compose, what they refuse, and that they survive being written down."""

from __future__ import annotations

import itertools
import tomllib

import pytest
import tomlkit
from pydantic import TypeAdapter, ValidationError

from fedround.aggregation.rules import (
    Bulyan,
    CenteredClipping,
    CoordinateMedian,
    DivideAndConquer,
    FLTrust,
    GeometricMedian,
    Krum,
    Meamed,
    MinimumDiameter,
    MinimumSpectrum,
    MultiKrum,
    NearestToPivot,
    NormClipping,
    Rule,
    SpectralFilter,
    TrimmedMean,
    WeightedMean,
    WeightedMedian,
    WeightedTrimmedMean,
)
from fedround.aggregation.spec import (
    Aggregation,
    ArcClipping,
    Bucketing,
    Gate,
    Mixing,
    NearestNeighbourMixing,
    StaticClipping,
    default_aggregation,
)
from fedround.errors import ContractError, ToleranceError
from fedround.values import parse

RULES = [WeightedMean(), CoordinateMedian(), TrimmedMean(f=2), Meamed(f=2), Krum(f=2), MultiKrum(f=2), Bulyan(f=2),
         GeometricMedian(), CenteredClipping(radius=2.5), NormClipping(), MinimumDiameter(f=2), MinimumSpectrum(f=2),
         NearestToPivot(f=2), SpectralFilter(f=2), DivideAndConquer(f=2), FLTrust(),
         WeightedMedian(), WeightedTrimmedMean(f=2)]
MIXINGS = [NearestNeighbourMixing(f=2), Bucketing(size=3), StaticClipping(norm=4.0), ArcClipping(f=1)]
NNM = NearestNeighbourMixing(f=2)


def members(union):
    return set(union.__origin__.__args__)


def test_every_rule_and_every_mixing_is_tested_here():
    assert {type(rule) for rule in RULES} == members(Rule)
    assert {type(mixing) for mixing in MIXINGS} == members(Mixing)


# -- composition -------------------------------------------------------------------------------------------------------


def test_parts_compose_in_the_order_in_which_they_are_read():
    gated = Gate(f=2) >> Bucketing(size=2) >> NNM >> TrimmedMean(f=2)
    assert gated == Aggregation(gate=Gate(f=2), mixing=(Bucketing(size=2), NNM), rule=TrimmedMean(f=2))
    assert NNM >> Krum(f=2) == Aggregation(mixing=(NNM,), rule=Krum(f=2))
    assert Gate(f=1) >> WeightedMean() == Aggregation(gate=Gate(f=1), rule=WeightedMean())


def test_how_parts_are_grouped_does_not_matter():
    assert (Gate(f=2) >> NNM) >> TrimmedMean(f=2) == Gate(f=2) >> NNM >> TrimmedMean(f=2)


def test_nothing_follows_a_rule():
    with pytest.raises(TypeError):
        TrimmedMean(f=1) >> NNM


def test_an_aggregation_reads_as_it_is_written():
    gated = (Gate(f=2) >> NNM >> TrimmedMean(f=2)).model_copy(update={"history": 0.9})
    assert str(gated) == ("gate(f=2, sigmas=4.0, loudest=1.5, slack=1.25) >> nearest_neighbour_mixing(f=2, near=distance) >> "
                          "trimmed_mean(f=2), on a moving average with beta 0.9")
    assert str(Aggregation(rule=WeightedMean())) == "weighted_mean"


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("document", "problem"), [
    ({"rule": {"name": "trimmed_mean", "F": 1}}, "unknown key 'rule.F'"),
    ({"rule": {"name": "trimmed_mean"}}, "'rule.f' is missing"),
    ({"rule": {"name": "trimmed_mean", "f": -1}}, "greater than or equal to 0"),
    ({"rule": {"name": "trimmed_mean", "f": True}}, "valid integer"),
    ({"rule": {"name": "weighted_mean", "f": 1}}, "unknown key"),
    ({"rule": {"name": "best_mean"}}, "'rule'"),
    ({"rule": {"name": "centered_clipping", "radius": 0.0}}, "greater than 0"),
    ({"mixing": []}, "'rule' is missing"),
    ({"rule": {"name": "weighted_mean"}, "mixing": [{"name": "bucketing", "size": 0}]}, "greater than or equal to 1"),
    ({"rule": {"name": "weighted_mean"}, "gate": {"f": 1, "sigmas": 1.0}}, "greater than or equal to 3"),
    ({"rule": {"name": "weighted_mean"}, "history": 1.0}, "less than 1"),
    ({"rule": {"name": "weighted_mean"}, "gates": {"f": 1}}, "unknown key 'gates'"),
    ({"rule": {"name": "weighted_mean"}, "mixing": [{"name": "nearest_neighbour_mixing", "f": 1, "near": "inner_product"}]},
     "needs a gate before it"),
])
def test_what_is_not_an_aggregation_is_refused_in_words(document, problem):
    with pytest.raises(ContractError, match="federation file banks.toml") as refusal:
        parse(Aggregation, document, "federation file banks.toml")
    assert problem in str(refusal.value)


@pytest.mark.parametrize(("part", "fewest", "theorem"), [
    (TrimmedMean(f=3), 7, "Yin et al. 2018: N >= 2f+1"), (Meamed(f=3), 7, "Xie et al. 2018"),
    (Krum(f=3), 9, "Blanchard et al. 2017: N >= 2f+3"), (MultiKrum(f=3), 9, "Blanchard et al. 2017"),
    (Bulyan(f=3), 15, "El Mhamdi et al. 2018: N >= 4f+3"), (MinimumDiameter(f=3), 7, "El Mhamdi et al. 2021"),
    (MinimumSpectrum(f=3), 7, "Allouah et al. 2023"), (NearestToPivot(f=3), 7, "Farhadkhani et al. 2023"),
    (SpectralFilter(f=3), 7, "Allouah et al. 2025"), (DivideAndConquer(f=3), 7, "Shejwalkar and Houmansadr 2021"),
    (NearestNeighbourMixing(f=3), 7, "Allouah et al. 2023"), (ArcClipping(f=3), 7, "Allouah et al. 2025"),
    (Gate(f=3), 7, "the gate trusts a majority"),
], ids=lambda part: getattr(part, "name", None))
def test_an_impossible_f_is_refused_with_its_theorem(part, fewest, theorem):
    part.check(fewest)
    with pytest.raises(ToleranceError, match=f"needs at least {fewest} updates .* may get {fewest - 1}") as refusal:
        part.check(fewest - 1)
    assert theorem in str(refusal.value)


def test_a_rule_behind_buckets_must_bear_its_liars_among_the_buckets():
    (Bucketing(size=2) >> TrimmedMean(f=2)).check(9)
    with pytest.raises(ToleranceError, match="trimmed_mean"):
        (Bucketing(size=2) >> TrimmedMean(f=2)).check(8)


def test_every_part_is_checked():
    for whole in (Gate(f=3) >> WeightedMean(), NearestNeighbourMixing(f=3) >> WeightedMean(), Aggregation(rule=Krum(f=2))):
        with pytest.raises(ToleranceError):
            whole.check(6)


def test_a_rule_that_tries_all_subsets_refuses_too_many():
    MinimumSpectrum(f=4).check(20)
    with pytest.raises(ToleranceError, match="spectral_filter"):
        MinimumSpectrum(f=10).check(40)


# -- written down ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("mixing", [(), *itertools.permutations(MIXINGS, 2)], ids=str)
def test_an_aggregation_survives_json_and_toml(rule, mixing):
    aggregation = Aggregation(gate=Gate(f=1, sigmas=5.0), mixing=mixing, rule=rule, history=0.5)
    assert Aggregation.model_validate_json(aggregation.model_dump_json()) == aggregation
    document = tomllib.loads(tomlkit.dumps(aggregation.model_dump(mode="json", exclude_none=True)))
    assert parse(Aggregation, document, "a test") == aggregation


def test_the_toml_that_the_documentation_shows():
    text = ('rule = {name = "trimmed_mean", f = 2}\nmixing = [{name = "nearest_neighbour_mixing", f = 2}]\ngate = {f = 2}\n')
    assert parse(Aggregation, tomllib.loads(text), "a test") == Gate(f=2) >> NNM >> TrimmedMean(f=2)


def test_names_are_told_apart():
    names = [part.name for part in (*RULES, *MIXINGS)]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert type(TypeAdapter(Rule).validate_json(rule.model_dump_json())) is type(rule)


def test_a_part_cannot_be_changed():
    with pytest.raises(ValidationError):
        RULES[2].f = 5


# -- the default -------------------------------------------------------------------------------------------------------


def test_the_default_is_gated_where_noise_is_declared():
    robust = Gate(f=2) >> NearestNeighbourMixing(f=2, near="inner_product") >> TrimmedMean(f=2)
    assert default_aggregation(12, noise_is_declared=True, rounds=100) == robust.model_copy(update={"history": 0.9})
    assert default_aggregation(9, noise_is_declared=True, rounds=20) == robust.model_copy(update={"history": 0.5})


def test_the_default_is_spectral_where_it_is_not():
    assert default_aggregation(12, noise_is_declared=False, rounds=100) == Aggregation(rule=SpectralFilter(f=2))


def test_the_default_of_few_sites_is_the_mean():
    for cohort in range(1, 5):
        assert default_aggregation(cohort, noise_is_declared=True, rounds=100) == Aggregation(rule=WeightedMean())


@pytest.mark.parametrize("noise_is_declared", [True, False])
def test_the_default_keeps_its_theorems_at_every_size(noise_is_declared):
    for cohort in range(1, 200):
        default_aggregation(cohort, noise_is_declared=noise_is_declared, rounds=10).check(cohort)
