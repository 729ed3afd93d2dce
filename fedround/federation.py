"""The federation file: what all agreed on, and who the members are, with their keys and weights."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from fedround.agreement import Agreement
from fedround.choices import Choice
from fedround.errors import ContractError, ToleranceError
from fedround.hours import Closed, Hours, is_there
from fedround.regions.spec import check_members
from fedround.spoken import how_many
from fedround.terms import Agreed, Together
from fedround.values import Digest, Name, PublicKey, Rows, Signed, Value, Weight


class SiteEntry(Value):
    """One member, as the coordinator enrolled it. The weight is agreed here; nothing a site says later changes it."""

    name: Name
    key: PublicKey
    weight: Weight
    rows: Rows | None = None
    """How many rows it trains on, as agreed: an answer that is made as if of many more is not admitted. None: not agreed.
    With the unit 'person', how many persons have such rows."""
    hours: Hours | None = None
    """When it can be asked; None: always. What it carries out, and when, its own policy says."""
    closed: Annotated[tuple[Closed, ...], Field(max_length=100)] = ()
    """Days on which it is not asked."""

    @property
    def is_always_there(self) -> bool:
        """Whether it can be asked at any time."""
        return self.hours is None and self.closed == ()

    def is_there(self, at: datetime) -> bool:
        """Whether it can be asked then. at: with its time zone."""
        return is_there(self.hours, self.closed, at)


class CoordinatorEntry(Value):
    """One of several coordinators, each of which proposes rounds in its turn and signs what it has computed again."""

    name: Name
    key: PublicKey


MORE_ROWS = 1.5
"""How many times the agreed number of rows a site may have: rows come and go, and the number is not agreed anew each time."""


class Federation(Agreement, Signed):
    """The federation file: who takes part and what every round asks for."""

    kind: ClassVar[str] = "federation"

    coordinator: PublicKey
    recipe: Name
    recipe_digest: Digest
    contract_digest: Digest
    start: Digest | None = None
    """The checkpoint with which every run begins (`fedround.learning.start`); None: with the recipe's initial model."""
    revoked: tuple[PublicKey, ...] = ()
    """Keys that nobody may use again ('fedround federation revoke')."""
    coordinators: Annotated[tuple[CoordinatorEntry, ...], Field(max_length=20)] = ()
    """Who proposes rounds, in turn; a round counts with the signatures of a majority of them. None: `coordinator` alone.
    `coordinator` then signs this file and the federation log, and is needed for nothing else; it may be one of them."""
    silence_s: Annotated[int, Field(ge=1, le=604_800)] = 300
    """With several coordinators: after how long without a commit the next one proposes the round."""
    sites: Annotated[tuple[SiteEntry, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        names = [site.name for site in self.sites]
        keys = [site.key for site in self.sites] + [region.key for region in self.regions] + [self.coordinator]
        if len(set(names)) < len(names):
            raise ValueError("two sites have the same name")
        if taken := {"coordinator", *self.pools} & set(names):
            raise ValueError(f"'{taken.pop()}' is the coordinator's own name: a site needs another")
        if len(set(keys)) < len(keys):
            raise ValueError("two members have the same key; every member makes its own with 'fedround site init'")
        if revoked := sorted({site.name for site in self.sites if site.key in self.revoked}):
            raise ValueError(f"the key of '{revoked[0]}' was revoked: enrol the site with a new one")
        if self.regions:
            check_members(self.regions, names, {"coordinator", *self.pools})
        if lapsed := sorted({region.name for region in self.regions if region.key in self.revoked}):
            raise ValueError(f"the key of region '{lapsed[0]}' was revoked: name another for it")
        if self.incentive is not None and self.incentive.floor * len(names) > 1:
            raise ValueError(f"incentive: a floor of {self.incentive.floor:g} for each of {how_many(len(names), 'member')} "
                             "is more than there is to share")
        if self.quorum > len(names):
            raise ValueError(f"quorum {self.quorum} can never be met by {how_many(len(names), 'site')}")
        if self.enough is not None and self.enough > len(names):
            raise ValueError(f"enough = {self.enough} can never be reached by {how_many(len(names), 'site')}, so that no "
                             "round would close early: say fewer, or take it out")
        if (how := self.selection) is not None and how.sites > len(names):
            raise ValueError(f"selection: {how_many(how.sites, 'site', 'is', 'are')} asked, of {len(names)}")
        if how is not None and how.within is not None and how.sites * how.within < len(names):
            raise ValueError(f"selection: {how_many(how.sites, 'site')} in each of {how_many(how.within, 'round')} are fewer "
                             f"than the {len(names)} members that shall all be asked: raise one of them")
        try:
            self.how_to_aggregate().check_weights([site.weight for site in self.sites], self.quorum,
                                                  1.0 if self.pace is None else self.pace.share(self.pace.max_age))
        except ToleranceError as error:
            raise ValueError(f"aggregation with quorum {self.quorum}: {error}") from None
        return self

    @model_validator(mode="after")
    def _check_who_is_there(self) -> Self:
        if self.pace is not None and not all(site.is_always_there for site in self.sites):
            raise ValueError("pace: who is asked follows from who still works, and some have 'hours' or are 'closed': take "
                             "these out; a site's own policy may have hours")
        return self

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.start is not None and self.evaluation.clusters > 1:
            raise ValueError("evaluation.clusters: models that all begin with the checkpoint 'start' are the same, and sites "
                             "cannot choose among them: leave one of the two out")
        return self

    @model_validator(mode="after")
    def _check_secure_sum(self) -> Self:
        if self.combine is None:
            return self
        if not all(site.is_always_there for site in self.sites):
            raise ValueError("combine: keys for sums come from all members at once, and some have 'hours' or are 'closed': "
                             "take these out, and plan rounds for when all are there")
        try:
            self.combine.check(len(self.sites))
        except ToleranceError as error:
            raise ValueError(f"combine: {error}") from None
        if (silent := next((site.name for site in self.sites if site.rows is None), None)) is not None:
            raise ValueError(f"combine: how often a row is drawn follows from how many there are: agree on 'rows' for each "
                             f"member ('{silent}' has none)")
        if self.quorum < (least := self.combine.least(len(self.sites))):
            raise ValueError(f"combine: a sum of {how_many(len(self.sites), 'member')} with "
                             f"{how_many(self.combine.dropouts, 'dropout')} has at least {least}, and quorum {self.quorum} "
                             f"asks for fewer: set quorum = {least}")
        return self

    @property
    def together(self) -> Together | None:
        """As `Agreement`: all members."""
        if self.combine is None:
            return None
        return Together(members=len(self.sites), rows=sum(site.rows or 0 for site in self.sites))

    def served_by(self, name: str) -> str:
        """What the deployments of one of several coordinators are named after, if it is not the founder."""
        return f"{self.name}-{name}"

    @property
    def pools(self) -> tuple[str, ...]:
        """The pools of all coordinators."""
        others = (self.served_by(one.name) for one in self.coordinators if one.key != self.coordinator)
        return (self.pool, *(f"{served}-coordinator" for served in others))

    @property
    def pool(self) -> str:
        """The coordinator's work pool, and its login at the proxy. A site's are named after the site."""
        return f"{self.name}-coordinator"

    def agreed(self, quorum: int | None = None, choice: Choice | None = None) -> Agreed:
        """What a plan with this quorum says of all this, in a run with this choice; None: the agreed quorum. Raises as
        `chosen`.
        """
        return Agreed(**self.chosen(choice)._terms(quorum), recipe=self.recipe, recipe_digest=self.recipe_digest,
                      contract_digest=self.contract_digest, choice=choice)

    def away(self, at: datetime | None) -> frozenset[str]:
        """The members that cannot be asked then. Raises ContractError if that depends on the time and it is not known."""
        if at is None:
            if (one := next((site.name for site in self.sites if not site.is_always_there), None)) is not None:
                raise ContractError(f"federation '{self.name}': it does not say when it was planned, and '{one}' is not "
                                    "always there")
            return frozenset()
        return frozenset(site.name for site in self.sites if not site.is_there(at))

    def check_asked(self, cohort: Collection[str], unasked: Collection[str], at: datetime | None, *, trains: bool) -> None:
        """Raises ContractError if a round with this file's quorum, planned at that time, may not ask exactly these of the
        members, and not ask those. Which of them a selection draws is not looked at.

        The theorem of the rule needs no other check: it holds for every cohort of so many members as the quorum says.
        """
        away = self.away(at)
        if (gone := sorted(away & set(cohort))):
            raise ContractError(f"federation '{self.name}': '{gone[0]}' cannot be asked at that time, says its entry")
        left_out = sorted(set(unasked) - away)
        if trains and self.selection is not None:
            if len(cohort) != min(self.selection.sites, len(cohort) + len(left_out)):
                raise ContractError(f"federation '{self.name}': {how_many(len(cohort), 'site', 'is', 'are')} asked, and its "
                                    f"selection is of {self.selection.sites}")
        elif left_out and (self.choices is None or not self.choices.sites):
            raise ContractError(f"federation '{self.name}': a round asks every member; to choose some of them, agree on "
                                "[choices] sites = true, or on a [selection], in the federation file")
        if unasked and len(cohort) < self.quorum:
            raise ContractError(f"federation '{self.name}': {len(cohort)} of the chosen sites can be asked, and the quorum "
                                f"is {self.quorum}: choose at least {self.quorum}, or ask with a smaller quorum"
                                + (f"; not there now: {', '.join(sorted(away))}" if away else ""))

    @model_validator(mode="after")
    def _check_coordinators(self) -> Self:
        if self.coordinators and (why_not := objection_to_turns(self)) is not None:
            raise ValueError(f"coordinators: {why_not}")
        return self

    @property
    def majority(self) -> int:
        """How many coordinators must sign a commit; 1, where there is one."""
        return len(self.coordinators) // 2 + 1

    def site(self, name: str) -> SiteEntry:
        """The member called `name`. Raises ContractError if there is none."""
        for site in self.sites:
            if site.name == name:
                return site
        raise ContractError(f"federation '{self.name}' has no site '{name}'; its members are: "
                            + ", ".join(site.name for site in self.sites))


def objection_to_turns(federation: Federation) -> str | None:
    """Why a file does not go with several coordinators; None if it does.

    Mostly for one reason: whoever signs a round must be able to compute it again from what is committed.
    """
    names, keys = ([getattr(one, part) for one in federation.coordinators] for part in ("name", "key"))
    rule = federation.how_to_aggregate().rule
    members = {site.key for site in federation.sites} | {region.key for region in federation.regions}
    return next((words for words, holds in {
        f"{len(names)} of them have a majority of all, so that none may be missing: name at least 3": len(names) < 3,
        "two have the same name or key": len(set(names)) < len(names) or len(set(keys)) < len(keys),
        "one has the key of a member or a region": bool(members & set(keys)),
        "one has a key that was revoked": bool(set(keys) & set(federation.revoked)),
        f"the rule '{rule.name}' rests on rows that one coordinator alone has: agree on another rule":
            rule.needs_root,
        "[combine] rests on findings about keys that one coordinator alone signs: leave it out":
            federation.combine is not None,
        "[drift] is a finding that one coordinator alone signs: leave it out": federation.drift is not None,
        "[incentive] rests on contributions that one coordinator alone signs: leave it out": federation.incentive is not None,
    }.items() if holds), None)
