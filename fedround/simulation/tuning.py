"""Choosing settings by simulated campaigns: successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943).

What it costs in privacy. On public rows, or on one's own, nothing: nothing leaves. Asked of a live federation's records,
every trial would be a campaign and charged as one, also those that were dropped: `Search.epsilon_if_live` says how much that
adds up to. The choice also depends on the validation rows. Choosing by the noised counts of live sites is part of that
charge. Choosing by exact metrics of private rows, as here, is not covered by any charge.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedround.agreement import Agreement
from fedround.errors import ContractError
from fedround.learning.recipe import Recipe
from fedround.privacy.participation import times_paid
from fedround.privacy.spec import NoPrivacy
from fedround.rounds import campaign
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.result import Result
from fedround.simulation.sites import Site
from fedround.spoken import how_many

FINALISTS = 2
"""Candidates that are compared over all rounds."""

_FEW = 4


@dataclass(frozen=True, eq=False)
class TunedTrial:
    """One candidate's campaign."""

    name: str
    rounds: int
    score: float
    """On all rows that sites hold out: the AUC, with more than two classes the accuracy."""
    result: Result


@dataclass(frozen=True, eq=False)
class Search:
    """What a search found."""

    best: str
    trials: tuple[TunedTrial, ...]
    """In the order in which they ran, rung by rung."""

    @property
    def rounds(self) -> int:
        """All rounds of all trials."""
        return sum(trial.rounds for trial in self.trials)

    @functools.cached_property
    def epsilon_if_live(self) -> float | None:
        """The epsilon that one record would have been charged if every trial had been a live campaign, in the agreements'
        unit and at their delta_dp; None without privacy. Of the most frequent kinds of sites, the largest of a few.
        """
        privacy = self.trials[0].result.agreement.privacy
        if isinstance(privacy, NoPrivacy):
            return None
        kinds = Counter(tuple(trial.result.mechanisms[site] for trial in self.trials)
                        for site in self.trials[0].result.mechanisms)
        counts = [count for trial in self.trials for count in
                  campaign.counts_of(privacy, trial.result.agreement.evaluation) * (trial.rounds + 1)]
        lengths = [trial.rounds for trial in self.trials]
        return max(campaign.dearest_record(
            [one for one, rounds in zip(kind, lengths, strict=True) for _ in range(times_paid(one, rounds))], counts, (),
            privacy.delta_dp, privacy.unit, apart=self.trials[0].result.apart) for kind, _ in kinds.most_common(_FEW))


def halving(candidates: Mapping[str, Agreement], recipe: Recipe, sites: Mapping[str, Site], *, rounds: int, seed: int,
            keep: int = 3, apart: bool = False, told: Callable[[TunedTrial], None] = lambda _: None) -> Search:
    """Run all candidates for a few rounds, keep the best of every `keep`, run those `keep` times as long, and so on; the
    last rung runs two for `rounds`, because the winner of a short campaign often loses a long one.

    Every rung begins anew with the same seed, so that candidates differ in nothing but their settings; all rungs take about
    as many rounds. A candidate that starts slowly and ends well may be dropped. Deterministic in `seed`: equal scores are
    kept in the order of names. apart: as `simulate`.

    Raises ContractError without candidates, unless all agree on the same unit of privacy and delta_dp, and if a site holds
    out no rows; and what `simulate` raises.
    """
    _check(candidates, sites, rounds, keep)
    rungs = math.ceil(math.log(max(len(candidates) / FINALISTS, 1), keep) - 1e-9)
    left, trials = sorted(candidates), list[TunedTrial]()
    for rung in range(rungs, -1, -1):
        length = max(1, round(rounds / keep**rung))
        ran = [_trial(name, candidates[name], recipe, sites, length, seed, apart=apart) for name in left]
        for trial in ran:
            told(trial)
        trials += ran
        best_first = sorted(ran, key=lambda trial: -trial.score)
        left = [trial.name for trial in best_first[:max(FINALISTS, math.ceil(len(ran) / keep))]]
    return Search(left[0], tuple(trials))


def _trial(name: str, agreement: Agreement, recipe: Recipe, sites: Mapping[str, Site], rounds: int, seed: int, *,
           apart: bool) -> TunedTrial:
    result = simulate(agreement, recipe.growing(agreement.training), sites, rounds=rounds, chance=Seeded(seed),
                      stacked=True, judge_every=rounds, apart=apart)
    if (reached := result.last.validation) is None:
        raise ContractError("the rows that sites hold out are of one label only: nothing tells candidates apart; "
                            "hold out more")
    return TunedTrial(name, rounds, reached.known()[recipe.task.headline], result)


def _check(candidates: Mapping[str, Agreement], sites: Mapping[str, Site], rounds: int, keep: int) -> None:
    if not candidates or rounds < 1 or keep < 2:
        raise ContractError(f"{how_many(len(candidates), 'candidate')}, {how_many(rounds, 'round')}, the best of every "
                            f"{keep}: expected a candidate and a round at least, and the best of 2 or more")
    promises = {(agreement.privacy.unit, None if isinstance(agreement.privacy, NoPrivacy) else agreement.privacy.delta_dp)
                for agreement in candidates.values()}
    if len(promises) > 1:
        raise ContractError("candidates with different units of privacy or delta_dp cannot be compared, nor their cost added "
                            "up")
    if without := sorted(name for name, site in sites.items() if site.validation is None):
        raise ContractError(f"site '{without[0]}' holds out no rows, and candidates are compared on those")
