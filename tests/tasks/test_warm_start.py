"""A federation that begins with a checkpoint, of the whole model or under adapters that alone travel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load
from safetensors.torch import save_file

from fedround import codec, layout
from fedround.errors import ChainError, ContractError, SetupError, TrustError
from fedround.learning.recipe import initial_tensors, load_recipe
from fedround.learning.start import read
from fedround.records import Commit
from fedround.signing import digest, seal
from infra.history import read_checkpoint
from tests import small_federation
from tests.small_federation import NAMES, SmallFederation
from tests.transformer import Transformer

LORA = '''"""Eight words, one logit: adapters in a tiny transformer."""
import numpy as np
from tests.transformer import build_adapted

NAME = "tiny-lora"


def features(rows):
    words = np.digitize(rows[["x1", "x2"] * 4], [-1, -0.3, 0.3, 1])
    return words.astype(np.float32)


def labels(rows):
    return rows["y"].to_numpy(np.int64)


build_model = build_adapted
'''


@pytest.fixture
def make(tmp_path, rows_are_judged_here):
    return lambda **changes: small_federation.make(tmp_path / "federation", **changes)


def saved(path: Path, model: torch.nn.Module, *, dtype=torch.float32, only: str = "") -> Path:
    """A state dict as people save one."""
    save_file({name: value.to(dtype) for name, value in model.state_dict().items() if name.startswith(only)}, path)
    return path


def tiny(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))


def model_of(federation: SmallFederation, commit: Commit) -> dict[str, np.ndarray]:
    return load((federation.root / "store" / layout.model(commit.model)).read_bytes())


def test_every_run_begins_with_the_checkpoint_and_the_proof_says_so(make, tmp_path):
    federation = make(start=saved(tmp_path / "model.safetensors", tiny(1)))
    federation.round()
    first = federation.plan(run="summer").parent.commit
    assert {name: array.tolist() for name, array in model_of(federation, first).items()} == {
        name: value.tolist() for name, value in tiny(1).state_dict().items()}
    assert federation.proofs()[0].hashes == 4
    assert len(federation.proofs()) == 2


def test_of_a_checkpoint_of_half_the_model_the_other_half_is_the_recipes_own(make, tmp_path):
    """Half precision is taken as the float32 numbers that it is."""
    federation = make(start=saved(tmp_path / "body.safetensors", tiny(1), dtype=torch.bfloat16, only="0."))
    first = model_of(federation, federation.plan().parent.commit)
    assert np.array_equal(first["0.weight"], tiny(1).state_dict()["0.weight"].bfloat16().float().numpy())
    assert first["2.weight"].any()
    assert not np.array_equal(first["2.weight"], tiny(1).state_dict()["2.weight"].numpy())


def test_a_frozen_part_comes_from_the_checkpoint_and_stays_as_it_was(make, tmp_path):
    federation = make(start=saved(tmp_path / "model.safetensors", tiny(1)), parts={"frozen": ["0.*"]})
    commits = [federation.round(), federation.round()]
    plan = federation.plan().plan
    assert [spec.name for spec in plan.tensors] == ["2.bias", "2.weight"]
    assert {commit.blob("rest") for commit in commits} == {plan.rest}
    rest = load((federation.root / "store" / layout.model(plan.rest)).read_bytes())
    assert np.array_equal(rest["0.weight"], tiny(1).state_dict()["0.weight"].numpy())
    assert len(rest) == 2
    assert len(federation.proofs()) == 3


def test_only_adapters_travel_and_every_site_fetches_the_frozen_model_once(make, tmp_path):
    torch.manual_seed(3)
    federation = make(recipe=LORA, start=saved(tmp_path / "pretrained.safetensors", Transformer()))
    for _ in range(2):
        commit = federation.round()
    plan = federation.plan().plan
    store, rest = federation.root / "store", layout.model(plan.rest)
    assert all(spec.name.split(".")[-1] in ("lora_A", "lora_B") or spec.name.startswith("head.") for spec in plan.tensors)
    travels, frozen = codec.size_bytes(plan.tensors), (store / rest).stat().st_size
    for name in NAMES:
        sent = store / layout.delta(name, "spring", 2, 1)
        assert sent.stat().st_size == travels
        assert codec.decode(sent.read_bytes(), plan.tensors, "sent").keys() == {spec.name for spec in plan.tensors}
        assert (federation.root / name / "kept" / f"{plan.rest}.safetensors").read_bytes() == (store / rest).read_bytes()
    assert travels < frozen / 20
    assert [spec.name for spec in plan.tensors] == sorted(model_of(federation, commit))
    planned = federation.plan()
    (store / rest).rename(tmp_path / "elsewhere")
    assert federation.answer("north", planned) == "update"


@pytest.mark.parametrize(("model", "says"), [
    (torch.nn.Sequential(torch.nn.Linear(3, 4)), "0.weight"),
    (torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 4)), "1.bias, 1.weight"),
])
def test_a_checkpoint_of_another_model_is_refused_and_nothing_is_made(make, tmp_path, model, says):
    with pytest.raises(ContractError, match=f"no tensors of such a name and shape as the checkpoint's {says}"):
        make(start=saved(tmp_path / "model.safetensors", model))
    assert not (tmp_path / "federation" / "coordinator").exists()


@pytest.mark.parametrize("body", [b"", b"no model", b"\xff" * 100])
def test_a_file_that_is_no_checkpoint_is_refused(make, tmp_path, body):
    (tmp_path / "model.safetensors").write_bytes(body)
    with pytest.raises(ContractError, match="no safetensors file"):
        make(start=tmp_path / "model.safetensors")


def test_a_checkpoint_that_is_not_there_is_said(make, tmp_path):
    with pytest.raises(SetupError, match="cannot read the checkpoint"):
        make(start=tmp_path / "nothing.safetensors")


def test_a_checkpoint_with_numbers_that_are_none_is_refused(make, tmp_path):
    wild = tiny(1)
    with torch.no_grad():
        wild[0].weight[0, 0] = float("inf")
    with pytest.raises(ContractError, match="0.weight has numbers that are not finite"):
        make(start=saved(tmp_path / "wild.safetensors", wild))


def test_a_checkpoint_that_was_altered_or_taken_away_begins_no_run(make, tmp_path):
    federation = make(start=saved(tmp_path / "model.safetensors", tiny(1)))
    path = federation.root / "coordinator" / "approved" / "start.safetensors"
    honest = path.read_bytes()
    path.write_bytes(honest[:-1] + b"\0")
    with pytest.raises(ContractError, match="the federation file names"):
        federation.plan()
    path.unlink()
    with pytest.raises(ContractError, match="put it back"):
        federation.plan()


def test_a_first_model_that_is_not_the_checkpoints_is_found_by_the_proof(make, tmp_path):
    """A coordinator who agreed on a checkpoint and began with something else, all properly signed."""
    federation = make(start=saved(tmp_path / "model.safetensors", tiny(1)))
    commit, store = federation.plan().parent.commit, federation.root / "store"
    coordinator = federation.coordinator
    other = codec.encode(initial_tensors(load_recipe(federation.root / "agreed" / "recipe.py"), 0))
    (store / layout.model(digest(other))).write_bytes(other)
    checkpoint = seal(read_checkpoint(coordinator.store, commit, coordinator.identity.key).model_copy(
        update={"model": codec.payload_of(other)}), coordinator.identity)
    (store / layout.checkpoint("spring", 0, digest(checkpoint))).write_bytes(checkpoint)
    path = store / layout.commit("spring", 0)
    path.chmod(0o600)
    path.write_bytes(seal(commit.model_copy(update={"model": digest(other), "checkpoint": digest(checkpoint)}),
                          coordinator.identity))
    with pytest.raises(ChainError, match="does not begin with '0.bias' of the checkpoint"):
        federation.proofs()


def test_a_stored_checkpoint_with_other_bytes_is_found_by_the_proof(make, tmp_path):
    federation = make(start=saved(tmp_path / "model.safetensors", tiny(1)), parts={"frozen": ["0.*"]})
    federation.plan()
    stored = federation.root / "store" / layout.model(federation.coordinator.federation.start)
    body = stored.read_bytes()
    assert set(read(body)) == set(tiny(1).state_dict())
    stored.chmod(0o600)
    stored.write_bytes(body[:-4] + np.float32(3).tobytes())
    with pytest.raises(TrustError, match="checkpoint with which"):
        federation.proofs()
