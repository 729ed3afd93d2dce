"""A bundle says what was committed, and a single bit of it that is another is refused."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fedround import archive, bundle, codec
from fedround.errors import ContractError, FedroundError
from fedround.learning.evaluate import scores
from fedround.learning.exported import Served
from fedround.learning.recipe import initial_tensors, load_recipe
from fedround.signing import Identity
from infra.history import read_commit
from tasks.bundle import CHECKED_ROWS, TOLERANCE, build, evidence_of, rows_to_check
from tests.bundled import Bundled
from tests.small_federation import rows


def test_a_bundle_holds_the_committed_model_and_its_onnx_says_the_same(bundled: Bundled):
    coordinator, found = bundled.federation.coordinator, bundled.bundle
    commit = read_commit(coordinator.store, "spring", 1, bundled.key)
    assert (found.manifest.commit, found.manifest.model) == (commit.digest, commit.commit.model)
    assert found.manifest.approval is None
    assert [part.name for part in found.manifest.parts] == list(bundle.PARTS)
    schema = codec.schema_of(initial_tensors(coordinator.recipe, 0))
    tensors = codec.decode(found.files[bundle.MODEL], schema, "model")
    tested = coordinator.recipe.encode(rows(500, 7))
    by_torch = scores(coordinator.recipe, tensors, tested)["score"]
    assert np.abs(Served(found.files[bundle.ONNX]).answers(tested.inputs) - by_torch).max() < TOLERANCE
    assert np.abs(Served(found.files[bundle.INT8]).answers(tested.inputs) - by_torch).max() < 0.1


def test_the_export_is_compared_on_ten_thousand_rows_and_one_that_differs_makes_no_bundle(bundled: Bundled, monkeypatch):
    evidence = evidence_of(bundled.bundle)
    assert evidence.checked_rows >= CHECKED_ROWS
    assert 0 <= evidence.difference < TOLERANCE
    few = {"mask": np.array([[True], [False]]), "x": np.array([[0, 1], [2, -3]], np.float32)}
    checked = rows_to_check(few)
    assert {name: (len(array), array.dtype) for name, array in checked.items()} == {
        "mask": (CHECKED_ROWS, np.bool_), "x": (CHECKED_ROWS, np.float32)}
    assert all(np.array_equal(checked[name][:2], few[name]) for name in few)
    honest = Served.answers
    monkeypatch.setattr(Served, "answers", lambda self, x: honest(self, x) + np.float32(1e-4))
    with pytest.raises(ContractError, match="differs from the model by 0.0001"):
        build(bundled.federation.coordinator, "spring", 1)


def test_a_bundle_needs_no_label_and_names_the_columns_that_it_needs(bundled: Bundled):
    assert [(column.name, column.kind) for column in bundled.bundle.manifest.columns] == [("x1", "number"), ("x2", "number")]


def test_any_program_opens_it_and_nothing_in_it_tells_where_it_was_made(bundled: Bundled):
    with zipfile.ZipFile(io.BytesIO(bundled.body)) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == [bundle.MANIFEST, *bundle.PARTS]
    for trace in (str(bundled.federation.root), str(Path(__file__).parents[2]), "site-packages", "stack_trace"):
        assert trace.encode() not in bundled.body


def test_every_flipped_bit_is_refused(bundled: Bundled, tmp_path):
    """One in every byte, and the last bit of the last."""
    body, key = bundled.body, bundled.key
    path = tmp_path / "flipped.zip"
    for place in [*range(0, len(body), max(1, len(body) // 400)), len(body) - 1]:
        altered = bytearray(body)
        altered[place] ^= 1 << (place % 8)
        path.write_bytes(altered)
        with pytest.raises(FedroundError):
            bundle.open_bundle(path, key)


@pytest.mark.parametrize("part", [bundle.MANIFEST, *bundle.PARTS])
def test_a_flipped_bit_in_a_part_is_refused_though_the_archive_is_whole(bundled: Bundled, part):
    files = archive.unpack(bundled.body, "bundle")
    altered = bytearray(files[part])
    altered[len(altered) // 2] ^= 1
    with pytest.raises(FedroundError, match="altered|not a signed document"):
        bundle.read_bundle(archive.pack({**files, part: bytes(altered)}), bundled.key, "bundle")


def test_a_bundle_of_somebody_else_or_with_a_part_too_many_or_too_few_is_refused(bundled: Bundled):
    files = archive.unpack(bundled.body, "bundle")
    stranger = Identity.generate()
    resigned = bundle.sealed(bundled.bundle.manifest, bundled.bundle.files, stranger)
    without = {name: content for name, content in files.items() if name != bundle.CARD}
    for body, says in ((resigned, "another key"), (archive.pack({**files, "more.py": b""}), "exactly the parts"),
                       (archive.pack(without), "exactly the parts"), (archive.pack({}), "no manifest.json"),
                       (b"", "damaged"), (bundled.body + b"\n", "damaged")):
        with pytest.raises(FedroundError, match=says):
            bundle.read_bundle(body, bundled.key, "bundle")


def test_the_unpacked_folder_is_a_bundle_too(bundled: Bundled, tmp_path):
    with zipfile.ZipFile(bundled.file(tmp_path)) as opened:
        opened.extractall(tmp_path / "folder")
    assert bundle.open_bundle(tmp_path / "folder", bundled.key).manifest == bundled.bundle.manifest
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(FedroundError, match="exactly the parts"):
        bundle.open_bundle(tmp_path / "folder", bundled.key)


def test_a_round_that_is_not_there_or_of_another_recipe_makes_no_bundle(bundled: Bundled, tmp_path):
    with pytest.raises(FedroundError, match="round 9"):
        build(bundled.federation.coordinator, "spring", 9)
    other = tmp_path / "recipe.py"
    other.write_text((bundled.federation.root / "agreed" / "recipe.py").read_text() + "# changed\n")
    coordinator = bundled.federation.coordinator
    object.__setattr__(coordinator, "recipe", load_recipe(other))
    with pytest.raises(ContractError, match="put back the recipe"):
        build(coordinator, "spring", 1)


def test_the_card_says_what_is_known_and_what_is_not(bundled: Bundled):
    card = bundled.bundle.files[bundle.CARD].decode()
    for said in ("CC0-1.0", "Nothing else.", "Nobody has approved this model yet.", "one record of one site", "delta 1e-05",
                 "## Fairness\n\nnot measured", "## Drift\n\nnot measured", "Trained by 3 sites: east, north, south"):
        assert said in card, said
    import yaml

    head = yaml.safe_load(card.split("---")[1])
    assert head["license_name"] == "CC0-1.0"
    assert {metric["type"] for metric in head["model-index"][0]["results"][0]["metrics"]} >= {"auc"}
    assert json.loads(bundled.bundle.files[bundle.CERTIFICATE])["model"] == bundled.bundle.manifest.model
