"""A model comes into use through bounds and a yes, and what was there before comes back with one command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from fedround import bundle
from fedround.bundle import Approval, read_bundle
from fedround.errors import NotFoundError
from fedround.fairness_of_groups import Gap, GroupFairness
from fedround.promotion import ModelEvidence, Policy, judge
from fedround_cli.demo_use import put_to_use
from fedround_cli.main import app
from fedround_cli.promotion import resolved
from infra import git_history
from tasks.ask import conclude, plan_question
from tasks.bundle import evidence_of
from tasks.compare_groups import question
from tasks.promote import (
    PromotionRequest,
    approve,
    groups_before_and_after,
    numbers,
    of_version,
    propose,
    read_decision,
    stages_of,
)
from tests import small_federation
from tests.bundled import Bundled
from tests.small_federation import SmallFederation, rows

YES = Approval(by="Ada", through="prefect", note="looked at it")
BIN = Path(sys.executable).parent


@pytest.fixture
def own(bundled: Bundled, tmp_path: Path) -> SmallFederation:
    return bundled.federation.copy(tmp_path)


@pytest.fixture(scope="module")
def promoted(bundled: Bundled, tmp_path_factory: pytest.TempPathFactory) -> SmallFederation:
    """Round 1 and then round 2 went into production, and round 1 was put back."""
    own = bundled.federation.copy(tmp_path_factory.mktemp("promoted"))
    for number in (1, 2):
        found = propose(own.coordinator, PromotionRequest(run="spring", round=number))
        assert found.version == f"v{number}.0.0"
        assert approve(own.coordinator, found.version, YES) == f"v{number}.1.0"
    assert stages_of(own.coordinator).current("production").version == "v2.1.0"
    assert command(own, "models", "rollback") == (0, "v1.1.0 is in production again")
    return own


def command(own: SmallFederation, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*arguments, "-c", str(own.root / "coordinator")])
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done.exit_code, " ".join(done.output.split())


def test_a_model_is_a_candidate_until_somebody_says_yes_and_then_the_card_names_who(own: SmallFederation):
    request, stages = PromotionRequest(run="spring", round=1), stages_of(own.coordinator)
    found = propose(own.coordinator, request)
    assert (stages.current("candidate").version, stages.current("production")) == ("v1.0.0", None)
    assert propose(own.coordinator, request) == found, "a second try makes no second candidate"
    assert approve(own.coordinator, "v1.0.0", YES) == "v1.1.0"
    assert approve(own.coordinator, "v1.0.0", YES) == "v1.1.0"
    assert [(one.stage, one.version) for one in stages.history()] == [("candidate", "v1.0.0"), ("production", "v1.1.0")]
    used = of_version(own.coordinator, "v1.1.0")
    assert "Ada, through prefect. looked at it" in used.files[bundle.CARD].decode()
    assert used.manifest.approval == YES
    assert used.files[bundle.ONNX] == of_version(own.coordinator, "v1.0.0").files[bundle.ONNX]
    assert read_decision(own.coordinator, "v1.1.0").approval == YES


@pytest.mark.parametrize(("bound", "says"), [
    ("at_least = 0.999", "AUC: 0."), ("max_bytes = 10", "bytes of the float32 model"), ("max_p95_ms = 1e-9", "p95 latency"),
    ("max_epsilon = 0.001", "epsilon spent"),
    ("max_fairness_gap = 0.1", "largest gap between groups (demographic parity), upper end of its interval: not measured"),
    ("max_drift = 0.1", "drift, upper end of its interval: not measured"),
    ("max_trigger = 0.5", "share of public rows that 4 features turn to one label: not measured"),
])
def test_a_bound_that_is_not_met_or_not_measured_keeps_a_model_out(own: SmallFederation, bundled, monkeypatch, bound, says):
    (own.root / "coordinator" / "promotion.toml").write_text(bound)
    monkeypatch.setattr("tasks.promote.build", lambda *_, **__: bundled.body)
    found = propose(own.coordinator, PromotionRequest(run="spring", round=1))
    assert found.version is None
    assert says in found.refusal()
    assert stages_of(own.coordinator).history() == []
    code, said = command(own, "models", "promote", "spring/round-00001", "--yes", "--by", "Ada")
    assert (code, "promotion.toml refuses this model" in said) == (1, True), said


def test_a_model_that_a_short_mark_turns_goes_nowhere_and_the_card_says_which(own: SmallFederation):
    """The small model is a line: few of its columns turn everything."""
    policy = own.root / "coordinator" / "promotion.toml"
    policy.write_text("max_trigger = 0.01\ntrigger_features = 2\n")
    refused = propose(own.coordinator, PromotionRequest(run="spring", round=1))
    assert refused.version is None
    assert "share of public rows that 2 features turn to one label" in refused.refusal()
    policy.write_text("max_trigger = 1.0\ntrigger_features = 2\n")
    allowed = propose(own.coordinator, PromotionRequest(run="spring", round=1))
    found = of_version(own.coordinator, allowed.version)
    mark = evidence_of(found).trigger
    assert mark is not None
    assert f"turns {mark.share:.0%} of those" in found.files[bundle.CARD].decode()
    assert numbers(evidence_of(found))["trigger"] == mark.share


def test_a_bound_on_what_was_measured_looks_at_the_whole_interval(bundled: Bundled):
    evidence, policy = evidence_of(bundled.bundle), Policy(max_fairness_gap=0.1)

    def passes(low: float, high: float) -> bool:
        gap = Gap(measure="demographic_parity", attribute="sex", groups=("f", "m"), value=0.05, low=low, high=high)
        found = GroupFairness(round=1, threshold=0.5, confidence=0.95, smallest=30, sites=(), rates=(), gaps=(gap,))
        return all(one.passed for one in judge(policy, evidence.model_copy(update={"fairness": found}), None))

    assert passes(0.01, 0.1)
    assert not passes(0.01, 0.11)


def test_a_promotion_shows_gaps_before_and_after_and_a_gap_beyond_the_bound_is_refused(tmp_path, rows_are_judged_here):
    """The whole way: two rounds, each compared while it is the newest."""
    federation = small_federation.make(tmp_path, groups={"threshold": 0.5, "smallest": 5, "watched": [
        {"of": {"column": "x1", "edges": [0.0]}, "words": ["small", "large"], "noise_std": 3.0}], "promotions": 2})
    policy, versions = federation.root / "coordinator" / "promotion.toml", []
    policy.write_text("max_fairness_gap = 1.0\nbelow_production = 0.9\n")
    for number in (1, 2):
        federation.round()
        planned = plan_question(federation.coordinator, question(federation.coordinator, "spring", number))
        for name in federation.names:
            assert federation.answer(name, planned) == "answer"
        conclude(federation.coordinator, planned, federation.collect(planned))
        found = propose(federation.coordinator, PromotionRequest(run="spring", round=number))
        versions.append(approve(federation.coordinator, found.version, YES))
    used = of_version(federation.coordinator, "v2.1.0")
    gap = evidence_of(used).fairness.gap("demographic_parity")
    card = used.files[bundle.CARD].decode()
    low, high = evidence_of(used).fairness.worst("demographic_parity").groups
    assert f"`{low}` < `{high}` | {gap} |" in card
    shown = groups_before_and_after(federation.coordinator, "v2.0.0")
    before = evidence_of(of_version(federation.coordinator, "v1.1.0")).fairness.gap("demographic_parity")
    assert f"| {before} |" in shown
    reached = numbers(evidence_of(used))
    assert (reached["gap_demographic_parity"], reached["gap_demographic_parity_high"]) == (gap.value, gap.high)
    policy.write_text(f"max_fairness_gap = {gap.high - 0.001}\nbelow_production = 0.9\n")
    refused = propose(federation.coordinator, PromotionRequest(run="spring", round=2))
    assert refused.version is None
    assert "largest gap between groups (demographic parity)" in refused.refusal()


def test_what_is_worse_than_production_stays_out(bundled: Bundled):
    evidence = evidence_of(bundled.bundle)

    def against(auc: float) -> bool:
        public = evidence.float32.public.model_copy(update={"auc": auc})
        better = evidence.model_copy(update={"float32": evidence.float32.model_copy(update={"public": public})})
        return all(one.passed for one in judge(Policy(), evidence, ModelEvidence.model_validate(better)))

    assert against(evidence.float32.public.auc)
    assert not against(evidence.float32.public.auc + 0.02)


def test_rollback_puts_back_what_was_there_and_says_when_there_is_nothing(promoted: SmallFederation):
    code, said = command(promoted, "models", "rollback")
    assert (code, "nothing to go back to" in said) == (1, True)
    shown = json.loads(command(promoted, "models", "stages", "--json")[1])
    assert shown["stages"] == {"candidate": "v2.0.0", "production": "v1.1.0"}
    assert [one["version"] for one in shown["history"]] == ["v1.0.0", "v1.1.0", "v2.0.0", "v2.1.0", "v1.1.0"]
    used = git_history.tags(promoted.root / "coordinator" / "models")
    assert {"model@v1.1.0", "model#production#5", "spring/round-00002"} <= set(used)


def test_data_scientists_read_stages_with_gto_and_dvc(promoted: SmallFederation, tmp_path):
    store = promoted.root / "coordinator" / "models"

    def run(*line: str) -> str:
        done = subprocess.run([BIN / line[0], *line[1:]], cwd=store, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "v1.1.0" in run("gto", "show", "model#production")
    run("dvc", "get", ".", "bundle.zip", "--rev", "model@v1.1.0", "-o", str(tmp_path / "got.zip"))
    assert bundle.open_bundle(tmp_path / "got.zip", promoted.coordinator.identity.key).manifest.approval == YES
    changed = json.loads(run("dvc", "metrics", "diff", "model@v1.1.0", "model@v2.1.0", "--all", "--json"))["metrics.json"]
    assert {"auc", "int8_auc", "bytes", "p95_ms", "epsilon"} <= set(changed)
    assert "bundle.zip" in run("dvc", "diff", "model@v1.1.0", "model@v2.1.0")


def test_the_demonstration_ends_with_a_model_in_use_and_a_scored_file(own: SmallFederation, bundled: Bundled, monkeypatch):
    monkeypatch.setattr("tasks.promote.build", lambda *_, **__: bundled.body)
    rows(60, 3).to_parquet(own.root / "data" / "public_test.parquet")
    put_to_use(SimpleNamespace(home=own.root), own.coordinator, "spring", 1)
    assert (own.root / "scores.csv").read_text().count("\n") == 61
    used = read_bundle(resolved(own.coordinator, "production"), own.coordinator.identity.key, "bundle")
    assert used.manifest.approval.by == "the demonstration"
    assert read_bundle(resolved(own.coordinator, "v1.0.0"), own.coordinator.identity.key, "bundle").manifest.approval is None


def test_wrong_names_are_sentences(own: SmallFederation):
    for line, says in ((("promote", "spring"), "not a committed round"), (("rollback",), "nothing is in production"),
                       (("rollback", "--stage", "x"), "no stage 'x'"),
                       (("promote", "spring/round-00001", "--yes"), "--by NAME")):
        code, said = command(own, "models", *line)
        assert (code, says in said) == (1, True), said
    with pytest.raises(NotFoundError, match="no version 'v9"):
        read_decision(own.coordinator, "v9.1.0")
