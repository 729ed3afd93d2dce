"""What privacy costs the banks: every epsilon of the table can be had."""

import pytest

from benchmarks.utility import EPSILONS, candidates
from fedround.errors import ContractError
from fedround.rounds.campaign import mechanism_for
from fedround_examples.banks.split import STORY


def noise(settings) -> float:
    how = settings.privacy, settings.training, settings.evaluation, 320, settings.groups
    return mechanism_for(*how).noise_multiplier


def test_what_is_counted_has_its_share_of_every_budget():
    """The groups' counts alone cost 1.34: as agreed for epsilon 5, they leave nothing at 1."""
    noises = [noise(candidates(epsilon)["20 rounds, rate 2"]) for epsilon in EPSILONS if epsilon is not None]
    assert noises == sorted(noises, reverse=True)
    small = STORY.settings()
    with pytest.raises(ContractError, match="alone spend"):
        noise(small.model_copy(update={"privacy": small.privacy.model_copy(update={"epsilon": 1.0})}))
