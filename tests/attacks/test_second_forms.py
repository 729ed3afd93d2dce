"""Whoever writes to the bucket, and has no key, makes no second form of a document that anybody takes for the first."""

from __future__ import annotations

import json

import pytest

from fedround import layout
from fedround.errors import ContractError, TrustError
from fedround.federation_log import Rotation
from fedround.signing import Identity, seal
from tasks.membership import rotate_key
from tasks.verify import verify_run
from tests.small_federation import SmallFederation


def capitals(document: bytes) -> bytes:
    signature = json.loads(document)["signature"].encode()
    return document.replace(signature, signature.upper())


def test_a_rotation_in_another_form_is_refused_before_the_federation_file_changes(federation: SmallFederation):
    new, path = Identity.generate().key, federation.root / "coordinator" / "federation.toml"
    site, before = federation.site("north"), path.read_bytes()
    said = seal(Rotation(federation="small", site="north", old=site.identity.key, new=new), site.identity)
    federation.coordinator.store.put_once(layout.rotation("north", new), capitals(said))
    with pytest.raises(ContractError, match="has named no new key"):
        rotate_key(path.parent, "north")
    assert path.read_bytes() == before


@pytest.mark.parametrize("key", [layout.commit("spring", 1), layout.log_entry(1), layout.plan("spring", 1, 1, "train"),
                                 layout.answer("north", "spring", 1, 1, "train")], ids=["commit", "log", "plan", "answer"])
def test_a_second_form_in_the_bucket_fails_the_proof(made_round: SmallFederation, key: str):
    path = made_round.root / "store" / key
    honest = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(capitals(honest))
    try:
        with pytest.raises(TrustError, match=r"altered|is not in the store|stored bytes are not those"):
            list(verify_run(made_round.coordinator.store, "spring", made_round.coordinator.identity.key))
    finally:
        path.write_bytes(honest)


@pytest.fixture(scope="module")
def made_round(made: SmallFederation, tmp_path_factory: pytest.TempPathFactory,
               rows_are_judged_here: None) -> SmallFederation:
    """A committed round."""
    federation = made.copy(tmp_path_factory.mktemp("round"))
    federation.round()
    return federation
