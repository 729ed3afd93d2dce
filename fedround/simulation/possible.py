"""What can be simulated of an agreement, and what has no effect there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fedround.agreement import Agreement
from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.foreign.spec import Foreign
from fedround.learning.spec import LocalTraining
from fedround.privacy.spec import NoPrivacy
from fedround.rounds.speed import affordable
from fedround.simulation.asking import Asking, Calendar
from fedround.simulation.clock import Turn, at_once, turns
from fedround.simulation.sites import Site
from fedround.spoken import how_many


def check(agreement: Agreement, rounds: int, share: float, root: Examples | None, seconds: Mapping[str, float] | None,
          calendar: Calendar | None, sites: Mapping[str, Site]) -> None:
    """Raises ContractError for what `simulate` cannot do, with the words of its arguments."""
    if seconds is not None and (seconds.keys() != sites.keys() or share != 1):
        raise ContractError("with a clock every site is asked when it is free: say the seconds of each site, and no share")
    if calendar is not None and seconds is None:
        raise ContractError("a calendar needs a clock: say how many seconds each site takes for a plan")
    if not 0 < share <= 1 or rounds < 1:
        raise ContractError(f"expected a share of sites above 0 and at most 1 and a round at least, got {share} and {rounds}")
    how = agreement.selection
    if how is not None and how.sites > len(sites):
        raise ContractError(f"selection: {how_many(how.sites, 'site', 'is', 'are')} asked in each round, and there are "
                            f"{len(sites)}")
    paced = seconds is not None and agreement.pace is not None      # then the clock stops each site where its promise ends
    if not isinstance(agreement.privacy, NoPrivacy) and not paced and how is None and rounds > agreement.privacy.rounds:
        raise ContractError(f"the privacy that was agreed pays for {how_many(agreement.privacy.rounds, 'round')}, {rounds} "
                            "are asked: raise privacy.rounds, which takes more noise in each")
    if isinstance(agreement.training, Foreign):
        raise ContractError("a foreign client trains on data that it reads itself, at its own site: a simulation has none of "
                            "them. 'fedround demo' and two sites on this machine try it out")
    if (rule := agreement.how_to_aggregate().rule).needs_root and root is None:
        raise ContractError(f"the rule '{rule.name}' compares every update with the coordinator's own: give root rows")


def not_simulated(agreement: Agreement, sites: Mapping[str, Site], *, timed: bool, dated: bool) -> list[str]:
    """What is agreed and has no effect here."""
    training = agreement.training
    fewer = training.fewest_steps is not None
    unread = ", ".join(words for words, holds in {
        "[pace]": agreement.pace is not None, "'enough'": agreement.enough is not None, "'fewest_steps'": fewer}.items()
        if holds)
    return [words for words, holds in {
        f"nobody is late without a clock, so {unread} changes nothing: say how many seconds each site takes":
            unread and not timed,
        "nobody is away without a calendar, so 'hours' and 'closed' change nothing: say when the campaign begins":
            not dated and not all(site.is_always_there for site in sites.values())}.items() if holds]


def paid_by_slow(agreement: Agreement, seconds: Mapping[str, float]) -> dict[str, int]:
    """How many steps sites pay for and do that may do fewer than all, as if each knew its own speed when the run began.

    seconds: for all steps. A live site also looks at what its own policy allows.
    """
    training = agreement.training
    if not isinstance(training, LocalTraining) or training.fewest_steps is None:
        return {}
    paid = {site: affordable(training, took / training.local_steps, agreement.deadline_s) for site, took in seconds.items()}
    return {site: steps for site, steps in paid.items() if steps < training.local_steps}


def turns_of(agreement: Agreement, asking: Asking, seconds: Mapping[str, float] | None, calendar: Calendar | None,
             names: Sequence[str], rounds: int, paid: Mapping[str, int]) -> Iterator[Turn]:
    """Who is asked and counts in each round. Each is drawn when it begins: from what the rounds before it told."""
    if seconds is None:
        return at_once(agreement, names, rounds, asking)
    training = agreement.training
    seconds = {site: took * paid.get(site, training.local_steps) / training.local_steps for site, took in seconds.items()}
    return turns(agreement, seconds, rounds, asking, every_s=0.0 if calendar is None else calendar.every_s)
