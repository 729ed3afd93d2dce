"""Where things lie in the object store.

::

    federations/<digest>.json                           the signed federation file
    log/<number>.json                                   the federation log: who was a member, with which key, from when on
    models/<sha256>.safetensors                         models and optimizer states, by content
    memory/<sha256>.safetensors                         what the coordinator alone remembers, by content: averages of the
                                                        sites' uploads, distances between them. No site may read it
    runs/<run>/rounds/<round>/plan-<attempt>.json       what the round asks
    runs/<run>/rounds/<round>/checkpoint-<digest>.json  what the round's model is; the commit says which one it is
    runs/<run>/rounds/<round>/commit.json               last: the round exists
    runs/<run>/evaluations/<round>/plan-<attempt>.json  asks for an evaluation of the round's model
    sites/<site>/<run>/rounds/<round>/<attempt>/delta.safetensors
    sites/<site>/<run>/rounds/<round>/<attempt>/answer.json        last: the site has answered
    sites/<site>/<run>/rounds/<round>/<attempt>/refusal-<n>.json   the site has said no; asked again, it may say yes
    sites/<site>/<run>/evaluations/<round>/<attempt>/answer.json
    sites/<site>/rotations/<key>.json                   the site's old key hands over to this new one

Everything a site writes begins with its own prefix, so that one credential rule keeps each site to itself. A round that
missed its quorum is tried again under the same plan; a plan that would ask for something else now is a new attempt.
"""

from __future__ import annotations

from fedround.types import Purpose

_FOLDER = {Purpose.TRAIN: "rounds", Purpose.EVALUATE: "evaluations"}


def federation(digest: str) -> str:
    """The signed federation file."""
    return f"federations/{digest}.json"


LOG = "log/"


def log_entry(number: int) -> str:
    """One entry of the federation log."""
    return f"{LOG}{number:05d}.json"


def rotations(site: str) -> str:
    """The prefix of what a site's old keys say of their successors."""
    return f"{site_prefix(site)}rotations/"


def rotation(site: str, key: str) -> str:
    """Where a site's old key says that `key` is its successor."""
    return f"{rotations(site)}{key.removeprefix('ed25519:')}.json"


def model(sha256: str) -> str:
    """A model or optimizer state."""
    return f"models/{sha256}.safetensors"


def memory(sha256: str) -> str:
    """What the coordinator remembers of the sites' uploads."""
    return f"memory/{sha256}.safetensors"


def rounds(run: str) -> str:
    """The prefix of all rounds of a run."""
    return f"runs/{run}/rounds/"


def plans(run: str) -> str:
    """The prefix of all that a run asks, and of what came of it."""
    return f"runs/{run}/"


def plan(run: str, number: int, attempt: int, purpose: Purpose) -> str:
    """What a round, or an evaluation of a round's model, asks."""
    return f"runs/{run}/{_FOLDER[purpose]}/{number:05d}/plan-{attempt:02d}.json"


def checkpoint(run: str, number: int, digest: str) -> str:
    """What a round's model is. By content: a try that died before its commit is in nobody's way."""
    return f"{rounds(run)}{number:05d}/checkpoint-{digest}.json"


def commit(run: str, number: int) -> str:
    """A round exists once this object exists."""
    return f"{rounds(run)}{number:05d}/commit.json"


def site_prefix(site: str) -> str:
    """All that a site may write."""
    return f"sites/{site}/"


def answers(site: str, run: str, number: int, purpose: Purpose) -> str:
    """The prefix of all that a site answers to the attempts at one round."""
    return f"{site_prefix(site)}{run}/{_FOLDER[purpose]}/{number:05d}/"


def answer(site: str, run: str, number: int, attempt: int, purpose: Purpose) -> str:
    """A site's update or evaluation; the last object it writes for a plan."""
    return f"{_answers(site, run, number, attempt, purpose)}answer.json"


def refusals(site: str, run: str, number: int, attempt: int, purpose: Purpose) -> str:
    """The prefix of a site's refusals of a plan."""
    return f"{_answers(site, run, number, attempt, purpose)}refusal-"


def refusal(site: str, run: str, number: int, attempt: int, purpose: Purpose, count: int) -> str:
    """A site's `count`-th refusal of a plan. Once the site answers, its answer counts."""
    return f"{refusals(site, run, number, attempt, purpose)}{count:04d}.json"


def delta(site: str, run: str, number: int, attempt: int) -> str:
    """The tensors of a site's update."""
    return f"{site_prefix(site)}{run}/rounds/{number:05d}/{attempt:02d}/delta.safetensors"


def _answers(site: str, run: str, number: int, attempt: int, purpose: Purpose) -> str:
    return f"{answers(site, run, number, purpose)}{attempt:02d}/"
