"""A member who sends huge numbers is left out, or not admitted; what is committed can be read, and the run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedround import layout
from fedround.errors import ContractError
from tasks.coordinator import open_coordinator
from tasks.plan import Planned
from tests.small_federation import SmallFederation


@pytest.mark.parametrize("size", [1e16, 1e20])
def test_a_liar_who_is_left_out_does_not_end_the_run(federation: SmallFederation, size: float):
    """RFC 8785 writes whole numbers from 2^53 to 1e21 without a point: a norm of 1e18 stood in the commit as one."""
    commit = federation.round(lies={"north": lambda delta_D: np.full_like(delta_D, size)})
    assert {update.site: update.verdict for update in commit.updates}["north"] == "norm"
    assert federation.round().round == 2


def claim(said: dict[str, Any], path: str, number: float) -> None:
    *above, name = path.split(".")
    for step in above:
        said = said[int(step) if step.isdigit() else step]
    said[int(name) if name.isdigit() else name] = number


@pytest.fixture(scope="module")
def answered(made: SmallFederation, tmp_path_factory: pytest.TempPathFactory,
             rows_are_judged_here: None) -> tuple[SmallFederation, Planned, bytes]:
    """A round that everybody has answered, and what one of them said."""
    federation = made.copy(tmp_path_factory.mktemp("answered"))
    planned = federation.plan()
    for name in planned.plan.cohort:
        federation.answer(name, planned)
    return federation, planned, answer_of(federation).read_bytes()


def answer_of(federation: SmallFederation) -> Path:
    return federation.root / "store" / layout.answer("north", "spring", 1, 1, "train")


@pytest.mark.parametrize("path", [
    "releases.0.numbers.0", "releases.0.mechanism.noise_std", "epsilon", "charges", "update.mechanism.noise_multiplier",
    "update.mechanism.clip_norm", "update.mechanism.steps", "update.payload.size_bytes", "update.rows", "update.within_clip"])
@pytest.mark.parametrize("number", [1e308, 10 ** 16])
def test_a_huge_number_in_an_answer_is_that_sites_problem(answered: tuple[SmallFederation, Planned, bytes], path: str,
                                                          number: float):
    """Signed by its own key, as no fedround would sign it. It is rejected with a sentence, and the others are heard."""
    federation, planned, honest = answered
    document = json.loads(honest)
    claim(document["body"], path, number)
    body = json.dumps(document["body"], separators=(",", ":"), sort_keys=True).encode()
    signature = federation.site("north").identity.sign(b"fedround/1/answer\n" + body).hex()
    answer_of(federation).chmod(0o600)
    answer_of(federation).write_bytes(b'{"body":%b,"key":"%b","kind":"answer","signature":"%b"}' % (
        body, document["key"].encode(), signature.encode()))
    collected = federation.collect(planned)
    assert collected.rejected["north"].reason.startswith("site 'north' round 1: ")
    assert set(collected.admitted) == {"east", "south"}


@pytest.mark.parametrize("weight", ["1e16", "1e308", "5e-324", "1e13"])
def test_a_weight_beyond_all_bounds_is_not_in_the_file(federation: SmallFederation, weight: str):
    path = federation.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace("weight = 300.0", f"weight = {weight}"))
    with pytest.raises(ContractError, match=r"sites\.0\.weight"):
        open_coordinator(path.parent)
