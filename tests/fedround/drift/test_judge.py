"""From measurements to what has drifted."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from fedround.agreement import Agreement
from fedround.drift.judge import Drift, DriftAsked, Told, judge
from fedround.drift.spec import TRUTH, DriftWatch, Watched
from fedround.privacy.spec import GaussianCounts
from fedround.statistics import Release
from fedround.statistics.partitions import Partitions

WATCH = DriftWatch(columns=(Watched(column="age", edges=(30.0, 40.0, 50.0)), Watched(column="sex", values=(1, 2))),
                   noise_std=10.0)
SITES = ("east", "north", "south", "west")


def told(seed: int, ages: dict[str, float] | None = None, rows: int = 600) -> Told:
    """What the sites' rows give: ages around 40, or around what is said for a site."""
    generator, found = np.random.default_rng(seed), {}
    for site in SITES:
        age_N = generator.normal((ages or {}).get(site, 40.0), 10, rows)
        counts = ([*np.histogram(age_N, [-np.inf, 30, 40, 50, np.inf])[0].tolist(), 0], [rows // 2, rows - rows // 2, 0])
        found[site] = tuple(Release(
            statistic=statistic, mechanism=GaussianCounts(noise_std=10.0),
            numbers=tuple((np.array(exact) + 10.0 * generator.standard_normal(len(exact))).tolist()))
            for statistic, exact in zip(WATCH.statistics, counts, strict=True))
    return found


def judged(number: int, first: Told | None, now: Told, before: Drift | None = None) -> Drift:
    return judge(DriftAsked(watch=WATCH, round=number, when=f"round {number}", first="round 1", level=0.05, seed=number),
                 first, now, before)


def drifted(drift: Drift, beside: str = "before") -> set[tuple[str, str | None]]:
    return {(shift.column, shift.site) for shift in drift.shifts if shift.drifted and shift.beside == beside}


def test_a_first_measurement_says_who_differs_from_the_others_and_is_no_alarm():
    found = judged(1, None, told(1, {"west": 52.0}))
    assert ("age", "west") in drifted(found, "others")
    assert not found.is_alarm
    assert found.largest is None
    assert found.first == found.when == "round 1"


def test_a_change_everywhere_is_found_and_so_is_since_when():
    first = told(1)
    calm = judged(2, first, told(2))
    assert not calm.is_alarm
    older = dict.fromkeys(SITES, 48.0)
    found = judged(3, first, told(3, older), calm)
    later = judged(4, first, told(4, older), found)
    assert ("age", None) in drifted(found)
    assert {column for column, _ in drifted(found)} == {"age"}
    assert {shift.since for shift in later.over_time if shift.drifted} == {"round 3"}
    assert later.largest is not None
    assert later.largest.column == "age"
    over = judged(5, first, told(5), later)
    assert not over.is_alarm
    assert {shift.since for shift in over.over_time} == {""}


def test_a_change_at_one_site_is_found_there():
    found = judged(2, told(1), told(2, {"south": 55.0}))
    assert {site for _, site in drifted(found)} <= {"south", None}
    assert ("age", "south") in drifted(found)
    assert ("age", "south") in drifted(found, "others")


def test_a_site_that_was_not_there_at_first_is_compared_with_the_others_only():
    first = {site: said for site, said in told(1).items() if site != "west"}
    found = judged(2, first, told(2, {"west": 55.0}))
    assert not found.is_alarm, "the first measurement says nothing of it"
    assert ("age", "west") in drifted(found, "others")


def test_the_same_measurements_give_the_same_judgement():
    assert judged(2, told(1), told(2)) == judged(2, told(1), told(2))
    assert Drift.model_validate_json(judged(2, told(1), told(2)).model_dump_json()) == judged(2, told(1), told(2))


def test_false_alarms_are_as_rare_as_agreed():
    """60 measurements without drift at a level of 5 %: more than 9 alarms have a chance of 0.1 %."""
    assert sum(judged(2, told(100 + seed), told(200 + seed)).is_alarm for seed in range(60)) <= 9


def test_calibration_is_one_models_and_its_edges_ascend():
    weeks = {"partitions": Partitions(column="day", by="week"), "measurements": 9}
    columns = (Watched(column="sex", values=(1, 2)),)
    found = DriftWatch(columns=columns, calibration=(0.2, 0.5), **weeks)
    assert found.names == ("sex", TRUTH)
    assert [statistic.shape for statistic in found.statistics] == [(3,), (2, 3)]
    assert len(found.once) == 2
    with pytest.raises(ValidationError, match="agree on partitions"):
        DriftWatch(columns=columns, calibration=(0.2, 0.5))
    with pytest.raises(ValidationError, match="ascend"):
        DriftWatch(columns=columns, calibration=(0.5, 0.2), **weeks)
    with pytest.raises(ValidationError, match="is called so"):
        DriftWatch(columns=(Watched(column=TRUTH, values=(1, 2)),), calibration=(0.2, 0.5), **weeks)


def test_a_column_that_is_called_like_the_truth_is_a_column():
    watch = DriftWatch(columns=(Watched(column=TRUTH, edges=(30.0, 40.0, 50.0)), WATCH.columns[1]), noise_std=10.0)
    same = DriftAsked(watch=watch, round=2, when="round 2", first="round 1", level=0.05, seed=2)
    renamed = [shift.model_copy(update={"column": "age"}) if shift.column == TRUTH else shift
               for shift in judge(same, told(1), told(2), None).shifts]
    assert tuple(renamed) == judged(2, told(1), told(2)).shifts


@pytest.mark.parametrize(("watched", "said"), [
    ({"column": "age"}, "by edges or by values"),
    ({"column": "age", "edges": [1.0], "values": [1]}, "by edges or by values"),
    ({"column": "age", "edges": [2.0, 1.0]}, "ascend"),
    ({"column": "age", "values": [1, 1]}, "named twice"),
])
def test_a_column_that_cannot_be_counted_is_refused_by_name(watched: dict, said: str):
    with pytest.raises(ValidationError, match=said):
        Watched.model_validate(watched, strict=False)


@pytest.mark.parametrize(("privacy", "changes", "said"), [
    ({"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}, {"every": 4}, "never"),
    ({"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}, {"noise_std": 0.0}, "unprotected"),
    ({"unit": "site", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}, {}, "no counts leave"),
    ({"unit": "none"}, {}, "how many measurements"),
])
def test_a_watch_that_does_not_fit_the_privacy_cannot_be_agreed_on(privacy: dict, changes: dict, said: str):
    drift = {"columns": [{"column": "sex", "values": [1, 2]}], **changes}
    with pytest.raises(ValidationError, match=said):
        Agreement.model_validate({"name": "banks", "quorum": 2, "privacy": privacy, "drift": drift}, strict=False)


def test_the_level_of_one_measurement_shares_the_false_alarms_of_all():
    assert WATCH.level(11) == pytest.approx(0.05 / 10)          # the first of eleven is compared with nothing
    assert WATCH.model_copy(update={"measurements": 51}).level(11) == pytest.approx(0.001)
