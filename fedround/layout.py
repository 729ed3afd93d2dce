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
    runs/<run>/rounds/<round>/proposal-<n>.json         with several coordinators: a commit that one proposes
    runs/<run>/rounds/<round>/signed/<digest>/<coordinator>.json    a coordinator that has computed it again signs it
    runs/<run>/contributions/<round>.json               what each site's update did for it
    runs/<run>/evaluations/<round>/plan-<attempt>.json  asks for an evaluation of the round's model
    runs/<run>/evaluations/<round>/finding-<attempt>.json           what came of it
    runs/<run>/measurements/<round>/…                   the same for a measurement of the sites' rows
    runs/<run>/keys/<round>/…, …/shares/<round>/…       the same for what secure sums need before them
    runs/<run>/countersigned/<round>/…, …/reveals/<round>/…     the same for taking the masks off a sum
    runs/<run>/joins/<round>/…                          the same for each step between two members (docs/vertical.md)
    runs/<run>/relayed/<sha256>                         what one site said, handed on to the others, by content
    sites/<site>/<run>/rounds/<round>/<attempt>/delta.safetensors
    sites/<site>/<run>/rounds/<round>/<attempt>/answer.json        last: the site has answered
    sites/<site>/<run>/rounds/<round>/<attempt>/refusal-<n>.json   the site has said no; asked again, it may say yes
    sites/<site>/<run>/evaluations/<round>/<attempt>/answer.json    (…/measurements/… and the others the same)
    sites/<site>/<run>/…/<round>/<attempt>/payload.bin  a masked vector; keys, dealt shares, what was revealed; or
                                                        what is encrypted to one other member
    regions/<region>/<run>/rounds/<round>/<attempt>/<sha256>.bin     what a region's updates add up to, by content
    regions/<region>/<run>/rounds/<round>/<attempt>/partial-<n>.json last: the regional coordinator's signed word of it; asked
                                                        again, when more members have answered, it gives another
    sites/<site>/rotations/<key>.json                   the site's old key hands over to this new one

The keys of everything that a site writes begin with its own prefix. So one credential rule separates the sites. The same
holds for regional coordinators. A round that
missed its quorum is tried again under the same plan; a plan that would ask for something else now is a new attempt.

Keys are built here and parsed here. `parse_commit(key)` gives what `commit` was called with, or None if `commit` never makes
this key; so do the others.
"""

from __future__ import annotations

import re

from fedround.records import QUESTIONS, Blob
from fedround.values import Purpose

RUNS = "runs/"
"""The prefix of every run."""

_FOLDER: dict[Purpose, str] = {one.model_fields["kind"].default: one.folder for one in QUESTIONS}
_PURPOSE: dict[str, Purpose] = {folder: purpose for purpose, folder in _FOLDER.items()}

_NAME = "([a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?)"
_ASKED, _NUMBER, _ATTEMPT = f"({'|'.join(_PURPOSE)})", "([0-9]{5})", "(?!00)([0-9]{2})"
_LOG_ENTRY = re.compile(r"log/(?!00000)([0-9]{5})\.json")
_ROTATION = re.compile(rf"sites/{_NAME}/rotations/([0-9a-f]{{64}})\.json")
_PLAN = re.compile(rf"runs/{_NAME}/{_ASKED}/{_NUMBER}/plan-{_ATTEMPT}\.json")
_COMMIT = re.compile(rf"runs/{_NAME}/rounds/{_NUMBER}/commit\.json")
_FINDING = re.compile(rf"runs/{_NAME}/{_ASKED}/{_NUMBER}/finding-{_ATTEMPT}\.json")
_ANSWER = re.compile(rf"sites/{_NAME}/{_NAME}/{_ASKED}/{_NUMBER}/{_ATTEMPT}/answer\.json")
_REFUSAL = re.compile(rf"sites/{_NAME}/{_NAME}/{_ASKED}/{_NUMBER}/{_ATTEMPT}/refusal-(?!0000)([0-9]{{4}})\.json")


def federation(digest: str) -> str:
    """The signed federation file."""
    return f"federations/{digest}.json"


LOG = "log/"


def log_entry(number: int) -> str:
    """One entry of the federation log."""
    return f"{LOG}{number:05d}.json"


def parse_log_entry(key: str) -> int | None:
    """The number."""
    found = _LOG_ENTRY.fullmatch(key)
    return None if found is None else int(found[1])


def rotations(site: str) -> str:
    """The prefix of the rotations that a site's old keys signed."""
    return f"{site_prefix(site)}rotations/"


def rotation(site: str, key: str) -> str:
    """Where a site's old key says that `key` is its successor."""
    return f"{rotations(site)}{key.removeprefix('ed25519:')}.json"


def parse_rotation(key: str) -> tuple[str, str] | None:
    """The site and its new key."""
    found = _ROTATION.fullmatch(key)
    return None if found is None else (found[1], f"ed25519:{found[2]}")


def model(sha256: str) -> str:
    """A model or optimizer state."""
    return f"models/{sha256}.safetensors"


def memory(sha256: str) -> str:
    """What the coordinator remembers of the sites' uploads."""
    return f"memory/{sha256}.safetensors"


def blob(named: Blob) -> str:
    """A part of a round's state: where its readers may read."""
    return model(named.digest) if named.readers == "everybody" else memory(named.digest)


def questions(run: str, purpose: Purpose) -> str:
    """The prefix of all plans of a run with this purpose, and of what came of them."""
    return f"{RUNS}{run}/{_FOLDER[purpose]}/"


def rounds(run: str) -> str:
    """The prefix of all rounds of a run."""
    return questions(run, "train")


