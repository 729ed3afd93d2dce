"""What many tests share: a small federation without Prefect, and the real servers, started once and only if asked for."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling

from fedround import locked
from fedround.learning.recipe import Recipe
from fedround.privacy import accounting
from infra.settings import S3Credential
from infra.stack import LocalStack
from infra.stack.ports import choose
from infra.stack.seaweedfs import BUCKET, PORTS, SeaweedFS, endpoint
from infra.stores import S3Store
from site_workers import rows
from site_workers.apart.opening import run_here
from tests import small_federation
from tests.bundled import Bundled
from tests.bundled import make as make_bundled
from tests.known import Prices
from tests.small_federation import SmallFederation

# Nothing here is judged by the clock: the machine may be busy with something else. Laws are tried on other examples in
# every run, so a run needs few.
settings.register_profile("fedround", max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedround")

# A test that is about the process in which a recipe runs says sandbox = "strict" in its site.toml.
run_here()


ROOT = Path(__file__).parents[1]
FIRST = ("tests/e2e/test_campaign.py", "tests/e2e/test_wheel.py", "tests/e2e/test_tutorial.py", "tests/parity/",
         "tests/conformance/", "tests/attacks/", "tests/infra/stack/", "tests/faults/")
"""Files and folders that take long: who is free last should find short ones. The campaign comes before all that fills the
ledgers of its sites: to price a hundred runs takes a minute."""


TOGETHER = ("tests/tasks/test_drift.py", "tests/tasks/test_concept_drift.py")
"""What imports Evidently: five seconds of CPU time in every process that does."""

SLOW = ("tests/e2e/test_wheel.py", "tests/e2e/test_tutorial.py", "tests/e2e/test_how_tos.py", "tests/e2e/test_promotion.py",
        "tests/e2e/test_models_page.py", "tests/e2e/test_one_run_per_site.py", "tests/examples/test_survival.py",
        "tests/test_docs_site.py::test_the_site_is_built",
        "tests/infra/stores/test_resumed_upload.py::test_at_every_tenth", "tests/infra/stack/test_local_stack.py",
        "tests/infra/test_stages.py", "tests/benchmarks/",
        "tests/cli/test_hostile_files.py", "tests/cli/test_terminal.py", "tests/cli/test_bad_surroundings.py",
        "tests/parity/test_every_row_alone.py::test_every_layer",
        "tests/parity/test_simulation.py", "tests/parity/test_checking.py::test_every_check", "tests/tasks/test_exports.py",
        "tests/tasks/test_promote.py", "tests/fedround/privacy/test_apart.py", "tests/site_workers/test_scoring.py",
        "tests/site_workers/test_recipes_that_fail.py", "tests/site_workers/test_apart.py", "tests/e2e/test_apart.py",
        "tests/site_workers/test_safe.py::test_a_passphrase_comes",
        "tests/e2e/test_foreign.py", "tests/e2e/test_holding.py", "tests/e2e/test_automations.py", "tests/e2e/test_ui",
        "tests/e2e/test_organisations.py", "tests/infra/test_mutual_tls.py", "tests/e2e/test_secure_sums.py",
        "tests/e2e/test_signed_sums.py", "tests/e2e/test_grouped_sums.py", "tests/e2e/test_masked_regions.py",
        "tests/tasks/test_sums_by_region.py",
        "tests/e2e/test_idle_sites.py",
        "tests/e2e/test_regions.py", "tests/e2e/test_rotation.py", "tests/e2e/test_pace.py", "tests/e2e/test_clusters.py",
        *(f"tests/tasks/test_clusters.py::test_{which}" for which in (
            "each_kind", "who_tells", "an_answer_without", "an_update_of_both", "a_coordinator", "a_site_that_is_killed",
            "a_model_with_fewer", "an_evaluation")),
        *(f"tests/fedround/simulation/test_clustered.py::test_{which}" for which in ("the_kinds", "counts", "with_more")),
        "tests/tasks/test_rotation_live.py",
        "tests/e2e/test_measurement.py", "tests/e2e/test_partition.py", "tests/tasks/test_trees.py",
        "tests/cli/test_trees.py",
        "tests/site_workers/test_questions.py::test_attack_one_record",
        "tests/site_workers/test_questions.py::test_attack_a_filter",
        "tests/flows/test_dask_sweeper.py", "tests/cli/test_recipe.py::test_a_table_becomes",
        "tests/site_workers/test_declared_columns.py", "tests/examples/test_insurance.py",
        "tests/examples/test_cartpole.py::test_a_private", "tests/examples/test_cartpole.py::test_episodes_meet",
        "tests/fedround/simulation/test_on_ray.py", "tests/site_workers/test_units.py", "tests/tasks/test_bundle.py",
        "tests/cli/test_site_say.py", "tests/faults/test_killed_anywhere.py::test_every_scene",
        "tests/faults/test_links.py::test_every", "tests/faults/test_processes.py::test_updates",
        "tests/tasks/test_decay.py::test_a_slow_site",
        "tests/faults/test_histories.py::test_many_histories", "tests/faults/test_histories.py::test_some_histories[own",
        "tests/e2e/test_schedule.py::test_times_that_were_missed",
        "tests/e2e/test_deleted_runs.py::test_a_site_whose_run_for_a_campaign", "tests/e2e/test_deleted_runs.py::test_attack",
        "tests/e2e/test_deleted_runs.py::test_after_a_flow", "tests/e2e/test_deleted_runs.py::test_a_campaign_whose_rounds",
        "tests/cli/test_site_drift.py", "tests/cli/test_site_picture.py", "tests/e2e/test_drift.py",
        "tests/e2e/test_chosen_sites.py", "tests/infra/test_terraform_applied.py", "tests/e2e/test_vertical.py",
        "tests/cli/test_site_quality.py::test_an_operator", "tests/cli/test_simulate.py::test_members_that_share_noise",
        "tests/tasks/test_decay.py::test_a_plateau", "tests/tasks/test_decay.py::test_attack_a_commit",
        "tests/fedround/contribution/test_split.py::test_the_noise", "tests/tasks/test_explain.py",
        "tests/tasks/test_recompute.py::test_a_plan_that_would_cost_more_than_its_campaign_promised_gets_no_update",
        "tests/infra/test_watcher.py::test_all_that_it_has_started_ends_with_it[3-15]",
        "tests/validation/test_encoding_attacks.py::test_attack_it",
        "tests/validation/test_encoding.py::test_a_process_that_has_answered_holds_no_library_of_tables_and_no_accountant",
        "tests/validation/test_query.py::test_postgresql",
        "tests/validation/test_rows.py::test_a_subprocess_gives_the_same_answer_and_prints_nothing",
        "tests/fedround/secure_sums/test_equivocation.py::test_every_lie_among_more_members",
        "tests/tasks/test_sums_grouped.py::test_a_liar_and_one_who", "tests/tasks/test_sums_grouped.py::test_without_groups",
        "tests/fedround/secure_sums/test_equivocation.py::test_every_lie_where_members_sign_first[5]",
        "tests/fuzz/test_law.py::test_a_changed_document_is_never_accepted[bundle",
        "tests/site_workers/test_shared_noise.py", "tests/fedround/simulation/test_summed.py::test_trees_grow",
        "tests/site_workers/test_limits.py::test_threads_and_priority",
        "tests/site_workers/test_foreign.py::test_attack_what_a_hostile_client_gives_back",
        *(f"tests/site_workers/test_joining.py::test_{which}" for which in (
            "other_customers_are", "the_last_exchange", "the_coordinator_sees", "scores_of_other_customers")),
        "tests/site_workers/test_safe.py::test_attack_a_rotation_that_was_given_up",
        "tests/site_workers/test_measure.py::test_columns_are_the_same_here",
        "tests/site_workers/test_training_by_partition.py::test_the_operator_sees",
        "tests/infra/test_watcher.py::test_all_that_it_has_started_ends_with_it[1-9]",
        "tests/infra/test_watcher.py::test_all_that_it_has_started_ends_with_it[0-1]",
        f"tests/infra/test_worker_process.py::test_a_process_that_is_told_to_end_ends_although_its_work_goes_on[{signal.SIGINT.value}]",
        "tests/infra/test_model_registry.py::test_it_needs_no_git_identity",
        "tests/flows/test_afterwards.py::test_no_step_after", "tests/test_architecture_page.py",
        "tests/validation/test_group_gaps.py::test_the_interval", "tests/validation/test_inferring.py::test_a_wide_table",
        "tests/validation/test_limits_of_rows.py::test_numbers_that_a_file",
        "tests/fedround/learning/test_tasks.py::test_the_margin_holds", "tests/tasks/test_reputation.py::test_plans_name",
        "tests/tasks/test_weekly.py", "tests/tasks/test_weights.py::test_whom_the_model_fits_badly",
        "tests/tasks/test_reporting.py::test_a_page_loads_no_heavy_library",
        "tests/parity/test_checking.py::test_a_table_of_several_kinds",
        "tests/cli/test_bad_federation.py::test_no_space_for_a_member",
        "tests/validation/test_reliability.py::test_where_no_slope",
        "tests/conformance/test_aggregation_rules.py::test_memory_is_the_budget",
        "tests/conformance/test_aggregation_rules.py::test_threads_and_budget",
        "tests/cli/test_bad_site.py::test_rows_that_are_not_as_agreed",
        "tests/attacks/test_declared_rows.py::test_an_answer_made_as_if_of_many_more",
        "tests/attacks/test_paced_histories.py::test_two_histories_of_two_groups",
        "tests/attacks/test_paced_keys.py::test_a_late_answer",
        "tests/attacks/test_overwritten.py::test_the_next_round_goes_on", "tests/tasks/test_concept_drift.py",
        "tests/parity/test_stacked_training.py::test_every_model_under",
        "tests/infra/stack/test_server.py::test_another_process",
        "tests/fedround/statistics/test_importance.py::test_a_margin_holds",
        "tests/tasks/test_memory.py::test_an_average_is_the_mean",
        "tests/examples/test_hospitals.py::test_the_hospitals_rows", "tests/examples/test_carloan.py::test_each_rival",
        "tests/examples/test_digits.py::test_large_images")
"""What `make test` leaves to `make test-all`: tests that take minutes together and whose core others test faster."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files that are left out as a whole are not even imported: every process saves seconds."""
    left_out = config.option.markexpr == "not slow" and collection_path.relative_to(ROOT).as_posix().startswith(SLOW)
    return left_out or None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """All tests that use the one running stack share a process (pytest-xdist), and so do those that use one bundle. The
    former begin first, and then what takes long.
    """
    on_stack = {item for item in items if "stack" in getattr(item, "fixturenames", ())}
    for item in on_stack:
        item.add_marker(pytest.mark.xdist_group("stack"))
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if item.nodeid.startswith(TOGETHER):
            item.add_marker(pytest.mark.xdist_group("evidently"))
        if "bundled" in getattr(item, "fixturenames", ()):       # an export to ONNX costs ten seconds of CPU time
            item.add_marker(pytest.mark.xdist_group("bundled"))
    items.sort(key=lambda item: (item not in on_stack, turn(item.nodeid)))      # stable: a file's own order stays
    yield
    if getattr(config.option, "loadgroup", False) and not all("@" in item.nodeid for item in on_stack):
        raise pytest.UsageError("this pytest-xdist groups no tests with this pytest: every process would start all servers")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What the collection made lives to the end: nobody looks through it for garbage again and again."""
    gc.collect()
    gc.freeze()


def turn(nodeid: str) -> int:
    return next((n for n, path in enumerate(FIRST) if nodeid.startswith(path)), len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadGroupScheduling | None:
    """The tests of a file share a process, too, and what is made once for them."""
    return ByFile(config, log) if config.getoption("dist") == "loadgroup" else None


class ByFile(LoadGroupScheduling):
    """A group, or else a file, goes to one process as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        return str(super()._split_scope(nodeid)).partition("::")[0]


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and the credential that may use all of its bucket."""

    endpoint: str
    credential: S3Credential

    def store(self, prefix: str = "", credential: S3Credential | None = None) -> S3Store:
        used = credential or self.credential
        return S3Store(self.endpoint, BUCKET, used.access_key, used.secret_key, prefix=prefix)


@pytest.fixture(scope="session", autouse=True)
def known_prices(tmp_path_factory: pytest.TempPathFactory) -> Prices:
    """The accountant answers a question once in a run, whichever process asks."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prices"
    folder.mkdir(exist_ok=True)
    prices = Prices(folder)
    accounting.ask(prices)
    return prices


