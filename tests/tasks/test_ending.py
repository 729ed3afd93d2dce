"""What a coordinator knows of its rounds decides whether a campaign goes on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from fedround.learning.tasks import Metrics
from fedround.rounds.ending import ToldOfModel
from flows import federated_training as flow
from tasks import ending
from tasks.ending import ends_here, told_by
from tasks.requests import TrainingRequest


def rounds(*values: float | None, margin: float | None = 0.01):
    told = None if margin is None else SimpleNamespace(of=lambda name: margin if name == "auc" else None)
    found = [None if value is None else Metrics(auc=value, accuracy=0.5, rows=9) for value in values]
    return [SimpleNamespace(at_sites=one, at_sites_margin=told) for one in found]


def test_rounds_whose_score_the_noise_hid_are_passed_over_and_what_is_not_noised_has_no_margin():
    assert told_by(rounds(0.7, None, 0.8), "auc") == [ToldOfModel(0.7, 0.01), ToldOfModel(0.8, 0.01)]
    assert told_by(rounds(0.7, margin=None), "auc") == [ToldOfModel(0.7, 0.0)]
    assert told_by(rounds(0.7), "r2") == []


@pytest.mark.parametrize(("patience", "scores", "asked"), [
    (None, [0.5] * 9, 9), (2, [0.5, 0.6, 0.7, 0.75, 0.76, 0.76, 0.76, 0.76, 0.76], 7), (2, [0.1 * n for n in range(9)], 9)])
def test_a_campaign_asks_for_rounds_until_its_score_has_settled_and_then_evaluates(
        monkeypatch: pytest.MonkeyPatch, patience, scores, asked):
    done, evaluated = [], []
    coordinator = SimpleNamespace(
        recipe=SimpleNamespace(task=SimpleNamespace(headline="auc")),
        federation=SimpleNamespace(privacy=SimpleNamespace(unit="record")), is_founder=True)
    monkeypatch.setattr(ending, "records", lambda *_: rounds(*scores[:len(done)]))
    for name, stand_in in {
            "current_coordinator": lambda: coordinator, "with_its_run": lambda _, request, __: request,
            "_committed": lambda _: len(done), "get_run_logger": lambda: SimpleNamespace(info=lambda _: None)}.items():
        monkeypatch.setattr(flow, name, stand_in)

    async def nothing(*_: object) -> None: ...

    async def one_round(_: object) -> None:
        done.append(1)

    async def evaluation(request: object) -> None:
        evaluated.append(request)

    for name, stand_in in {"stop_here_if_paused": nothing, "shown": nothing, "contributions_told": nothing,
                           "federated_round": one_round, "federated_evaluation": evaluation}.items():
        monkeypatch.setattr(flow, name, stand_in)
    request = TrainingRequest(run="spring", rounds=9, patience=patience)
    assert asyncio.run(flow.federated_training.fn(request)) == len(done) == asked
    assert len(evaluated) == 1


def test_nobody_is_asked_where_no_patience_was():
    assert not ends_here(None, "spring", None)
