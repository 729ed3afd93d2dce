"""What is computed on rows: the local training and the noised evaluation. Randomness: the site's secret, and nothing else.

The context of every stream holds the plan and a digest of the rows: the same plan on other rows draws other noise, so no
two releases ever share it.
"""

from __future__ import annotations

from collections.abc import Callable

from fedround.codec import Tensors
from fedround.learning import evaluate as evaluation
from fedround.learning.train import Trained, TrainingMechanism, train_and_count
from fedround.privacy.campaign import first_row
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpFtrl
from fedround.types import ScoreCounts
from site_workers.authorise import Order
from site_workers.rows import Rows
from site_workers.site import Site


def train(site: Site, order: Order, base: Tensors, rows: Rows, mechanism: TrainingMechanism,
          cancelled: Callable[[], bool]) -> Trained:
    """The noised delta. Raises Cancelled if asked to stop."""
    noise = stream(site.noise_secret, order.digest.encode(), rows.digest, b"training")
    start = first_row(mechanism, order.plan.round, len(rows.train)) if isinstance(mechanism, DpFtrl) else 0
    return train_and_count(site.recipe, base, rows.train, order.plan.training, mechanism, noise, cancelled, start)


def evaluate(site: Site, order: Order, base: Tensors, rows: Rows) -> ScoreCounts:
    """Noised counts of the base model's scores on the validation rows."""
    noise = stream(site.noise_secret, order.digest.encode(), rows.digest, b"evaluation")
    scores = evaluation.scores(site.recipe, base, rows.validation)
    return evaluation.score_counts(scores, rows.validation.labels_N, order.plan.evaluation, noise,
                                   order.plan.score_edges)