@pytest.fixture(scope="session", autouse=True)
def known_passphrases() -> Iterator[None]:
    """To stretch a passphrase takes a third of a second and 128 MiB, by design: the same with the same salt once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locked, "_key", functools.lru_cache(maxsize=None)(locked._key))
        yield


@pytest.fixture(scope="session")
def rows_are_judged_here() -> Iterator[None]:
    """Great Expectations is imported once, so that sites judge their rows in this process and not in one each. Many sites
    live in it, too: it remembers the encoded rows of all of them, by content, and not only of the last.
    """
    import great_expectations  # noqa: F401

    encode, known = rows._encoded.__wrapped__, {}

    def encoded(paths: tuple[Path, Path], recipe: Recipe, file: Path, digest: bytes, seconds: int) -> rows.Rows:
        key = digest, recipe.digest, *(path.suffix for path in paths)
        if key not in known:
            known[key] = encode(paths, recipe, file, digest, seconds)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_encoded", encoded)
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallFederation:
    """What every test's own federation is a copy of."""
    return small_federation.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def federation(tmp_path: Path, made: SmallFederation, rows_are_judged_here: None) -> SmallFederation:
    """Three sites and a coordinator in folders, with a store in a folder."""
    return made.copy(tmp_path)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """Outside pytest's own folder, which is closed to the user that runs PostgreSQL for root."""
    folder = Path(tempfile.mkdtemp(prefix="fedround-tests-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_server(short_folder: Path) -> Iterator[S3Server]:
    """Only the S3 server: ready in two seconds."""
    server, ports = SeaweedFS(short_folder / "s3-only"), choose(PORTS, {}, {})
    server.spawn(ports)
    try:
        server.wait_ready(ports["s3"])
        yield S3Server(endpoint(ports["s3"]), server.coordinator_credential())
    finally:
        server.ask_to_stop()
        server.wait_stopped(ports)


@pytest.fixture(scope="session")
def stack(short_folder: Path) -> Iterator[LocalStack]:
    """PostgreSQL, Prefect and S3. Leave it running; what you put there, put under names of your own."""
    local = LocalStack(short_folder / "stack")
    local.start(lambda _: None)
    yield local
    local.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Function, nextitem: pytest.Function | None) -> Iterator[None]:
    """After the last test on the real servers they are stopped, and whoever works on them: idle they take a fifth of a core
    from all other tests.
    """
    yield
    if "stack" in item.fixturenames and (nextitem is None or "stack" not in nextitem.fixturenames):
        item._fixtureinfo.name2fixturedefs["stack"][-1].finish(item._request)


@pytest.fixture(scope="session")
def bundled(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> Bundled:
    """Two committed rounds and a bundle of the first; to read, not to change."""
    return make_bundled(tmp_path_factory.mktemp("bundled"))
