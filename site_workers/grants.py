"""What an operator lets one other member know of single customers: a section [[vertical]] of policy.toml for each purpose.

None of it is differentially private but for the labels. So nothing is granted unless it stands here, and by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Annotated, Self

import tomlkit
from pydantic import Field, StringConstraints, model_validator

from fedround.federation import Federation
from fedround.records import Join
from fedround.values import ColumnName, Name, PublicKey, Value
from fedround.vertical.spec import Gives, Learner, Levels


class Grant(Value):
    """One [[vertical]]: which peer may know what, what for, of how many customers, and until when."""

    peer: Name
    key: PublicKey
    """The peer's, as it said it to the operator itself: whoever enrols another one under this name learns nothing."""
    purpose: Name
    gives: Annotated[tuple[Gives, ...], Field(min_length=1)]
    """"ids": which of its customers are ours, too, and how many we have; "labels": a label of each, told by a coin; "scores":
    a score of each. What was learnt cannot be taken back, and the last has no epsilon."""
    id: ColumnName
    """The column that says which customer a row is about: one row each."""
    most: Annotated[int, Field(ge=1, le=10_000_000)]
    """The most customers that either side may bring: so many ids the peer may try."""
    until: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
    """The last day, in UTC."""
    times: Annotated[int, Field(ge=1, le=1000)] = 1
    """So many exchanges there may be, ever. After that all is refused, until an operator raises the number."""
    label: ColumnName | None = None
    """The column of 0 and 1 that "labels" tells."""
    columns: Annotated[tuple[ColumnName, ...], Field(max_length=10_000)] = ()
    """The columns of numbers that are learnt from at home, by either side."""
    learner: Learner = "trees"
    """What gives "scores"."""
    levels: Levels = 64
    """How many values a score may have, at most: nothing else bounds what one tells."""

    @model_validator(mode="after")
    def _check_gives(self) -> Self:
        if "ids" not in self.gives:
            raise ValueError("gives must name \"ids\": whoever is told a label or a score of a customer learns that "
                             "you have it")
        if ("labels" in self.gives) != (self.label is not None):
            raise ValueError("label names the column that \"labels\" tells: give both or neither")
        if len(self.gives) > 1 and not self.columns:
            raise ValueError("columns names what is learnt from at home: name at least one")
        try:
            date.fromisoformat(self.until)
        except ValueError:
            raise ValueError(f"until = '{self.until}' is no day: expected one like '2027-03-31'") from None
        return self


def find(grants: Sequence[Grant], asks: Join, me: Name) -> Grant | None:
    """The grant for this exchange; None: there is none."""
    return next((one for one in grants if (one.peer, one.purpose) == (asks.peer_of(me), asks.purpose)), None)


def objection(grant: Grant | None, asks: Join, me: Name, federation: Federation, now: datetime, *, labels_have_a_budget: bool
              ) -> str | None:
    """Why a step is not allowed now, in words for the coordinator; None: it is."""
    if grant is None:
        return f"exchanges with '{asks.peer_of(me)}' for '{asks.purpose}' are not allowed here"
    if federation.site(grant.peer).key != grant.key:
        return f"the federation file has another key for '{grant.peer}' than the one that exchanges are allowed with here"
    if now.date() > date.fromisoformat(grant.until):
        return f"exchanges with '{grant.peer}' for '{asks.purpose}' were allowed here until {grant.until}"
    return _not_told(grant, asks, "labels" if me == asks.labels else "scores", labels_have_a_budget)


def _not_told(grant: Grant, asks: Join, wanted: Gives, labels_have_a_budget: bool) -> str | None:
    if wanted not in grant.gives and (wanted == "scores" or asks.epsilon is not None):
        return f"no {wanted} are told to '{grant.peer}' here"
    if wanted == "scores" and asks.levels > grant.levels:
        return f"scores of {asks.levels} levels are not told to '{grant.peer}' here, {grant.levels} at most"
    if wanted == "labels" and not labels_have_a_budget:
        return "labels have no budget here (max_epsilon_label)"
    return None


_EXAMPLE = Grant(
    peer="shop", key="ed25519:" + "3b" * 32, purpose="credit-risk", gives=("ids", "labels"), id="customer", most=20_000,
    until="2027-12-31", label="default", columns=("income",))
_MEANS = {
    "peer": "the other member", "key": "its public key, as it told you itself", "purpose": "as you both name it",
    "gives": "\"ids\", \"labels\", \"scores\"", "id": "the column that names a customer, in one row each",
    "most": "customers that either of you may bring", "until": "the last day", "times": "exchanges, ever",
    "label": "the column of 0 and 1", "columns": "of numbers, learnt from at home", "learner": "\"trees\" or \"network\"",
    "levels": "that a score may have"}


def grants_text(grants: Sequence[Grant]) -> str:
    """The sections [[vertical]] of policy.toml; an example that is commented out, if there are none."""
    shown = "\n\n".join("\n".join(["[[vertical]]", *_lines(grant)]) for grant in grants or (_EXAMPLE,))
    return shown if grants else "\n".join(f"# {line}" for line in shown.splitlines())


def _lines(grant: Grant) -> Iterator[str]:
    for key, value in grant.model_dump(mode="json", exclude_none=True).items():
        yield f"{key} = {tomlkit.item(value).as_string()}    # {_MEANS[key]}"
