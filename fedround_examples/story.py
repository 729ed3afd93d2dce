"""What every example has: banks with rows of their own, and a public test set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fedround.agreement import Agreement
from fedround.errors import SetupError
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe, load_recipe
from fedround.privacy.spec import NoPrivacy
from infra.settings import load_toml

SHORT_ROUNDS = 12       # up to here larger steps do better: demo.toml, where an example has one


@dataclass(frozen=True)
class Bank:
    """One bank's own rows."""

    name: str
    train: pd.DataFrame
    validation: pd.DataFrame


@dataclass(frozen=True)
class Split:
    """All rows of all banks. Only this example sees them in one place."""

    public_test: pd.DataFrame
    banks: tuple[Bank, ...]


@dataclass(frozen=True)
class Encoded:
    """The same, as the recipe sees it; banks by name."""

    train: dict[str, Examples]
    validation: dict[str, Examples]
    test: Examples


@dataclass(frozen=True)
class Story:
    """An example: a folder with recipe.py, contract.json and settings.toml, and a function that gives each bank its rows."""

    folder: Path
    split: Callable[[], Split]

    def recipe(self) -> Recipe:
        """What is learnt."""
        return load_recipe(self.folder / "recipe.py")

    def settings(self, file: str = "settings.toml") -> Agreement:
        """What the banks agreed on, apart from members and keys."""
        return load_toml(Agreement, self.folder / file).learning(self.recipe().learner)

    def settings_for(self, rounds: int) -> Agreement:
        """The settings of a campaign with this number of rounds. Some examples take larger steps in a short campaign."""
        short = rounds <= SHORT_ROUNDS and (self.folder / "demo.toml").exists()
        agreed = self.settings("demo.toml" if short else "settings.toml")
        if isinstance(agreed.privacy, NoPrivacy):
            return agreed
        return agreed.model_copy(update={"privacy": agreed.privacy.model_copy(update={"rounds": rounds})})

    def encoded(self) -> Encoded:
        """All rows as the recipe sees them."""
        encode, parts = self.recipe().encode, self.split()
        return Encoded({bank.name: encode(bank.train) for bank in parts.banks},
                       {bank.name: encode(bank.validation) for bank in parts.banks}, encode(parts.public_test))


def read_source(path: Path, sha256: str) -> pd.DataFrame:
    """The rows of a data set that comes with an example. Raises SetupError if it is not the one we know."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SetupError(f"the example's data {path.name}: {error.strerror}; restore the file from git") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SetupError(f"the example's data {path.name}: altered (SHA-256 differs); restore the file from git")
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def write(parts: Split, out: Path) -> None:
    """Write `public_test.parquet`, and for each bank `<bank>/train.parquet` and `<bank>/validation.parquet`."""
    out.mkdir(parents=True, exist_ok=True)
    parts.public_test.to_parquet(out / "public_test.parquet")
    for bank in parts.banks:
        (out / bank.name).mkdir(exist_ok=True)
        bank.train.to_parquet(out / bank.name / "train.parquet")
        bank.validation.to_parquet(out / bank.name / "validation.parquet")
