"""A campaign on the real stack, as people run one."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import PrefectHTTPStatusError

from tests.e2e.conftest import Federation, wait
from tests.small_federation import NAMES

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def campaign(real: Federation) -> str:
    """Three rounds by the command line."""
    done = real.command("train", "run", "-c", real.machine.coordinator, "--run", "campaign", "--rounds", 3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("3 updates") == 3
    return "campaign"


def test_the_history_proves_itself(real: Federation, campaign: str):
    for member in (real.machine.coordinator, real.machine.site("north")):
        done = real.here("verify", campaign, "--as", member, "--json")
        assert done.exit_code == 0, done.stderr
        rounds = json.loads(done.stdout)["rounds"]
        assert [proof["round"] for proof in rounds] == [0, 1, 2, 3]
        assert all(len(proof["updates"]) == 3 for proof in rounds[1:])
        unseen = [proof["memory_unseen"] for proof in rounds[1:]]
        assert unseen == [member != real.machine.coordinator] * 3, "what is remembered of a site is not for the others"


def test_every_round_is_a_version_and_a_page(real: Federation, campaign: str):
    listed = json.loads(real.here("models", "list", "-c", real.machine.coordinator, "--json").stdout)
    mine = [version for version in listed if version["checkpoint"]["run"] == campaign]
    assert sorted(version["checkpoint"]["round"] for version in mine) == [1, 2, 3]
    assert all(0.5 < version["metrics"]["auc"] <= 1 for version in mine)
    for number in (1, 2, 3):
        record = real.record(campaign, number)
        assert record["outcomes"] == dict.fromkeys(NAMES, "updated")
        assert record["at_sites"]["auc"] is not None, "the sites' own evaluation arrives one round later"
        assert (real.machine.coordinator / "reports" / campaign / f"{number:05d}.html").stat().st_size > 1000


def test_the_campaign_has_a_page_of_its_own(real: Federation, campaign: str):
    [page] = real.ask(lambda client: client.read_latest_artifacts(artifact_filter=ArtifactCollectionFilter(
        key=ArtifactCollectionFilterKey(any_=[f"campaign-{campaign}"]))))
    assert "█ 3 of 3 rounds" in page.data
    assert all(f"(/work-pools/work-pool/{site})" in page.data for site in NAMES)
    assert f"(/artifacts/key/run-{campaign})" in page.data


def test_a_site_knows_what_it_spent(real: Federation, campaign: str):
    done = real.here("site", "ledger", real.machine.site("north"), "--json")
    assert done.exit_code == 0, done.stderr
    mine = [charge for charge in json.loads(done.stdout)["charges"] if charge["run"] == campaign]
    assert [(charge["round"], charge["purpose"]) for charge in mine] == [
        (1, "train"), (2, "train"), (3, "train"), (3, "evaluate")]


def test_a_site_is_ready(real: Federation, campaign: str):
    done = real.works("site", "check", real.machine.site("east"), "--json")
    findings = {finding["check"]: finding for finding in json.loads(done)}
    assert set(findings) >= {"folder", "keys", "policy", "rows", "contract", "ledger", "api", "store"}


def test_a_campaign_that_is_done_is_done_again_at_once(real: Federation, campaign: str):
    done = real.here("train", "run", "-c", real.machine.coordinator, "--run", campaign, "--rounds", 3, "--json")
    assert done.exit_code == 0, done.stderr
    assert [record["round"] for record in json.loads(done.stdout)] == [1, 2, 3]


def test_a_member_that_is_not_asked_first_can_get_the_model(real: Federation, campaign: str):
    target = real.machine.home / "fetched.safetensors"
    listed = json.loads(real.here("models", "list", "-c", real.machine.coordinator, "--json").stdout)
    version = next(v for v in listed if v["checkpoint"]["run"] == campaign and v["checkpoint"]["round"] == 3)
    done = real.here("models", "get", version["version"], target, "-c", real.machine.coordinator)
    assert done.exit_code == 0, done.stderr
    assert target.stat().st_size == version["checkpoint"]["model"]["size_bytes"]


# -- the form of the user interface ------------------------------------------------------------------------------------


def test_a_round_from_the_form_commits(real: Federation, run: str):
    ended = real.ended(real.start("federated-round", run=run, quorum=2, deadline_s=800))
    assert ended.state.is_completed(), ended.state.message
    assert real.record(run)["quorum"] == 2


def test_the_sites_runs_are_found_from_the_round_and_back(real: Federation, run: str):
    ended = real.ended(real.start("federated-round", run=run))
    for site in NAMES:
        mine = real.site_run(run, site)
        assert mine is not None
        assert mine.work_pool_name == site
        assert mine.state.is_completed()
        assert mine.labels["fedround.round-run"] == str(ended.id)


STEPS = ("plan", "invite", "collect", "aggregate", "publish", "evaluate", "report")


def test_the_steps_of_a_round_are_task_runs_with_their_times(real: Federation, run: str):
    ended = real.ended(real.start("federated-round", run=run))
    steps = wait(lambda: found if len(found := task_runs(real, ended.id)) == len(STEPS) else None, "the steps' records")
    assert {step.name: step.state.name for step in steps} == dict.fromkeys(STEPS, "Completed")
    assert all(ended.start_time <= step.start_time <= step.end_time for step in steps)


def task_runs(real: Federation, flow_run: UUID) -> list[TaskRun]:
    return real.ask(lambda client: client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))))


@pytest.mark.parametrize("parameters", [
    {"request": {"run": "form", "command": "x"}}, {"request": {"run": "Form!"}},
    {"request": {"run": "form", "asked": {"quorum": 0}}}, {"request": {"run": "form", "asked": {"command": "x"}}},
    {}, {"request": "form"}], ids=["unknown key", "bad name", "bad bound", "unknown key in a group", "nothing", "no mapping"])
def test_a_bad_form_is_refused_by_the_server(real: Federation, parameters: dict):
    with pytest.raises(PrefectHTTPStatusError) as refusal:
        real.start_raw("federated-round", parameters)
    assert refusal.value.response.status_code == 409
    assert not (real.machine.coordinator / "reports" / "form").exists()


def test_a_parameter_that_the_server_lets_through_fails_in_the_coordinators_process(real: Federation):
    """Prefect's server says nothing of unknown parameters beside the request."""
    started = real.start_raw("federated-round", {"request": {"run": "form"}, "entrypoint": "os:system"})
    assert real.ended(started).state.is_failed()
    assert not (real.machine.coordinator / "reports" / "form").exists()


def test_two_rounds_asked_for_at_once_come_one_after_the_other(real: Federation, run: str):
    runs = [real.start("federated-round", run=run) for _ in range(2)]
    first, second = sorted((real.ended(started) for started in runs), key=lambda flow_run: flow_run.start_time)
    assert first.state.is_completed()
    assert second.state.is_completed()
    assert first.end_time <= second.start_time
    assert real.record(run, 2)["parent"] == real.record(run, 1)["model"]
