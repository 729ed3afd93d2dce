"""What of an agreement does not go with trees, in words."""

from __future__ import annotations

from fedround.aggregation.spec import Aggregation
from fedround.compression.spec import Compression, is_unbiased
from fedround.learning.algorithms import Ditto
from fedround.learning.spec import FedAvg, Parts, ServerOptimizer
from fedround.learning.trees.spec import Trees
from fedround.privacy.spec import GradientPrivacy, NoPrivacy, Privacy


def objection_to_trees(trees: Trees, privacy: Privacy, optimizer: ServerOptimizer, how: Aggregation,
                       compression: Compression | None, parts: Parts, personal: Ditto | None) -> str | None:
    """Why the rest of an agreement does not go with trees; None if it does.

    The reason is mostly the same: the numbers of two rounds are about other trees, so nothing can be carried from one round
    to the next.
    """
    carried = how.history > 0 or how.rule.begins_with_last
    objections = {
        "no features are known: say COLUMNS in the recipe, or the bounds of its features": not trees.axes,
        "an optimizer moves a model's numbers on, and trees set each of theirs once: leave [optimizer] out":
            optimizer != FedAvg(),
        "updates of two rounds are about other trees, so no average of a site's updates (history) and no last aggregate "
        "(centered_clipping) helps: agree on history = 0 and another rule": carried,
        f"{how.rule.name} compares changes of a model, and sites send none: agree on another rule": how.rule.needs_root,
        "what this compression leaves out of an update is added to the next one, which is about other trees: agree on a "
        "quantisation, or on none": not is_unbiased(compression),
        "every site has all of the model, and nothing of its own: leave [parts] and [personal] out":
            parts != Parts() or personal is not None,
    }
    return objection_to_promise(trees, privacy) or _first(objections)


def objection_to_promise(trees: Trees, privacy: Privacy) -> str | None:
    """Why a promise of privacy does not go with trees; None if it does."""
    noised = privacy if isinstance(privacy, GradientPrivacy) else None
    return _first({
        "sums are noised once, without steps and clip norms to adapt: leave privacy.mechanism and privacy.adaptive out":
            noised is not None and (noised.mechanism != "dp_sgd" or noised.adaptive is not None),
        "how far a row moves a sum is known, and nothing is clipped: leave privacy.clip_norm out":
            noised is not None and noised.clip_norm != 1.0,
        f"their {trees.rounds} rounds let all of them grow, and privacy.rounds pays for more: make both the same":
            not isinstance(privacy, NoPrivacy) and privacy.rounds > trees.rounds,
    })


def _first(objections: dict[str, bool]) -> str | None:
    return next((f"trees: {words}" for words, holds in objections.items() if holds), None)
