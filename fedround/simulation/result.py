"""What a simulated campaign gives."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedround.agreement import Agreement
from fedround.codec import Tensors
from fedround.learning.clusters import model_of
from fedround.learning.parts import Rest
from fedround.learning.tasks import Metrics
from fedround.privacy.participation import times_paid
from fedround.privacy.spec import Mechanism, NoPrivacy, TrainingMechanism, of_persons, shared
from fedround.privacy.units import alone
from fedround.rounds import campaign
from fedround.rounds.participation import Participation, Took, participation

_FEW = 4


@dataclass(frozen=True)
class Round:
    """One round."""

    number: int
    asked: int
    """Sites in the cohort."""
    left_out: tuple[str, ...]
    """Sites whose update did not enter the aggregate."""
    sent_bytes: int
    """Tensor files from the coordinator to the sites, as they would be encoded; signed documents of a few kB come on top."""
    received_bytes: int
    """The same from the sites to the coordinator."""
    test: Metrics | None = None
    """The new model on the public test set."""
    validation: Metrics | None = None
    """The new model on all rows that sites hold out, together and without noise. A live coordinator sees noised counts."""
    ended_s: float | None = None
    """When it closed, by the virtual clock; None: there is none."""
    answered: tuple[str, ...] = ()
    """Whose answers counted, to its plan or to an earlier one."""
    lost: tuple[str, ...] = ()
    """Whose work for it, or for an earlier plan, ended here and counted for nothing: late, and paid for."""
    refused: tuple[str, ...] = ()
    """Who was asked, and refused: its promise pays for no more."""
    unasked: tuple[str, ...] = ()
    """Who was not asked, and does not work on an earlier plan either."""
    influence: Mapping[str, float] = field(default_factory=dict)
    """What each update that entered the aggregate counts in it, on any scale."""


@dataclass(frozen=True, eq=False)
class Result:
    """A whole campaign."""

    agreement: Agreement
    model: Tensors
    rounds: tuple[Round, ...]
    at_sites: Mapping[str, Metrics]
    """The last model on each site's own rows that it holds out; without sites whose rows tell nothing."""
    mechanisms: Mapping[str, TrainingMechanism]
    """What each site applied in a round."""
    took_part: Mapping[str, int]
    """In how many rounds; each of them is paid, also where the answer came too late."""
    rests: Mapping[str, Rest]
    """What the model has at each site besides what travels; empty where everything does."""
    personal: Mapping[str, Tensors]
    """Each site's personal model after its last round; empty where none is agreed."""
    personal_at_sites: Mapping[str, Metrics]
    """Each of these on the rows that its site holds out."""
    notes: tuple[str, ...]
    """What was done otherwise than asked, and why."""
    weights: Mapping[str, float]
    """The agreed ones, of all sites."""
    apart: bool = False
    """Whether rows to train on and rows held out paid apart."""
    picked: Mapping[str, int] = field(default_factory=dict)
    """Of several models the one that each site chose last; empty where there is one for all."""

    def at(self, site: str) -> Tensors:
        """The last model at a site, whole; of several, the one that it chose last."""
        shared = model_of(self.model, self.picked.get(site, 0), self.agreement.evaluation.clusters)
        return {**shared, **self.rests[site].whole}

    @property
    def last(self) -> Round:
        """The last round."""
        return self.rounds[-1]

    @property
    def participation(self) -> Participation | None:
        """Who took part, and whom the model follows for it; None: every site was asked in each round."""
        if not any(one.unasked for one in self.rounds):
            return None
        return participation([self._took(one) for one in self.rounds])

    def _took(self, one: Round) -> dict[str, Took]:
        unasked, answered = {*one.unasked}, {*one.answered, *one.refused}
        return {name: Took(weight, name not in unasked, name in answered, one.influence.get(name))
                for name, weight in self.weights.items()}

    @property
    def sent_bytes(self) -> int:
        """Over all rounds, both ways."""
        return sum(one.sent_bytes + one.received_bytes for one in self.rounds)

    @functools.cached_property
    def epsilon(self) -> float | None:
        """What a live site would have spent, in the agreement's unit, the counts of every evaluation included; None without
        privacy. Of the sites that took part most often, the largest of a few; of the record there that pays most.
        """
        return self._epsilon(lambda mechanism: mechanism)

    @functools.cached_property
    def epsilon_alone(self) -> float | None:
        """The same if every other site told what it added to the noise; None where no noise is shared."""
        by = next((getattr(one, "shared_by", None) for one in self.mechanisms.values()), None)
        return None if by is None else self._epsilon(lambda mechanism: alone(shared(mechanism, by)))

    def _epsilon(self, seen: Callable[[Mechanism], Mechanism]) -> float | None:
        privacy = self.agreement.privacy
        if isinstance(privacy, NoPrivacy):
            return None
        most = max(self.took_part.values())
        kinds = Counter(mechanism for site, mechanism in self.mechanisms.items() if self.took_part.get(site) == most)
        counts = campaign.counts_of(privacy, self.agreement.evaluation) * (most + 1)
        watched = () if self.agreement.drift is None else of_persons(self.agreement.drift.releases(most), privacy)

        def paid(mechanism: Mechanism) -> float:
            trained, held_out, of_all = ([seen(one) for one in uses] for uses in (
                [mechanism] * times_paid(mechanism, most), counts, watched))
            return campaign.dearest_record(trained, held_out, of_all, privacy.delta_dp, privacy.unit, apart=self.apart)

        return max(paid(mechanism) for mechanism, _ in kinds.most_common(_FEW))
