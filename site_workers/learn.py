"""What is computed on rows: the local training and the noised evaluation. Randomness: the site's secret, and nothing else.

The context of every stream holds the plan and a digest of the rows: the same plan on other rows draws other noise, so no
two releases ever share it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.learning import evaluate as evaluation
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.personal import personalise
from fedround.learning.train import Trained, TrainingMechanism, train
from fedround.privacy.campaign import first_row
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpFtrl
from fedround.records import ScoreCounts
from site_workers import parts
from site_workers.authorise import Order
from site_workers.limits import Guard
from site_workers.rows import Rows
from site_workers.site import Site

Float32 = npt.NDArray[np.float32]


def train(site: Site, order: Order, base: Tensors, rows: Rows, mechanism: TrainingMechanism, guard: Guard,
          shift_D: Float32 | None = None, rest: Rest = NO_REST) -> Trained:
    """The noised delta. shift_D: SCAFFOLD's correction, rest: with the private part; the release depends on both, so its
    noise does.

    Raises Cancelled if asked to stop.
    """
    plan = order.plan
    depends_on = (order.digest.encode(), rows.digest, b"training", *(() if shift_D is None else (shift_D.tobytes(),)),
                  *parts.depends_on(rest))
    start = first_row(mechanism, plan.round, len(rows.train)) if isinstance(mechanism, DpFtrl) else 0
    return train(site.recipe, base, rows.train, plan.training, mechanism, stream(site.noise_secret, *depends_on),
                           guard, start, shift_D=shift_D, time_is_up=lambda: guard.nearly_over(plan.deadline_s), rest=rest)


def personal(site: Site, order: Order, model: Tensors, base: Tensors, rows: Rows, rest: Rest, guard: Guard) -> Tensors:
    """The site's personal model after this round. Nothing that leaves depends on it. Raises Cancelled if asked to stop."""
    plan = order.plan
    batches = stream(site.noise_secret, order.digest.encode(), rows.digest, b"personal")
    return personalise(site.recipe, model, rows.train, plan.training, batches, guard, shared=base,
                       pull=0.0 if plan.personal is None else plan.personal.pull, rest=rest,
                       time_is_up=lambda: guard.nearly_over(plan.deadline_s))[0]


def evaluate(site: Site, order: Order, base: Tensors, rows: Rows, rest: Rest = NO_REST) -> ScoreCounts:
    """Noised counts of the base model's scores on the validation rows, with this site's private part if it has one."""
    noise = stream(site.noise_secret, order.digest.encode(), rows.digest, b"evaluation", *parts.depends_on(rest))
    scores = evaluation.scores(site.recipe, {**base, **rest.whole}, rows.validation)
    return evaluation.score_counts(scores, order.plan.evaluation, noise, order.plan.score_edges)
