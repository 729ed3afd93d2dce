"""What can be asked of a federation, as the forms of its deployments have it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fedround.statistics.partitions import PartitionName
from fedround.values import Name


class RoundRequest(BaseModel):
    """Ask the federation for one more round."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Annotated[Name, Field(
        title="Run", description="The training campaign to continue; a new name begins a new one from a new model.",
        examples=["spring"])]
    quorum: Annotated[int | None, Field(
        default=None, ge=1, le=1000, title="Quorum",
        description="Sites whose answers must be admitted, or nothing is made of them. Empty: as the federation file says.",
    )] = None
    deadline_s: Annotated[int | None, Field(
        default=None, ge=1, le=604_800, title="Deadline (seconds)",
        description="How long sites have to answer. Empty: as the federation file says.")] = None
    sites: Annotated[tuple[Name, ...] | None, Field(
        default=None, min_length=1, max_length=1000, title="Sites", examples=[["north", "south"]],
        description="Ask only these members, where the federation file lets them be chosen. Empty: all.")] = None


class NextRoundRequest(RoundRequest):
    """Ask the federation for one more round that trains."""

    partition: Annotated[PartitionName | None, Field(
        default=None, title="Partition", examples=["2026-w48"],
        description="If the federation file tells rows apart: on whose rows the run trains, and who pays, from its first "
                    "round to its last. Empty: as the run began; for a new run the last partition that is complete.")] = None
    after: Annotated[Name | None, Field(
        default=None, title="After", examples=["winter"],
        description="A new run begins with the last model of this one. Empty: with the recipe's initial model, or the "
                    "checkpoint that the federation file names.")] = None
    epsilon: Annotated[float | None, Field(
        default=None, gt=0, le=100, title="Privacy target (epsilon)",
        description="What the run may cost, from its first round to its last, where the federation file lets it be chosen. "
                    "Empty: as the run began; for a new run as the federation file says first.")] = None
    rule: Annotated[str | None, Field(
        default=None, min_length=1, max_length=200, title="Rule",
        description="How updates become one, from the run's first round to its last, where the federation file lets it be "
                    "chosen. Empty: as the run began; for a new run as the federation file says first.")] = None


class TrainingRequest(NextRoundRequest):
    """Ask the federation for a training campaign."""

    rounds: Annotated[int, Field(
        default=10, ge=1, le=10_000, title="Rounds",
        description="Train until this many rounds of the run are committed; rounds that exist already count.")] = 10
    patience: Annotated[int | None, Field(
        default=None, ge=1, le=1000, title="Patience",
        description="End before the last round if the mean noised score of so many rounds is above that of as many before by "
                    "no more than the noise. What was not used of the budget is not spent. Empty: all rounds.")] = None
    one_run_per_site: Annotated[bool, Field(
        default=False, title="One flow run per site",
        description="Every site has one flow run for the whole campaign, with a task run for each round, instead of a flow "
                    "run for each round. Cheaper for the servers where a site works for seconds.")] = False
    one_run_per_partition: Annotated[bool, Field(
        default=False, title="One run per partition",
        description="For schedules: the partition's name is added to the run's, so that each partition has a run of its "
                    "own.")] = False
