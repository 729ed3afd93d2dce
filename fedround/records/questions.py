"""What a plan may ask: about rows, about keys, and between two members."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, StringConstraints, model_validator

from fedround.errors import ContractError
from fedround.privacy.spec import RandomisedLabels
from fedround.statistics import MAX_CLUSTERS, Judging, ModelSums, Scores, Statistic
from fedround.statistics.partitions import Partition
from fedround.values import MAX_NUMBER, Attempt, Digest, Name, Round, Signature, Value
from fedround.vertical.spec import SCORING, TRAINING, LabelEpsilon, Levels, Step


class Blob(Value):
    """A tensor file in the store, by content, and who may read it."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
    digest: Digest
    readers: Literal["everybody", "coordinator"] = "everybody"
    """"coordinator": and auditors, but no site."""


def named(blobs: tuple[Blob, ...], name: str) -> Digest | None:
    """The digest of the blob with this name; None: there is none."""
    return next((blob.digest for blob in blobs if blob.name == name), None)


class Told(Value):
    """An answer that counts."""

    site: Name
    answer: Digest


class Placed(Value):
    """A document of a run, by where it lies and by content."""

    round: Round
    attempt: Attempt
    digest: Digest


MAX_SLOTS = 1000
"""Of one epoch of keys."""


class Slot(Value):
    """The keys under which the answers to one question are masked. No two questions may ever name the same."""

    dealt: Placed
    """The finding of the question to deal shares: whose keys and shares there are."""
    number: Annotated[int, Field(ge=0, le=MAX_SLOTS - 1)]
    """Which of the epoch's slots."""


class _Question(Value):
    """What every question has in common. A new one is a class here, what a site does for it, and what the server does with
    the answers.
    """

    folder: ClassVar[str]
    """Where plans of this kind, and what came of them, lie in the store."""
    about: ClassVar[str]
    """What it is, before the words for the round, in messages."""
    doing: ClassVar[str]
    """What sites do meanwhile, after the word "sites"."""
    makes_model: ClassVar[bool] = False
    """Whether the answers become the next round's model."""
    is_of_rows: ClassVar[bool] = True
    """Whether it is about rows, so that a site's policy must allow it by its word (`values.OfRows`)."""
    sends_file: ClassVar[bool] = False
    """Whether what answers it is a file about keys."""

    needs_all: ClassVar[bool] = True
    """True: a site that may not release every statistic refuses. False: it leaves those statistics out of its answer."""


class _OfRows(_Question):
    """A question about rows: what a site does for it is in `fedround.rounds.site`."""

    statistics: Annotated[tuple[Statistic, ...], Field(max_length=64)] = ()
    """What is asked about rows and the base model. Each is noised and charged by itself."""

    @property
    def scores(self) -> Judging | None:
        """How it is asked how good the base model is, if it is."""
        return next((one for one in self.statistics if isinstance(one, Scores | ModelSums)), None)

    @property
    def reads_model(self) -> bool:
        """Whether a site works with the base model."""
        return self.makes_model or any(one.reads_model for one in self.statistics)

    partition: Partition | None = None
    """The only rows that it is about; None: all."""
    slot: Slot | None = None
    """Where the terms say `combine`: the keys under which each answer is one masked vector."""


class Train(_OfRows):
    """Train the base model and send the noised change. If counts may leave, also say how good the base model is."""

    makes_model: ClassVar[bool] = True
    needs_all: ClassVar[bool] = False
    folder: ClassVar[str] = "rounds"
    about: ClassVar[str] = ""
    doing: ClassVar[str] = "train"
    kind: Literal["train"] = "train"
    statistics: Annotated[tuple[Judging, ...], Field(max_length=MAX_CLUSTERS)] = ()
    """One for each model that sites choose from."""
    state: tuple[Blob, ...] = ()
    """What the server remembers of the rounds before and local training needs (`Algorithm.serves`)."""


class Evaluate(_OfRows):
    """Say how good the base model is."""

    folder: ClassVar[str] = "evaluations"
    about: ClassVar[str] = "evaluation of "
    doing: ClassVar[str] = "evaluate the model"
    kind: Literal["evaluate"] = "evaluate"
    statistics: Annotated[tuple[Judging, ...], Field(min_length=1, max_length=MAX_CLUSTERS)]


class Measure(_OfRows):
    """Count something in the rows, or what the base model decides about them. No model is made."""

    folder: ClassVar[str] = "measurements"
    about: ClassVar[str] = "measurement at "
    doing: ClassVar[str] = "count"
    kind: Literal["measure"] = "measure"
    statistics: Annotated[tuple[Statistic, ...], Field(min_length=1, max_length=64)]
    asker: Name | None = None
    """Who wants to know, as the coordinator says; a site's policy may name who may ask. None: nobody in particular."""


class _OfKeys(_Question):
    """A question about keys: no row has any part in the answer, and nothing is charged for it."""

    is_of_rows: ClassVar[bool] = False
    sends_file: ClassVar[bool] = True

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """None is asked for; so for what follows."""
        return ()

    @property
    def partition(self) -> Partition | None:
        """Of no rows."""
        return None

    @property
    def slot(self) -> Slot | None:
        """Nothing is masked."""
        return None

    @property
    def scores(self) -> Judging | None:
        """No model is judged."""
        return None

    @property
    def reads_model(self) -> bool:
        """No."""
        return False


