"""`fedround models get --whole`: a model of which a part never travels, complete."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedround import layout
from tests import small_federation
from tests.cli.conftest import Fedround, one_sentence


@pytest.mark.parametrize(("parts", "whole", "says"), [
    ({"frozen": ["0.*"]}, {"0.bias", "0.weight", "2.bias", "2.weight"}, "with 2 frozen tensors"),
    ({"frozen": ["0.bias"], "private": ["2.*"]}, {"0.bias", "0.weight"}, "its private part is at the sites"),
    ({}, {"0.bias", "0.weight", "2.bias", "2.weight"}, "with 0 frozen tensors"),
])
def test_the_frozen_part_is_put_to_what_travels(fedround: Fedround, tmp_path, rows_are_judged_here, parts, whole, says):
    federation = small_federation.make(tmp_path / "federation", parts=parts)
    commit = federation.round()
    folder, out, complete = federation.root / "coordinator", tmp_path / "travels", tmp_path / "whole"
    assert fedround("models", "rebuild", "spring", "-c", folder).exit_code == 0
    fedround("models", "get", "spring/round-00001", out, "-c", folder)
    told = fedround("models", "get", "spring/round-00001", complete, "--whole", "-c", folder)
    assert says in told.stdout
    travels, found = load_file(out), load_file(complete)
    named = commit.blob("rest")
    rest = {} if named is None else load_file(federation.root / "store" / layout.model(named))
    assert {*found} == whole
    assert all(np.array_equal(array, travels[name] if name in travels else rest[name]) for name, array in found.items())


def test_a_model_that_is_no_trees_is_not_written_for_xgboost(fedround: Fedround, coordinator, tmp_path):
    refused = fedround("models", "get", "spring/round-00001", tmp_path / "model.json", "--as", "xgboost", "-c", coordinator)
    one_sentence(refused, "recipe 'tiny' says no TREES", "models bundle")
