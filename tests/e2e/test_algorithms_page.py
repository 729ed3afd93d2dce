"""docs/algorithms.md: every block is a part of a federation file, and every algorithm has one."""

from __future__ import annotations

import re
import tomllib
from typing import get_args

import pytest

from fedround.aggregation.weighing import Fairness
from fedround.agreement import Agreement
from fedround.compression.spec import Compression
from fedround.learning.spec import Algorithm, ServerOptimizer
from fedround.values import parse
from tests.e2e.pages import ROOT
from tests.small_federation import settings

BLOCKS = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs/algorithms.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: " ".join(block.split())[:60])
def test_a_block_can_stand_in_a_federation_file(block: str):
    said = tomllib.loads(block)
    alone = {"aggregation": None} if "combine" in said else {}          # there no rule can stand beside it
    agreed = parse(Agreement, settings(**alone, **said), "block")
    for part, values in said.items():
        found = getattr(agreed, part).model_dump(mode="json")     # what is said, and defaults
        assert all(found[key] == value or value.items() <= found[key].items() for key, value in values.items())


def test_every_algorithm_has_a_block():
    text = "\n".join(BLOCKS)
    named = [kind.model_fields["name"].default for union in (Algorithm, ServerOptimizer, Fairness, Compression)
             for kind in get_args(get_args(union)[0])]
    assert len(named) == 13
    assert {name for name in named if f'"{name}"' not in text} == {"plain"}
