"""Real data for every kind of task: rows, model, sites, and what a library reaches with all rows in one place.

All data ship with a library or with the survival example; nothing is downloaded. N rows, L places of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Classify, Count, NextToken, Regress, Several, Survive, Task
from fedround.learning.tasks.censored import concordance

DATA = Path(__file__).parents[1] / "fedround_examples" / "survival"
LENGTH = 32
LETTERS = "\n !\"'(),-./0123456789:=_abcdefghijklmnopqrstuvwxyz"

Oracle = Callable[[Examples, Examples], float]
"""From training and test rows to the headline that a library's central model reaches."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    what: str
    task: Task
    model: Callable[[], nn.Module]
    rows: Callable[[], Examples]
    sites: int
    rounds: int
    plain: LocalTraining
    private: LocalTraining
    oracle: Oracle | None = None
    clip_norm: float = 1.0

    @property
    def recipe(self) -> Recipe:
        """What is learnt; its rows come encoded."""
        return Recipe(self.what.split(":", maxsplit=1)[0], "0" * 64, self.model, lambda rows: rows, self.task)


def between(frame: pd.DataFrame, bounds: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """Columns from -1 at the lower to 1 at the upper public bound, (N, F); a missing value is in the middle."""
    scaled = [((frame[name].astype(float) - low) / (high - low)).clip(0, 1).fillna(0.5) * 2 - 1
              for name, (low, high) in bounds.items()]
    return np.stack(scaled, axis=1).astype(np.float32)


# -- rows --------------------------------------------------------------------------------------------------------------


def diabetes() -> Examples:
    from sklearn.datasets import load_diabetes

    found = load_diabetes(as_frame=True, scaled=False)
    bounds = {"age": (18, 80), "sex": (1, 2), "bmi": (15, 45), "bp": (60, 140), "s1": (90, 310), "s2": (40, 250),
              "s3": (20, 100), "s4": (2, 9), "s5": (3, 6.5), "s6": (55, 130)}
    return Examples(between(found.data, bounds), found.target.to_numpy(np.float32))


def _randhie() -> tuple[np.ndarray, np.ndarray]:
    import statsmodels.api as sm

    frame = sm.datasets.randhie.load_pandas().data
    bounds = {"lncoins": (0, 5), "idp": (0, 1), "lpi": (0, 8), "fmde": (0, 9), "physlm": (0, 1), "disea": (0, 60),
              "hlthg": (0, 1), "hlthf": (0, 1), "hlthp": (0, 1)}
    return between(frame, bounds), frame["mdvis"].to_numpy(np.float32)


def visits() -> Examples:
    return Examples(*_randhie())


def visits_and_any() -> Examples:
    x, visits_N = _randhie()
    return Examples(x, {"visits": visits_N, "any": (visits_N > 0).astype(np.int64)})


def flchain() -> Examples:
    frame = pd.read_parquet(DATA / "flchain.parquet")
    logs = frame.assign(sex=(frame["sex"] == "M").astype(float), **{
        name: np.log(frame[name].astype(float)) for name in ("kappa", "lambda", "creatinine")})
    bounds = {"age": (50, 100), "sex": (0, 1), "kappa": (-2, 3), "lambda": (-2, 3), "creatinine": (-1, 2), "mgus": (0, 1)}
    return Examples(between(logs, bounds), {"time": frame["days"].to_numpy(np.float32),
                                            "event": frame["died"].to_numpy(np.int64)})


def rossi() -> Examples:
    frame = pd.read_csv(DATA / "rossi.csv")
    bounds = {"fin": (0, 1), "age": (16, 45), "race": (0, 1), "wexp": (0, 1), "mar": (0, 1), "paro": (0, 1), "prio": (0, 18)}
    return Examples(between(frame, bounds), {"time": frame["week"].to_numpy(np.float32),
                                             "event": frame["arrest"].to_numpy(np.int64)})


def gbsg2() -> Examples:
    frame = pd.read_csv(DATA / "gbsg2.csv")
    told = frame.assign(horTh=frame["horTh"] == "yes", menostat=frame["menostat"] == "Post",
                        tgrade=frame["tgrade"].str.len(), **{
                            name: np.log1p(frame[name].astype(float)) for name in ("pnodes", "progrec", "estrec")})
    bounds = {"horTh": (0, 1), "age": (20, 80), "menostat": (0, 1), "tsize": (0, 80), "tgrade": (1, 3), "pnodes": (0.5, 4),
              "progrec": (0, 8), "estrec": (0, 7)}
    return Examples(between(told, bounds), {"time": frame["time"].to_numpy(np.float32),
                                            "event": frame["cens"].to_numpy(np.int64)})


def text() -> Examples:
    """The descriptions of scikit-learn's data sets, in rows of 32 characters."""
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "descr"
    place = {letter: number for number, letter in enumerate(LETTERS)}
    tokens = np.array([place.get(letter, 1) for path in sorted(folder.glob("*.rst")) for letter in path.read_text().lower()])
    count = (len(tokens) - 1) // LENGTH
    return Examples(tokens[:count * LENGTH].reshape(-1, LENGTH), tokens[1:count * LENGTH + 1].reshape(-1, LENGTH))


def digits() -> Examples:
    from sklearn.datasets import load_digits

    found = load_digits()
    return Examples(found.images[:, None].astype(np.uint8), found.target.astype(np.int64))


def tumours() -> Examples:
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer(as_frame=True)
    tops = np.array([30, 40, 190, 2600, 0.17, 0.35, 0.45, 0.2, 0.3, 0.1, 3, 5, 22, 550, 0.03, 0.14, 0.4, 0.06, 0.08, 0.03,
                     37, 50, 260, 4300, 0.23, 1.1, 1.3, 0.3, 0.7, 0.21])
    x = np.clip(found.data.to_numpy() / tops, 0, 1) * 2 - 1
    return Examples(x.astype(np.float32), found.target.to_numpy(np.int64))


# -- models ------------------------------------------------------------------------------------------------------------


class NextLetter(nn.Module):
    """Two causal convolutions over embedded letters: each place sees itself and the eight before it."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), 16)
        self.near, self.far = nn.Conv1d(16, 32, 3), nn.Conv1d(32, 32, 3, dilation=3)
        self.last = nn.Linear(32, len(LETTERS))

    def forward(self, x):
        """Of each row."""
        found = self.letters(x).transpose(1, 2)
        found = nn.functional.relu(self.near(nn.functional.pad(found, (2, 0))))
        found = nn.functional.relu(self.far(nn.functional.pad(found, (6, 0))))
        return self.last(found.transpose(1, 2))


class Hazards(nn.Module):
    """One risk for each row, and one level for each interval: proportional odds."""

    def __init__(self, features: int, intervals: int) -> None:
        super().__init__()
        self.risk, self.level = nn.Linear(features, 1, bias=False), nn.Parameter(torch.full((intervals,), -3.0))
        nn.init.zeros_(self.risk.weight)

    def forward(self, x):
        """Of each row."""
        return self.risk(x) + self.level


class Images(nn.Module):
    """A convolution over (1, 8, 8) pixels from 0 to 16."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                                    nn.Linear(16 * 16, 10))

    def forward(self, x):
        """Of each row."""
        return self.layers(x.float() / 16)


class TwoHeads(nn.Module):
    """One hidden layer for both."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(9, 16), nn.Tanh())
        self.visits, self.any = nn.Linear(16, 1), nn.Linear(16, 1)

    def forward(self, x):
        """Of each row."""
        shared = self.shared(x)
        return {"visits": self.visits(shared), "any": self.any(shared)}


# -- what a library reaches --------------------------------------------------------------------------------------------


def ridge(train: Examples, test: Examples) -> float:
    from sklearn.linear_model import RidgeCV

    return float(RidgeCV(np.logspace(-3, 3, 13)).fit(train.inputs["x"], train.targets["y"]).score(
        test.inputs["x"], test.targets["y"]))


def poisson(train: Examples, test: Examples) -> float:
    from sklearn.linear_model import PoissonRegressor
    from sklearn.metrics import d2_tweedie_score

    fitted = PoissonRegressor(alpha=1e-4, max_iter=1000).fit(train.inputs["x"], train.targets["y"])
    return float(d2_tweedie_score(test.targets["y"], fitted.predict(test.inputs["x"]), power=1))


def cox(train: Examples, test: Examples) -> float:
    import statsmodels.api as sm

    fitted = sm.PHReg(train.targets["time"].astype(float) + 0.5, train.inputs["x"].astype(float),
                      status=train.targets["event"]).fit()
    return concordance(test.inputs["x"] @ fitted.params, test.targets["time"].astype(float), test.targets["event"])


def logistic(train: Examples, test: Examples) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    fitted = LogisticRegression(max_iter=5000).fit(train.inputs["x"], train.targets["y"])
    return float(roc_auc_score(test.targets["y"], fitted.decision_function(test.inputs["x"])))


def _linear(features: int, outputs: int = 1) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(features, outputs)


def _small(features: int, outputs: int = 1) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, outputs))


def steps(local_steps: int, batch_size: int, learning_rate: float, momentum: float = 0.0) -> LocalTraining:
    return LocalTraining(local_steps=local_steps, batch_size=batch_size, learning_rate=learning_rate, momentum=momentum)


FULL = 1 << 16
YEARS = tuple(365.0 * year for year in range(1, 13))
CASES = {
    "diabetes": Case("diabetes: progression after a year, R²", Regress(bounds=(0, 400)), _linear(10), diabetes, 3, 30,
                     steps(10, 32, 0.1), steps(1, FULL, 0.3), ridge),
    "visits": Case("RAND HIE: visits to a doctor, D²", Count(max=60), _small(9), visits, 5, 30, steps(10, 64, 0.2),
                   steps(2, 1024, 1.0), poisson, clip_norm=5.0),
    "two heads": Case("RAND HIE: visits, with \"any visit\" as a second head, D²", Several(
        heads={"visits": Count(max=60), "any": Classify()}, main="visits"), TwoHeads, visits_and_any, 5, 30,
        steps(10, 64, 0.4), steps(2, 1024, 2.0), clip_norm=3.0),
    "flchain": Case("flchain: years to death, concordance", Survive(edges=YEARS), lambda: Hazards(6, len(YEARS)), flchain,
                    5, 30, steps(10, 64, 0.3), steps(2, 1024, 0.5), cox),
    "rossi": Case("rossi: weeks to arrest, concordance", Survive(edges=(13, 26, 39, 52)), lambda: Hazards(7, 4), rossi, 3, 30,
                  steps(10, 32, 0.1), steps(1, FULL, 0.5), cox),
    "gbsg2": Case("gbsg2: years to relapse of breast cancer, concordance", Survive(edges=YEARS[:6]), lambda: Hazards(8, 6),
                  gbsg2, 3, 30, steps(20, 64, 1.0), steps(2, FULL, 2.0), cox, clip_norm=0.5),
    "tumours": Case("breast cancer: benign or not, AUC", Classify(), _linear(30), tumours, 5, 30, steps(10, 32, 0.1),
                    steps(1, FULL, 1.0), logistic),
    "digits": Case("digits as (1, 8, 8) images, accuracy", Classify(classes=10), Images, digits, 3, 20, steps(20, 32, 0.1),
                   steps(1, FULL, 2.0)),
    "text": Case("next letter of a manual, accuracy", NextToken(vocabulary=len(LETTERS)), NextLetter, text, 3, 10,
                 steps(20, 32, 1.0, 0.5), steps(1, 256, 4.0)),
}
