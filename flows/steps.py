"""The coordinator's steps as Prefect tasks: what they do is in `tasks/`, here they get names, and that they run once.

No step is retried by Prefect and no result is kept by it: a round that stops is run again, and finds in the object
store what is there already.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import opaque

import tasks.aggregate
import tasks.ask
import tasks.collect
import tasks.evaluate
import tasks.invite
import tasks.plan
import tasks.publish
import tasks.report

Asked = ParamSpec("Asked")
Given = TypeVar("Given")


def _step(function: Callable[Asked, Given], name: str) -> Callable[Asked, Given]:
    """`function` as a task run. Prefect sees which step's result goes into which, and does not look inside the values:
    it would walk through every one of them for futures that are not there.
    """
    run = task(function, name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)

    @wraps(function)
    def step(*arguments: Asked.args, **named: Asked.kwargs) -> Given:
        return run(*map(opaque, arguments), **{key: opaque(value) for key, value in named.items()})

    return step


plan_round = _step(tasks.plan.plan_round, "plan")
plan_question = _step(tasks.ask.plan_question, "plan")
invite = _step(tasks.invite.invite, "invite")
collect = _step(tasks.collect.collect, "collect")
aggregate = _step(tasks.aggregate.aggregate, "aggregate")
publish = _step(tasks.publish.publish, "publish")
conclude = _step(tasks.ask.conclude, "conclude")
evaluate = _step(tasks.evaluate.evaluate, "evaluate")
report = _step(tasks.report.report, "report")
