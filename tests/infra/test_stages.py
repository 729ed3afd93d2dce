"""Stages are gto's tags: what is in one, what was, what comes back; and all of it with a remote that is S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedround.errors import ContractError, NotFoundError
from infra.model_registry import BUNDLE, ModelRegistry
from infra.stack.seaweedfs import BUCKET
from infra.stages import Stages
from tests.conftest import S3Server
from tests.infra.test_model_registry import METRICS, checkpoint, model


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Three models, of which the first two went into production."""
    folder = tmp_path_factory.mktemp("stages")
    registry = ModelRegistry.open(folder / "models")
    found = Stages(registry)
    for number in (1, 2, 3):
        path = model(folder, b"weights %d" % number)
        tag = registry.register(checkpoint(path, number), path.read_bytes(), METRICS)
        for version, stage in ((f"v{number}.0.0", "candidate"), (f"v{number}.1.0", "production"))[:1 if number == 3 else 2]:
            found.add(tag, version, f"bundle {version}".encode(), b"decision", {"auc": number / 10})
            found.assign(version, stage, "for a test")
    return found


def test_a_rollback_goes_one_promotion_back_and_never_in_circles(stages: Stages):
    assert stages.next_version() == 4
    assert stages.current("production").version == "v2.1.0"
    assert stages.before("production").version == "v1.1.0"
    stages.assign("v1.1.0", "production", "back")
    assert stages.current("production").version == "v1.1.0"
    with pytest.raises(ContractError, match="nothing to go back to"):
        stages.before("production")
    assert stages.before("candidate").version == "v2.0.0"
    assert [one.number for one in stages.history()] == [1, 2, 3, 4, 5, 6]


def test_a_version_keeps_its_bundle_and_its_decision_and_is_never_replaced(stages: Stages):
    assert stages.bundle("v1.1.0") == b"bundle v1.1.0"
    stages.add("spring/round-00001", "v1.1.0", b"another", b"another", {})
    assert (stages.bundle("v1.1.0"), stages.promotion("v1.1.0")) == (b"bundle v1.1.0", b"decision")
    for ask in (stages.bundle, stages.promotion):
        with pytest.raises(NotFoundError):
            ask("v9.1.0")
    with pytest.raises(NotFoundError, match="models rebuild"):
        stages.add("summer/round-00001", "v9.0.0", b"", b"", {})


def test_a_round_that_comes_later_carries_no_bundle(stages: Stages, tmp_path):
    path = model(tmp_path, b"weights 4")
    tag = stages._registry.register(checkpoint(path, 4), path.read_bytes(), METRICS)
    with pytest.raises(NotFoundError):
        stages._registry.read_bundle(tag)


@pytest.mark.stack
def test_a_remote_in_s3_serves_models_and_bundles(stages: Stages, s3_server: S3Server, tmp_path: Path):
    """As docs/models.md has it: the registry's data folder is copied, as it is."""
    from dvc.repo import Repo

    remote = {"url": f"s3://{BUCKET}/model-store", "endpointurl": s3_server.endpoint,
              "access_key_id": s3_server.credential.access_key, "secret_access_key": s3_server.credential.secret_key}
    root, shared = stages._registry.root, s3_server.store("model-store/")
    data = root.with_name("models-data")
    for path in data.rglob("*"):
        if path.is_file():
            assert shared.put_once(path.relative_to(data).as_posix(), path)
    data.rename(tmp_path / "away")
    for path, rev, expected in ((BUNDLE, "model@v2.1.0", b"bundle v2.1.0"),
                                ("model.safetensors", "spring/round-00003", b"weights 3")):
        Repo.get(str(root), path, out=str(tmp_path / path), rev=rev, remote="shared", remote_config=remote)
        assert (tmp_path / path).read_bytes() == expected
