"""What whoever starts a round or a run may choose, and what was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated

from pydantic import Field

from fedround.aggregation.rules import Rule
from fedround.aggregation.spec import in_words
from fedround.errors import ContractError
from fedround.privacy.spec import Epsilon
from fedround.values import Value


class Choices(Value):
    """What the federation file lets be chosen. It is agreed like the settings; without it, nothing may be chosen."""

    sites: bool = False
    """Whether a round may ask only some of the members. It must still be able to meet the quorum."""
    epsilon: Annotated[tuple[Epsilon, ...], Field(max_length=8)] = ()
    """What a run may have instead of `privacy.epsilon`, from its first round to its last."""
    rule: Annotated[tuple[Rule, ...], Field(max_length=8)] = ()
    """What a run may have instead of `aggregation.rule`, behind the same gate and mixing."""

    @property
    def of_terms(self) -> Iterator[Choice]:
        """All that a run may have instead of the first."""
        for epsilon, rule in product((None, *self.epsilon), (None, *self.rule)):
            if epsilon is not None or rule is not None:
                yield Choice(epsilon=epsilon, rule=rule)


class Choice(Value):
    """What was chosen for a run when it began. It holds for the whole run."""

    epsilon: Epsilon | None = None
    """None: as the federation file says first; so for the rule."""
    rule: Rule | None = None

    @property
    def in_words(self) -> str:
        """`epsilon 1, krum(f=1)`."""
        return ", ".join((*(() if self.epsilon is None else (f"epsilon {self.epsilon:g}",)),
                          *(() if self.rule is None else (in_words(self.rule),))))


@dataclass(frozen=True)
class OnOffer:
    """Among what a run can be begun in a federation; the first if nothing is said."""

    federation: str
    epsilons: tuple[float, ...]
    """Privacy targets; none without privacy."""
    rules: Mapping[str, Rule]
    """By their words."""

    def choice(self, epsilon: float | None, rule: str | None) -> Choice | None:
        """What a run has with this target and this rule, which is said in words or by its name; None: what it has if nothing
        is chosen. Raises ContractError for what may not be chosen, and says what may.
        """
        if epsilon not in (None, *self.epsilons):
            raise ContractError(f"federation '{self.federation}': a run may have {self.targets}, not {epsilon:g}; what else "
                                "it may have is agreed on in the federation file: [choices] epsilon")
        called = [words for words in self.rules if rule in (words, words.partition("(")[0])]
        if rule is not None and len(called) != 1:
            raise ContractError(f"federation '{self.federation}': a run may have the rule {_or(self.rules)}, and "
                                f"{'several of them are' if called else 'none of them is'} called so; what else it may have "
                                "is agreed on in the federation file: [choices] rule")
        made = Choice(epsilon=None if epsilon in (None, *self.epsilons[:1]) else epsilon,
                      rule=None if rule is None or called[0] == next(iter(self.rules)) else self.rules[called[0]])
        return None if made == Choice() else made

    def check(self, choice: Choice) -> None:
        """Raises ContractError for a choice that is not offered."""
        if choice.epsilon not in (None, *self.epsilons) or choice.rule not in (None, *self.rules.values()):
            raise ContractError(f"federation '{self.federation}': {choice.in_words} is not among what a run may have: "
                                f"{self}")

    def __str__(self) -> str:
        return f"{self.targets}, the rule {_or(self.rules)}"

    @property
    def targets(self) -> str:
        """`epsilon 5 or 1`."""
        return f"epsilon {_or(f'{one:g}' for one in self.epsilons)}" if self.epsilons else "no epsilon"


def _or(words: Iterable[str]) -> str:
    return " or ".join(words)
