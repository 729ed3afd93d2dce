"""The accountant in a process of its own says what it would say here, and this process never imports it."""

import subprocess
import sys

import pytest

from fedround.errors import SetupError
from fedround.privacy import accounting, apart
from fedround.privacy.accounting import Batch, Composed, epsilon, epsilon_of_batches
from fedround.privacy.spec import DpSgd, GaussianCounts, NoMechanism

TRAINING = DpSgd(noise_multiplier=1.1, clip_norm=1.0, sampling_rate=0.05, steps=20)
COUNTS = GaussianCounts(noise_std=30.0)


@pytest.fixture
def accountant():
    accountant = apart.settle()
    yield accountant
    accountant.rest()
    accounting.ask(None)


def test_a_child_says_to_the_last_bit_what_this_process_says(accountant):
    asked = [[TRAINING, COUNTS], [COUNTS] * 3, [TRAINING] * 4, [], [NoMechanism()]]
    there = [epsilon(mechanisms, 1e-5) for mechanisms in asked]
    accounting.ask(None)
    assert there == [epsilon(mechanisms, 1e-5) for mechanisms in asked]


def test_attack_a_child_counts_the_campaigns_after_the_first_too(accountant):
    """It forgot them: a second campaign cost nothing at a site's worker, and the policy's bound let it through."""
    first, second = Batch(((TRAINING, 5),)), Batch(((COUNTS, 3), (TRAINING, 2)))
    asked = [[first], [first, second], [first, Batch(second.fixed, ((TRAINING, 1),))]]
    there = [epsilon_of_batches(batches, 1e-5) for batches in asked]
    assert there[0] < there[2] < there[1]
    accounting.ask(None)
    assert there == [epsilon_of_batches(batches, 1e-5) for batches in asked]


def test_a_campaign_of_many_rounds_needs_few_children(accountant, monkeypatch):
    """Two rounds say how it goes on. What was answered ahead is what is asked then, and the very number."""
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **named: started.append(1) or real(*words, **named))
    rounds = range(1, apart.AHEAD + 3)
    there = []
    for number in rounds:
        there.append(epsilon([TRAINING, COUNTS] * number + [COUNTS], 1e-5))
        accountant.rest()
    assert len(started) == 2
    accounting.ask(None)
    assert there == [epsilon([TRAINING, COUNTS] * number + [COUNTS], 1e-5) for number in rounds]


def test_only_what_grows_is_answered_ahead():
    one, two = (Composed((((1.0, 0.1, 5), n),), ((4.0, n + 1),), 1e-5) for n in (1, 2))
    other = Composed((((1.5, 0.1, 5), 2),), ((4.0, 3),), 1e-5)
    assert apart.steps(one, two)
    assert not apart.steps(two, one)
    assert not apart.steps(one, one)
    assert not apart.steps(one, other)
    assert apart.ahead(two, one)[:2] == [Composed((((1.0, 0.1, 5), n),), ((4.0, n + 1),), 1e-5) for n in (3, 4)]


def test_a_child_that_dies_is_one_sentence_and_the_next_question_is_answered(accountant, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(SetupError, match="accountant's process ended"):
            epsilon([TRAINING], 1e-5)
    assert epsilon([TRAINING], 1e-5) > 0


def test_the_process_that_asks_never_imports_the_accountant():
    program = ("import sys; from fedround.privacy import apart; from fedround.privacy.accounting import epsilon\n"
               "from fedround.privacy.spec import GaussianCounts; accountant = apart.settle()\n"
               "found = epsilon([GaussianCounts(noise_std=30.0)], 1e-5); accountant.rest()\n"
               "print(found, sorted({'scipy', 'dp_accounting', 'pandas'} & set(sys.modules)))")
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{epsilon([COUNTS], 1e-5)} []"
