"""A campaign on one part of the rows with real servers and processes: from the command line to every ledger and the proof."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fedround.statistics.partitions import Partition, Partitions
from infra.settings import load_toml, save_toml
from site_workers.policy import SitePolicy
from tests.e2e.conftest import Federation
from tests.small_federation import NAMES

pytestmark = pytest.mark.stack

ONE = Partition(column="y", by="value", name="1")


@pytest.fixture
def in_parts(real: Federation) -> Iterator[None]:
    """The federation tells rows apart by their label, and north and east let it, for as long as the test takes."""
    agreed = real.machine.coordinator / "federation.toml"
    before = {agreed: agreed.read_text()}
    agreed.write_text(f'{before[agreed]}\n[partitions]\ncolumn = "y"\nby = "value"\n')
    for name in NAMES:
        path = real.machine.site(name) / "policy.toml"
        before[path] = path.read_text()
        if name != "south":
            save_toml(load_toml(SitePolicy, path).model_copy(update={
                "partitions": (Partitions(column="y", by="value"),)}), path, "tells rows apart")
    yield
    for path, text in before.items():
        path.write_text(text)


def test_a_campaign_trains_on_one_part_and_only_it_pays(real: Federation, run: str, in_parts: None):
    coordinator = real.machine.coordinator
    ask = ("train", "run", "-c", coordinator, "--run", run, "--rounds")
    first = real.here(*ask, 1, "--partition", "1")
    assert first.exit_code == 0, first.stderr
    record = real.record(run)
    assert record["outcomes"] == {"north": "updated", "east": "updated", "south": "refused"}
    assert "trained on the rows of 1 alone (column 'y')" in record["privacy"]
    (south,) = [site["note"] for site in record["sites"] if site["site"] == "south"]
    assert "told apart by column 'y' are not allowed here" in south
    other = real.here(*ask, 2, "--partition", "0")
    assert other.exit_code == 1
    assert f"run '{run}' trains on the rows of 1" in " ".join(other.stderr.split())
    again = real.here(*ask, 2)
    assert again.exit_code == 0, again.stderr
    for name in ("north", "east"):
        assert {line["charge"]["partition"] for line in real.charges(name, run)} == {ONE.in_ledger}
    proof = real.here("verify", run, "--as", coordinator, "--json")
    assert proof.exit_code == 0, proof.stderr
    assert {found["partition"] for found in json.loads(proof.stdout)["rounds"]} == {"1"}
