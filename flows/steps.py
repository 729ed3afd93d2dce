"""The coordinator's steps as Prefect tasks: what they do is in `tasks/`, here they get names, and that they run once.

No step is retried by Prefect and no result is kept by it: a round that stops is run again, and finds in the object
store what is there already.
"""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

import tasks.aggregate
import tasks.collect
import tasks.evaluate
import tasks.invite
import tasks.plan
import tasks.publish
import tasks.report

_ONCE = {"cache_policy": NO_CACHE, "persist_result": False, "retries": 0}

plan_round = task(tasks.plan.plan_round, name="plan", **_ONCE)
plan_evaluation = task(tasks.plan.plan_evaluation, name="plan", **_ONCE)
invite = task(tasks.invite.invite, name="invite", **_ONCE)
collect = task(tasks.collect.collect, name="collect", **_ONCE)
aggregate = task(tasks.aggregate.aggregate, name="aggregate", **_ONCE)
publish = task(tasks.publish.publish, name="publish", **_ONCE)
evaluate = task(tasks.evaluate.evaluate, name="evaluate", **_ONCE)
report = task(tasks.report.report, name="report", **_ONCE)
