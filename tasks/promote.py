"""From a committed round to a model in use: a bundle, the policy's bounds, a person's yes, a stage.

Each step is done once: begun again, it finds what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from fedround import bundle
from fedround.bundle import Approval, Bundle
from fedround.promotion import Judged, ModelEvidence, Policy, Stage, judge
from fedround.signing import digest, seal, unseal
from fedround.values import MAX_NUMBER, Digest, Name, Signed
from infra.model_registry import ModelRegistry
from infra.settings import load_toml
from infra.stages import Stages
from tasks.bundle import approved, build, evidence_of
from tasks.catch_up import catch_up
from tasks.coordinator import Coordinator
from tasks.reporting.groups import render_groups


class PromotionRequest(BaseModel):
    """Ask for a committed round's model to be put into use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Annotated[Name, Field(title="Run", examples=["spring"])]
    round: Annotated[int, Field(ge=1, le=MAX_NUMBER, title="Round", description="Whose model.")]


class Decision(Signed):
    """What was decided about a model. Kept beside it in the model store."""

    kind: ClassVar[str] = "promotion"

    federation: Name
    run: Name
    round: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    version: Annotated[str, Field(pattern=r"^v[0-9]+\.[01]\.0$")]
    bundle: Digest
    policy: Policy
    judged: tuple[Judged, ...]
    production: str | None
    """The version that was in production then."""
    approval: Approval | None
    """None: it is a candidate."""

    @property
    def tag(self) -> str:
        """The round, as the model store names it."""
        return f"{self.run}/round-{self.round:05d}"


@dataclass(frozen=True)
class Proposal:
    """How a model stands to the policy; in the stage "candidate" if it meets all of it."""

    judged: tuple[Judged, ...]
    policy: Policy
    version: str | None
    """None: the policy refuses it."""

    def refusal(self) -> str:
        """Why, in a sentence."""
        failed = "; ".join(str(one) for one in self.judged if not one.passed)
        return f"the policy of promotion.toml refuses this model: {failed}"


def read_policy(folder: Path) -> Policy:
    """promotion.toml in the coordinator's folder. Without one: at most 0.01 worse than production, and a person says yes."""
    path = folder / "promotion.toml"
    return load_toml(Policy, path) if path.exists() else Policy()


def stages_of(coordinator: Coordinator) -> Stages:
    """The stages of the coordinator's model store."""
    return Stages(ModelRegistry.open(coordinator.folder / "models"))


def propose(coordinator: Coordinator, request: PromotionRequest) -> Proposal:
    """Make the round's bundle and compare it with the policy. If it meets the policy, make it the candidate.

    Raises what `tasks.bundle.build` raises.
    """
    policy, stages = read_policy(coordinator.folder), stages_of(coordinator)
    if (known := _candidate(coordinator, stages, request)) is not None and known.policy == policy:
        return Proposal(known.judged, policy, known.version)
    catch_up(coordinator, request.run)
    sought = None if policy.max_trigger is None else policy.trigger_features
    body = build(coordinator, request.run, request.round, trigger_features=sought)
    evidence = evidence_of(_opened(coordinator, body))
    now = stages.current("production")
    judged = judge(policy, evidence, None if now is None else evidence_of(of_version(coordinator, now.version)))
    if not all(one.passed for one in judged):
        return Proposal(judged, policy, None)
    decision = Decision(
        federation=coordinator.federation.name, run=request.run, round=request.round, version=f"v{stages.next_version()}.0.0",
        bundle=digest(body), policy=policy, judged=judged, production=None if now is None else now.version, approval=None)
    _keep(coordinator, stages, decision, body, evidence, "candidate")
    return Proposal(judged, policy, decision.version)


def approve(coordinator: Coordinator, candidate: str, approval: Approval) -> str:
    """Put a candidate into production; returns the approved version. Repeated, it changes nothing."""
    stages = stages_of(coordinator)
    decision, found = read_decision(coordinator, candidate), of_version(coordinator, candidate)
    body = approved(coordinator, found, approval)
    version = f"{candidate.partition('.')[0]}.1.0"
    _keep(coordinator, stages, decision.model_copy(update={
        "version": version, "bundle": digest(body), "approval": approval}), body, evidence_of(found), "production")
    return version


def roll_back(coordinator: Coordinator, stage: Stage) -> str:
    """Put back into a stage what was promoted to it before; returns its version. Raises ContractError if there is nothing."""
    stages = stages_of(coordinator)
    before = stages.before(stage)
    of_version(coordinator, before.version)          # what is put back must still be whole
    stages.assign(before.version, stage, f"rolled back to {before.version}")
    return before.version


def read_decision(coordinator: Coordinator, version: str) -> Decision:
    """The signed decision about a version. Raises NotFoundError, SignatureError."""
    document = stages_of(coordinator).promotion(version)
    return unseal(document, Decision, coordinator.key, f"decision about {version}")


def of_version(coordinator: Coordinator, version: str) -> Bundle:
    """A promoted bundle, proven. Raises NotFoundError, TrustError."""
    return _opened(coordinator, stages_of(coordinator).bundle(version))


def groups_before_and_after(coordinator: Coordinator, version: str) -> str:
    """Markdown: how a candidate decides about groups, beside the model that was in production then. Empty without both."""
    before = read_decision(coordinator, version).production
    found = evidence_of(of_version(coordinator, version)).fairness
    earlier = None if before is None else evidence_of(of_version(coordinator, before)).fairness
    return "" if found is None or earlier is None else render_groups(found, earlier)


def _opened(coordinator: Coordinator, body: bytes) -> Bundle:
    return bundle.read_bundle(body, coordinator.key, "bundle of the model store")


def _candidate(coordinator: Coordinator, stages: Stages, request: PromotionRequest) -> Decision | None:
    """The decision that made this round the candidate, if it still is."""
    now = stages.current("candidate")
    if now is None:
        return None
    decision = read_decision(coordinator, now.version)
    return decision if (decision.run, decision.round) == (request.run, request.round) else None


def _keep(coordinator: Coordinator, stages: Stages, decision: Decision, body: bytes, evidence: ModelEvidence,
          stage: Stage) -> None:
    version = stages.add(decision.tag, decision.version, body, seal(decision, coordinator.identity),
                         numbers(evidence))
    if (now := stages.current(stage)) is None or now.version != version:
        who = "the policy" if decision.approval is None else decision.approval.by
        stages.assign(version, stage, f"{decision.tag} is {version}; {who} said yes")


def numbers(evidence: ModelEvidence) -> dict[str, float]:
    """Numbers for `dvc metrics`: one name for each. What was not measured has none."""
    known = {} if evidence.float32.public is None else evidence.float32.public.known()
    small = {} if evidence.int8.public is None else evidence.int8.public.known()
    found: dict[str, float | None] = {
        **known, **{f"int8_{name}": value for name, value in small.items()}, "epsilon": evidence.epsilon,
        "bytes": evidence.float32.size_bytes, "int8_bytes": evidence.int8.size_bytes, "p95_ms": evidence.float32.p95_ms,
        "int8_p95_ms": evidence.int8.p95_ms}
    if evidence.fairness is not None:
        found |= evidence.fairness.numbers()
    if evidence.drift is not None:
        found |= {"drift": evidence.drift.value, "drift_low": evidence.drift.low, "drift_high": evidence.drift.high}
    if evidence.trigger is not None:
        found["trigger"] = evidence.trigger.share
    return {name: float(value) for name, value in found.items() if value is not None}
