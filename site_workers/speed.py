"""How many steps of a plan this site does, where slow sites may do fewer: by its own measured speed, fixed for a whole run.

The number is fixed before the run's first charge, and the noise is calibrated to it, so the campaign is one batch of
mechanisms that were fixed beforehand, as every other. What a site measures is how long its own work took; it is told in
halvings of the agreed number, and depends on the number of rows, which is public, on the recipe and on the machine.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from fedround.files import write_whole
from fedround.learning.spec import LocalTraining
from fedround.learning.train import asked_of
from fedround.privacy import ledger
from fedround.privacy.spec import DpFtrl, DpSgd
from fedround.records import Plan
from fedround.rounds.site import Declared
from fedround.rounds.speed import affordable
from fedround.terms import Agreed
from fedround.values import Value
from site_workers.authorise import Order
from site_workers.site import Site

log = logging.getLogger("fedround.site")

_FILE = "speed.json"

class Speed(Value):
    """How long the last work took here. Losing it loses nothing: the next round does all steps."""

    recipe: str
    batch_size: int
    seconds_a_step: float


def terms_here(site: Site, order: Order) -> Agreed:
    """The plan's terms with as many steps to pay for as this site does."""
    agreed, training = order.plan.agreed, order.plan.agreed.training
    if not order.plan.asks.makes_model or not isinstance(training, LocalTraining) or training.fewest_steps is None:
        return agreed
    steps = _of_run(site, order.plan) or _affordable(site, order.plan, training)
    return agreed.model_copy(update={"training": training.model_copy(update={"covered": steps})})


def _of_run(site: Site, plan: Plan) -> int | None:
    """As many as the run's open campaign pays for; None: none is open."""
    for campaign in reversed(ledger.read(site.ledger).book.campaigns):
        if campaign.is_open and (campaign.federation, campaign.run) == (plan.federation, plan.run):
            steps = [lot.mechanism.steps for lot in campaign.lots if isinstance(lot.mechanism, DpSgd | DpFtrl)]
            if steps:
                return max(steps)
    return None


def _affordable(site: Site, plan: Plan, training: LocalTraining) -> int:
    speed = _known(site, plan)
    if speed is None:
        return training.paid
    steps = affordable(training, speed.seconds_a_step, min(site.policy.limits.seconds, plan.deadline_s))
    if steps < training.paid:
        log.warning("run '%s': a step takes %.2g s here, so this site does %d of %d steps in each of its rounds; its noise "
                    "is calibrated to these", plan.run, speed.seconds_a_step, steps, training.paid)
    return steps


def note(site: Site, plan: Plan, took: timedelta, done: Declared | None) -> None:
    """Remember how long work took, and of how many steps it was."""
    training = plan.agreed.training
    if done is not None and isinstance(training, LocalTraining) and training.fewest_steps is not None:
        steps = done.steps or asked_of(done.mechanism, training)
        said = Speed(recipe=site.recipe.digest, batch_size=training.batch_size,
                     seconds_a_step=max(0.0, took.total_seconds()) / steps)
        write_whole(site.folder / _FILE, said.model_dump_json().encode(), durable=False)


def _known(site: Site, plan: Plan) -> Speed | None:
    """As `note` wrote it of the same recipe and batches; None: nothing is known."""
    try:
        found = Speed.model_validate_json((site.folder / _FILE).read_bytes())
    except (OSError, ValueError):
        return None
    training = plan.agreed.training
    batch = training.batch_size if isinstance(training, LocalTraining) else None
    return found if (found.recipe, found.batch_size) == (site.recipe.digest, batch) else None
