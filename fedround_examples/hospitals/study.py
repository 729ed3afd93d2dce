"""An evening's study at four hospitals, simulated: a first table, what was not measured, ages, and a logistic regression.

    python -m fedround_examples.hospitals.study [--noise 3] [--seed 0] [--draw FILE.svg]

Every answer is noised at each hospital and paid from its ledger; the last line says what one patient has paid for all.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedround.analytics.asked import Asked
from fedround.analytics.compiled import compiled
from fedround.analytics.counting import Missing
from fedround.analytics.describing import Quantiles, Table1
from fedround.analytics.estimates import Table
from fedround.analytics.newton import fit_glm
from fedround.errors import ContractError
from fedround.privacy.accounting import Batch, epsilon_of_batches
from fedround.privacy.noise import stream
from fedround.statistics import Bounded, GlmSums, Is, Levels, Release, Statistic, release, total
from fedround_examples.hospitals.split import LABEL, hospitals
from tasks.reporting.finding import head, texts
from tasks.reporting.markdown import table

if TYPE_CHECKING:
    import pandas as pd

DELTA_DP = 1e-5
AGE, PULSE = Bounded(column="age", low=30.0, high=75.0), Bounded(column="thalach", low=80.0, high=190.0)
ILL = Levels(column=LABEL, values=(0, 1))
ANGINA = Is(column="exang", values=(1,))
MAN = Is(column="sex", values=(1,))
QUERIES: tuple[Asked, ...] = (
    Table1(numbers=(AGE, PULSE), levels=(Levels(column="sex", values=(0, 1)),), by=(ILL,)),
    Missing(of=("chol", "ca", "thal", "slope")), Quantiles(of=AGE, depth=6, by=(ILL,)))
STEPS = 4


@dataclass(frozen=True, eq=False)
class Rows:
    """A hospital's patients, as a statistic sees them."""

    frame: pd.DataFrame

    def column(self, name: str) -> npt.NDArray[Any]:
        """As `Evidence`."""
        return self.frame[name].to_numpy()

    def held_out(self, name: str) -> npt.NDArray[Any]:
        """No statistic of this study is about a model."""
        raise ContractError(f"nothing is held out of column '{name}'")

    def scores(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """No statistic of this study is about a model."""
        raise ContractError("the study has no model")


@dataclass
class Study:
    """Four hospitals that answer, and what each has charged."""

    sites: dict[str, Rows]
    secret: bytes
    charged: list[Batch]

    def ask(self, statistics: Sequence[Statistic]) -> list[Release]:
        """All hospitals' totals; one charge at each."""
        number = str(len(self.charged)).encode()
        self.charged.append(Batch(tuple(Counter(one.mechanism for one in statistics).items())))
        told = [[release(one, rows, stream(self.secret, name.encode(), number, str(place).encode()))
                 for place, one in enumerate(statistics)] for name, rows in self.sites.items()]
        return [total(of_one) for of_one in zip(*told, strict=True)]

    def tables(self, noise_std: float) -> list[Table]:
        """The whole study: one measurement, then a step of the regression after the other."""
        asked = compiled(QUERIES, len(self.sites), None, noise_std)
        found = asked.read(self.ask(asked.statistics))
        start = GlmSums(family="logistic", of=(AGE, PULSE, ANGINA, MAN), outcome=Is(column=LABEL, values=(1,)),
                        at=(0.0,) * 5, noise_std=noise_std)
        return [*found, fit_glm(start, STEPS, lambda one: self.ask([one])[0])]

    @property
    def epsilon(self) -> float:
        """What one patient has paid for all of it; infinite without noise."""
        return epsilon_of_batches(self.charged, DELTA_DP)


def study(seed: int = 0) -> Study:
    """All patients of each hospital. Deterministic in `seed`: for a demonstration; a site's own secret is nobody else's."""
    import pandas as pd

    return Study({part.name: Rows(pd.concat([part.train, part.validation, part.test], ignore_index=True))
                  for part in hospitals()}, seed.to_bytes(32, "big"), [])


def draw(noised: Table, exact: Table, path: Path) -> None:
    """The regression's coefficients with their intervals, beside those without noise."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "study", "font.family": "sans-serif", "font.size": 9}):
        figure, panels = plt.subplots(1, 4, figsize=(7.2, 2.4))
        pairs = zip(panels, noised.estimates[1:], exact.estimates[1:], strict=True)
        for axes, one, other in pairs:
            for place, (estimate, colour) in enumerate(((other, "0.45"), (one, "tab:blue"))):
                axes.errorbar([place], [estimate.value], [[estimate.value - estimate.low], [estimate.high - estimate.value]],
                              fmt="o", color=colour, capsize=3, markersize=4)
            axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
            axes.set_xticks([0, 1], ["exact", "noised"])
            axes.set_xlim(-0.6, 1.6)
            axes.set_title(one.words[0], fontsize=9)
        figure.tight_layout()
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    """Print the study as it stands in docs/analytics.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", type=Path)
    options = parser.parse_args()
    asked = study(options.seed)
    tables = asked.tables(options.noise)
    for one in tables:
        print(f"\n**{one.title}**\n\n{table(list(head(one)), [list(texts(estimate)) for estimate in one.estimates])}")
    print(f"\nOne patient has paid epsilon {asked.epsilon:.2f} at delta {DELTA_DP:g} for all of it.")
    if options.draw is not None:
        draw(tables[-1], study().tables(0.0)[-1], options.draw)


if __name__ == "__main__":
    main()