class OfferKeys(_OfKeys):
    """Make keys for so many secure sums."""

    folder: ClassVar[str] = "keys"
    about: ClassVar[str] = "keys for sums from "
    doing: ClassVar[str] = "make keys for sums"
    kind: Literal["keys"] = "keys"
    epoch: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    """Which of the run's sets of keys."""
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)]


class DealShares(_OfKeys):
    """Deal shares of your secrets to those who offered keys."""

    folder: ClassVar[str] = "shares"
    about: ClassVar[str] = "shares of keys for sums from "
    doing: ClassVar[str] = "deal shares of their keys"
    kind: Literal["shares"] = "shares"
    offered: Placed
    """The finding of the question to offer keys."""
    members: Annotated[int, Field(ge=1, le=1000)]
    """How many did."""
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    """For how many sums."""


class _OfSum(_OfKeys):
    """A question about the sum of these answers, and about no other. The flow run that answered answers this one, too."""

    of: Digest
    """The plan whose answers are added up."""
    survivors: Annotated[tuple[Told, ...], Field(min_length=1, max_length=1000)]
    handed_on: Digest
    """Their signed answers, a line each in the same order, where all may read them."""
    dropped: Annotated[tuple[Name, ...], Field(max_length=1000)]
    """All others who dealt shares."""

    @property
    def whose(self) -> tuple[Digest, tuple[Told, ...], Digest, tuple[Name, ...]]:
        """Which sum it is."""
        return self.of, self.survivors, self.handed_on, self.dropped


class Countersign(_OfSum):
    """Sign that these are the answers that are added up, and that no share is revealed for others."""

    folder: ClassVar[str] = "countersigned"
    about: ClassVar[str] = "who is in the sum after "
    doing: ClassVar[str] = "sign whose answers are added up"
    kind: Literal["countersign"] = "countersign"
    sends_file: ClassVar[bool] = False


class Sighted(Value):
    """A member's signature of a plan that it answered (`fedround.sightings`)."""

    site: Name
    sighting: Signature


class Countersigned(Value):
    """Who signed which answers are added up."""

    asked: Placed
    """The plan that they answered."""
    by: Annotated[tuple[Sighted, ...], Field(min_length=1, max_length=1000)]


class Reveal(_OfSum):
    """Reveal the shares that take the masks off the sum of these answers, and off nothing else."""

    folder: ClassVar[str] = "reveals"
    about: ClassVar[str] = "the sum after "
    doing: ClassVar[str] = "reveal what takes the masks off their sum"
    kind: Literal["reveal"] = "reveal"
    countersigned: Countersigned | None = None
    """Where the terms say that members sign first; None where they do not."""


class Join(_OfKeys):
    """One step between two members: what each sends the other, encrypted to it, is the answer. No other member and no
    coordinator reads it. A site does nothing of it that its policy does not grant to this peer for this purpose (`Grant`).
    """

    folder: ClassVar[str] = "joins"
    about: ClassVar[str] = "a step between two members at "
    doing: ClassVar[str] = "do a step between two members"
    kind: Literal["join"] = "join"
    step: Step
    labels: Name
    """The member that has the labels."""
    features: Name
    """The member that has other columns of the same customers."""
    purpose: Name
    """What it is for, as both members' policies name it."""
    number: Annotated[int, Field(ge=1, le=MAX_NUMBER)] = 1
    """Which of the exchanges between these two in the run."""
    before: Annotated[tuple[Placed, ...], Field(max_length=8)] = ()
    """The findings of the steps before, in their order. The first one's plan names the exchange."""
    epsilon: LabelEpsilon | None = None
    """What a label pays; None: none is told, and scores come from what was learnt in the exchange `learnt`."""
    levels: Levels = 64
    """How many values a score can have."""
    learnt: Digest | None = None
    """The exchange (the plan of its first step) whose models give the scores; None: this one's."""

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        steps = SCORING if self.epsilon is None else TRAINING
        if (self.epsilon is None) != (self.learnt is not None):
            raise ValueError("an exchange tells labels, or says in which one they were told: say epsilon, or learnt")
        if self.step not in steps or len(self.before) != steps.index(self.step):
            raise ValueError(f"the steps are {', '.join(steps)}, and each names the findings of all before it")
        if self.labels == self.features:
            raise ValueError("two members are needed, and one is named twice")
        return self

    @property
    def senders(self) -> tuple[Name, ...]:
        """Who sends something in this step."""
        return {"labels": (self.labels,), "scores": (self.features,)}.get(self.step, (self.labels, self.features))

    @property
    def noised(self) -> tuple[RandomisedLabels, ...]:
        """What is noised in what is sent."""
        return (RandomisedLabels(epsilon=self.epsilon),) if self.step == "labels" and self.epsilon is not None else ()

    def peer_of(self, member: Name) -> Name:
        """The other one. Raises ContractError if `member` is neither."""
        if member not in (self.labels, self.features):
            raise ContractError(f"'{member}' is none of the two members that this is between")
        return self.features if member == self.labels else self.labels


Question = Annotated[Train | Evaluate | Measure | OfferKeys | DealShares | Countersign | Reveal | Join,
                     Field(discriminator="kind")]
QUESTIONS: tuple[type[_Question], ...] = get_args(get_args(Question)[0])
