"""Where things lie in the object store.

::

    federations/<digest>.json                         the signed federation file
    models/<sha256>.safetensors                       models and optimizer states, by content
    runs/<run>/rounds/<round>/plan.json               what the round asks
    runs/<run>/rounds/<round>/checkpoint.json         what the round's model is
    runs/<run>/rounds/<round>/commit.json             last: the round exists
    runs/<run>/evaluations/<round>/plan.json          asks for an evaluation of the round's model
    sites/<site>/<run>/rounds/<round>/delta.safetensors
    sites/<site>/<run>/rounds/<round>/answer.json     last: the site has answered (update or refusal)
    sites/<site>/<run>/evaluations/<round>/answer.json

Everything a site writes begins with its own prefix, so that one credential rule keeps each site to itself.
"""

from __future__ import annotations

from fedround.types import Purpose

_FOLDER = {Purpose.TRAIN: "rounds", Purpose.EVALUATE: "evaluations"}


def federation(digest: str) -> str:
    """The signed federation file."""
    return f"federations/{digest}.json"


def model(sha256: str) -> str:
    """A model or optimizer state."""
    return f"models/{sha256}.safetensors"


def plan(run: str, number: int, purpose: Purpose = Purpose.TRAIN) -> str:
    """What a round, or an evaluation of a round's model, asks."""
    return f"runs/{run}/{_FOLDER[purpose]}/{number:05d}/plan.json"


def checkpoint(run: str, number: int) -> str:
    """What a round's model is."""
    return f"runs/{run}/rounds/{number:05d}/checkpoint.json"


def commit(run: str, number: int) -> str:
    """A round exists once this object exists."""
    return f"runs/{run}/rounds/{number:05d}/commit.json"


def site_prefix(site: str) -> str:
    """All that a site may write."""
    return f"sites/{site}/"


def answer(site: str, run: str, number: int, purpose: Purpose = Purpose.TRAIN) -> str:
    """A site's answer: an update, an evaluation or a refusal; the last object it writes for a plan."""
    return f"{site_prefix(site)}{run}/{_FOLDER[purpose]}/{number:05d}/answer.json"


def delta(site: str, run: str, number: int) -> str:
    """The tensors of a site's update."""
    return f"{site_prefix(site)}{run}/rounds/{number:05d}/delta.safetensors"