def plans(run: str) -> str:
    """The prefix of all that a run asks, and of what came of it."""
    return f"runs/{run}/"


def plan(run: str, number: int, attempt: int, purpose: Purpose) -> str:
    """What a round, or an evaluation of a round's model, asks."""
    return f"{questions(run, purpose)}{number:05d}/plan-{attempt:02d}.json"


def parse_plan(key: str) -> tuple[str, int, int, Purpose] | None:
    """Run, round, attempt and purpose."""
    found = _PLAN.fullmatch(key)
    return None if found is None else (found[1], int(found[3]), int(found[4]), _PURPOSE[found[2]])


def checkpoint(run: str, number: int, digest: str) -> str:
    """What a round's model is. The key contains a digest, so a try that died before its commit blocks no later one."""
    return f"{rounds(run)}{number:05d}/checkpoint-{digest}.json"


def commit(run: str, number: int) -> str:
    """A round exists once this object exists."""
    return f"{rounds(run)}{number:05d}/commit.json"


def proposal(run: str, number: int, count: int) -> str:
    """The `count`-th commit that is proposed for a round."""
    return f"{rounds(run)}{number:05d}/proposal-{count:02d}.json"


def cosignature(run: str, number: int, proposed: str, coordinator: str) -> str:
    """One coordinator's signature of the proposal with this digest."""
    return f"{rounds(run)}{number:05d}/signed/{proposed}/{coordinator}.json"


def parse_commit(key: str) -> tuple[str, int] | None:
    """Run and round."""
    found = _COMMIT.fullmatch(key)
    return None if found is None else (found[1], int(found[2]))


def relayed(run: str, sha256: str) -> str:
    """What one site said, where the others may read it."""
    return f"{plans(run)}relayed/{sha256}"


def contributions(run: str) -> str:
    """The prefix of what is said of sites' updates."""
    return f"{RUNS}{run}/contributions/"


def contribution(run: str, number: int) -> str:
    """What each site's update did for a committed round's model."""
    return f"{contributions(run)}{number:05d}.json"


def finding(run: str, number: int, attempt: int, purpose: Purpose) -> str:
    """What came of a question that makes no model."""
    return f"{questions(run, purpose)}{number:05d}/finding-{attempt:02d}.json"


def parse_finding(key: str) -> tuple[str, int, int, Purpose] | None:
    """Run, round, attempt and purpose."""
    found = _FINDING.fullmatch(key)
    return None if found is None else (found[1], int(found[3]), int(found[4]), _PURPOSE[found[2]])


def site_prefix(site: str) -> str:
    """All that a site may write."""
    return f"sites/{site}/"


def of_run(site: str, run: str) -> str:
    """The prefix of all that a site says in a run."""
    return f"{site_prefix(site)}{run}/"


def answers(site: str, run: str, number: int, purpose: Purpose) -> str:
    """The prefix of all that a site answers to the attempts at one round."""
    return f"{of_run(site, run)}{_FOLDER[purpose]}/{number:05d}/"


def answer(site: str, run: str, number: int, attempt: int, purpose: Purpose) -> str:
    """A site's update or evaluation; the last object it writes for a plan."""
    return f"{_answers(site, run, number, attempt, purpose)}answer.json"


def parse_answer(key: str) -> tuple[str, str, int, int, Purpose] | None:
    """Site, run, round, attempt and purpose."""
    found = _ANSWER.fullmatch(key)
    return None if found is None else (found[1], found[2], int(found[4]), int(found[5]), _PURPOSE[found[3]])


def refusals(site: str, run: str, number: int, attempt: int, purpose: Purpose) -> str:
    """The prefix of a site's refusals of a plan."""
    return f"{_answers(site, run, number, attempt, purpose)}refusal-"


def refusal(site: str, run: str, number: int, attempt: int, purpose: Purpose, count: int) -> str:
    """A site's `count`-th refusal of a plan. Once the site answers, its answer counts."""
    return f"{refusals(site, run, number, attempt, purpose)}{count:04d}.json"


def parse_refusal(key: str) -> tuple[str, str, int, int, Purpose, int] | None:
    """Site, run, round, attempt, purpose and count."""
    found = _REFUSAL.fullmatch(key)
    return None if found is None else (
        found[1], found[2], int(found[4]), int(found[5]), _PURPOSE[found[3]], int(found[6]))


def delta(site: str, run: str, number: int, attempt: int) -> str:
    """The tensors of a site's update."""
    return f"{site_prefix(site)}{run}/rounds/{number:05d}/{attempt:02d}/delta.safetensors"


def payload(site: str, run: str, number: int, attempt: int, purpose: Purpose) -> str:
    """What an answer carries besides itself: a masked vector, what is about keys, or what is encrypted to one member."""
    return f"{_answers(site, run, number, attempt, purpose)}payload.bin"


def region_prefix(region: str) -> str:
    """All that a regional coordinator may write."""
    return f"regions/{region}/"


def partial(region: str, run: str, number: int, attempt: int, count: int) -> str:
    """A region's `count`-th signed partial sum of the answers to a plan."""
    return f"{region_prefix(region)}{run}/rounds/{number:05d}/{attempt:02d}/partial-{count:02d}.json"


def partial_numbers(region: str, run: str, number: int, attempt: int, sha256: str) -> str:
    """The numbers of a region's partial sum."""
    return f"{region_prefix(region)}{run}/rounds/{number:05d}/{attempt:02d}/{sha256}.bin"


def _answers(site: str, run: str, number: int, attempt: int, purpose: Purpose) -> str:
    return f"{answers(site, run, number, purpose)}{attempt:02d}/"
