"""What a federation agrees on, before any round: the settings. With members, keys and weights they are the federation file
(`fedround.federation`); what a round has of them is `fedround.terms.Terms`.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation, default_aggregation
from fedround.aggregation.spec import in_words as rule_in_words
from fedround.aggregation.staleness import Pace
from fedround.choices import Choice, Choices, OnOffer
from fedround.compression.spec import Compression, is_unbiased
from fedround.drift.spec import DriftWatch
from fedround.errors import ContractError, ToleranceError
from fedround.learning.agreed import objection_to_learner
from fedround.learning.algorithms import Ditto
from fedround.learning.clusters import objection_to_clusters
from fedround.learning.foreign.spec import Foreign
from fedround.learning.paced import objection_to_pace
from fedround.learning.spec import FedAvg, LocalTraining, Parts, ServerOptimizer, Training
from fedround.learning.trees.spec import Trees
from fedround.learning.union.agreed import objection_to_sums, objection_without_sums
from fedround.privacy.spec import GradientPrivacy, NoPrivacy, Privacy, SitePrivacy
from fedround.regions.spec import Region, objection_to_regions
from fedround.secure_sums.spec import SecureSum
from fedround.selection import Selection
from fedround.spoken import how_many
from fedround.standing import Incentive, Reputation
from fedround.statistics import Groups, LocalEvaluation
from fedround.statistics.partitions import Recurring
from fedround.terms import Terms, Together, check_partitions, check_steps
from fedround.values import Name, Value, in_words

Quorum = Annotated[int, Field(ge=1, le=1000)]
Deadline = Annotated[int, Field(ge=1, le=604_800)]
Idle = Annotated[int, Field(ge=60, le=604_800)]
"""A minute at least: a site at work gives a sign every ten seconds, and the API may be away for a while."""


class Agreement(Value):
    """What every round of a federation asks for. A settings file holds one; members and keys make it a `Federation`."""

    name: Name
    quorum: Quorum
    deadline_s: Deadline = 600
    idle_s: Idle | None = None
    """Who has given no sign of progress for so long is given up: a round is over once nobody else is waited for, and at the
    deadline in any case. None: it waits until the deadline for who is dead, too."""
    enough: Quorum | None = None
    """A round that trains closes as soon as so many updates are admitted, and waits for nobody else, so that more can be
    invited than are needed. None: it waits for all, until the deadline. Who is not waited for may have been charged."""
    training: Training = LocalTraining()
    privacy: Privacy
    evaluation: LocalEvaluation = LocalEvaluation()
    aggregation: Aggregation | None = None
    """How updates become one delta; None: `default_aggregation` for the quorum. A plan always says it in full."""
    optimizer: ServerOptimizer = FedAvg()
    compression: Compression | None = None
    """How updates are made smaller before they leave; None: they are as long as the model."""
    parts: Parts = Parts()
    """Which parts of the model stay at the sites, or are trained by nobody. It cannot change within a run."""
    personal: Ditto | None = None
    """A second model for each site, which stays there; None: there is none."""
    groups: Groups | None = None
    """Between which groups a model's decisions are compared before it is promoted; None: between none."""
    drift: DriftWatch | None = None
    """Which columns are counted, and how often; None: none."""
    partitions: Recurring | None = None
    """How rows are told apart, so that each campaign trains on one partition's rows, and only they pay; None: on all rows."""
    combine: SecureSum | None = None
    """How members' numbers are added up without anybody seeing one member's; None: the coordinator sees each update."""
    regions: Annotated[tuple[Region, ...], Field(max_length=100)] = ()
    """Whose updates a regional coordinator adds up, by a mandate that this is; none: the coordinator reads every update."""
    reputation: Reputation | None = None
    """None: every member is asked in every round, whatever happened to its updates."""
    incentive: Incentive | None = None
    """None: contributions are told, and nothing is paid for them."""
    choices: Choices | None = None
    """None: whoever starts a round chooses nothing."""
    selection: Selection | None = None
    """Whom a round that trains asks; None: every member that can be asked, but for those whom the reputation policy
    excludes."""
    pace: Pace | None = None
    """Up to which age answers to the plans of earlier rounds count; who has not answered one is not asked the next. With it
    a buffer of K answers (FedBuff) is `quorum` = `enough` = K. None: who is late is not waited for, and counts no more."""

    @model_validator(mode="after")
    def _check_idle(self) -> Self:
        if self.idle_s is not None and self.regions:
            raise ValueError("idle_s: regional coordinators wait for their members until the deadline: take it out")
        return self

    @model_validator(mode="after")
    def _check_enough(self) -> Self:
        if self.enough is not None and self.enough < self.quorum:
            raise ValueError(f"enough = {self.enough} is below the quorum of {self.quorum}: it would close with too few; "
                             "say a number from the quorum on")
        if self.enough is not None and self.combine is not None:
            raise ValueError("with 'combine' a round waits for all, since so many dropouts as were agreed must suffice for "
                             "whoever is missing: take 'enough' out")
        return self

    @model_validator(mode="after")
    def _check_selection(self) -> Self:
        how = self.selection
        if how is None:
            return self
        if self.choices is not None and self.choices.sites:
            raise ValueError("selection: it says who is asked, and [choices] sites lets whoever starts a round say so: agree "
                             "on one of them")
        if how.sites < self.quorum:
            raise ValueError(f"selection: {how_many(how.sites, 'site', 'is', 'are')} asked, and the quorum is {self.quorum}: "
                             "ask at least as many")
        if self.enough is not None and self.enough > how.sites:
            raise ValueError(f"enough = {self.enough} can never be reached by the {how_many(how.sites, 'site')} that "
                             "'selection' asks: say fewer, or take it out")
        if how.looks_at_losses and isinstance(self.privacy, SitePrivacy):
            raise ValueError("selection: power_of_choice looks at the sites' losses, and under the unit 'site' no counts of "
                             "scores leave: agree on another selection")
        return self

    @model_validator(mode="after")
    def _check_aggregation(self) -> Self:
        try:
            self.how_to_aggregate().check(self.quorum)
        except ToleranceError as error:
            raise ValueError(f"aggregation with quorum {self.quorum}: {error}") from None
        gate = None if self.aggregation is None else self.aggregation.gate
        if gate is not None and not isinstance(self.privacy, NoPrivacy) and not self.noise_is_declared:
            raise ValueError("a gate judges uploads by the law of their noise, which scaffold, adam, top_k and count_sketch "
                             "leave unknown: agree on an aggregation without a gate, or on others of these")
        if self.how_to_aggregate().fairness is not None and isinstance(self.privacy, SitePrivacy):
            raise ValueError("fairness needs the sites' losses, and under the unit 'site' no counts of scores leave: agree "
                             "on another unit, or on no fairness")
        return self

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.groups is not None and isinstance(self.privacy, SitePrivacy):
            raise ValueError("groups are compared by counts, and under the unit 'site' no counts leave: agree on another "
                             "unit, or watch no groups")
        silent = self.groups is not None and any(one.noise_std == 0 for one in self.groups.watched)
        if silent and not isinstance(self.privacy, NoPrivacy):
            raise ValueError("counts of groups without noise keep no promise: give every watched attribute a noise_std")
        return self

    @model_validator(mode="after")
    def _check_learner(self) -> Self:
        check_steps(self.privacy, self.training)
        if (why_not := objection_to_learner(self.training, self.privacy, self.optimizer, self.how_to_aggregate(),
                                            self.compression, self.parts, self.personal)) is not None:
            raise ValueError(why_not)
        return self

    @model_validator(mode="after")
    def _check_what_stays_at_the_sites(self) -> Self:
        if self.personal is not None and self.parts.private:
            raise ValueError("a personal model has every part for itself: agree on private parts or on a personal model")
        if self.parts.private and (rule := self.how_to_aggregate().rule).needs_root:
            raise ValueError(f"{rule.name} compares updates with one that the coordinator computes, and the coordinator has "
                             "no private part: agree on another rule, or on no private parts")
        return self

    @model_validator(mode="after")
    def _check_clusters(self) -> Self:
        if self.evaluation.clusters == 1:
            return self
        beside = [f"[{name}]" for name in ("personal", "groups", "drift", "combine", "reputation", "incentive", "selection",
                                           "pace") if getattr(self, name) is not None]
        why_not = objection_to_clusters(self.training, self.privacy, self.aggregation, self.optimizer, self.compression,
                                        self.parts, [*beside, *(("[regions]",) if self.regions else ())])
        if why_not is not None:
            raise ValueError(f"evaluation.clusters: {why_not}")
        return self

    @model_validator(mode="after")
    def _check_drift(self) -> Self:
        if self.drift is not None and (why_not := self.drift.objection_to(self.privacy)) is not None:
            raise ValueError(f"drift: {why_not}")
        return self

    @model_validator(mode="after")
    def _check_how_rows_are_told_apart(self) -> Self:
        check_partitions(self.privacy, self.drift, self.partitions)
        return self

    @model_validator(mode="after")
    def _check_sums(self) -> Self:
        beside = tuple(f"[{name}]" for name in ("reputation", "incentive", "partitions", "selection")
                       if getattr(self, name) is not None)
        why_not = objection_without_sums(self.training) if self.combine is None else objection_to_sums(
            self.training, self.privacy, self.aggregation, self.compression, self.parts, self.personal, beside)
        if why_not is not None:
            raise ValueError(why_not)
        return self

    @model_validator(mode="after")
    def _check_choices(self) -> Self:
        if self.choices is not None and self.choices.epsilon and isinstance(self.privacy, NoPrivacy):
            raise ValueError("choices: without privacy there is no epsilon to choose: agree on another unit, or take it out")
        for choice in () if self.choices is None else self.choices.of_terms:
            try:
                self.chosen(choice)
            except ValidationError as error:
                raise ValueError(f"choices: with {choice.in_words}: {in_words(error)}") from None
        return self

    @model_validator(mode="after")
    def _check_regions(self) -> Self:
        beside = [f"[{name}]" for name in ("reputation", "incentive", "selection", "pace") if getattr(self, name) is not None]
        if self.enough is not None:
            beside.append("'enough', with which a round closes while regions still wait for their members,")
        if (why_not := objection_to_regions(self.regions, self.aggregation, self.combine, beside)) is not None:
            raise ValueError(why_not)
        return self

    @property
    def offers_terms(self) -> bool:
        """Whether a run can have other privacy or another rule than what is said first."""
        return self.choices is not None and (self.choices.epsilon, self.choices.rule) != ((), ())

    @property
    def offer(self) -> OnOffer:
        """Among what a run can be begun."""
        choices, first = self.choices or Choices(), self.how_to_aggregate().rule
        targets = () if isinstance(self.privacy, NoPrivacy) else (self.privacy.epsilon, *choices.epsilon)
        rules = {rule_in_words(rule): rule for rule in (first, *choices.rule)}
        return OnOffer(self.name, tuple(dict.fromkeys(targets)), rules)

    def chosen(self, choice: Choice | None) -> Self:
        """The same, as a run with this choice has it: only sites are left to choose. Raises ContractError for a choice that
        is not offered.
        """
        if self.choices is None and choice is None:
            return self
        made, sites = choice or Choice(), self.choices is not None and self.choices.sites
        self.offer.check(made)
        said: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set} | {
            "choices": Choices(sites=True) if sites else None}
        if made.epsilon is not None:
            said["privacy"] = self.privacy.model_copy(update={"epsilon": made.epsilon})
        if made.rule is not None:
            said["aggregation"] = Aggregation(**{**dict(self.how_to_aggregate()), "rule": made.rule})
        return type(self)(**said)

    @model_validator(mode="after")
    def _check_pace(self) -> Self:
        if self.pace is not None and self.training.rule is not None:
            raise ValueError("pace: an update that comes late was trained at another level of training.rule than the round "
                             "that it enters: leave one of them out")
        if self.pace is not None and (why_not := objection_to_pace(
                self.pace, self.training, self.privacy, self.how_to_aggregate(), summed=self.combine is not None,
                chosen=self.selection is not None or (self.choices is not None and self.choices.sites))) is not None:
            raise ValueError(why_not)
        return self

    @property
    def together(self) -> Together | None:
        """Whose numbers are added up; None: nobody's, or these settings have no members yet."""
        return None

    @property
    def noise_is_declared(self) -> bool:
        """Whether the law of the noise in an upload follows from what its site declares."""
        if not is_unbiased(self.compression):
            return False
        return isinstance(self.privacy, SitePrivacy) or (
            isinstance(self.privacy, GradientPrivacy) and self.training.is_linear)

    def learning(self, said: Trees | Foreign | None) -> Self:
        """The same, with what the recipe says of its learner. Raises ContractError if the settings say otherwise."""
        if said is None or self.training == said:
            return self
        if "training" in self.model_fields_set and self.training != LocalTraining():
            raise ContractError(f"the recipe says {said.in_recipes}, and the settings have a section [training] that says "
                                "otherwise: remove the section; what is needed stands in the recipe")
        settings = {name: getattr(self, name) for name in self.model_fields_set} | {"training": said}
        try:
            return type(self)(**settings)
        except ValidationError as error:
            why_not = in_words(error).removeprefix(f"{said.name}: ")
            raise ContractError(f"these settings do not go with the recipe's {said.in_recipes}: {why_not}") from None

    def how_to_aggregate(self) -> Aggregation:
        """The agreed aggregation, or the default if none was named; the plain mean, where a secure sum takes its place."""
        if self.combine is not None:
            return Aggregation(rule=WeightedMean())
        if self.aggregation is not None:
            return self.aggregation
        rounds = 1 if isinstance(self.privacy, NoPrivacy) else self.privacy.rounds
        found = default_aggregation(self.quorum, noise_is_declared=self.noise_is_declared, rounds=rounds)
        return found.model_copy(update={"history": 0.0}) if isinstance(self.training, Trees) else found

    def terms(self, quorum: int | None = None) -> Terms:
        """The terms of a round with this quorum; None: the agreed quorum."""
        return Terms(**self._terms(quorum))

    def _terms(self, quorum: int | None) -> dict[str, Any]:
        asked = self if quorum is None else self.model_copy(update={"quorum": quorum})
        return {**{name: getattr(self, name) for name in Terms.model_fields}, "aggregation": asked.how_to_aggregate()}
