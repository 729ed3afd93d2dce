"""What are synthetic rows of the twelve banks good for? Trained on synthetic rows, tested on real ones of nobody's bank.

    python -m benchmarks.synthetic [--seeds 5]

Every bank noises its tables; rows are drawn from all banks' tables. As far off: the total variation between the tables of the
banks' rows and of the tree (0: the same, 1: nothing in common), of pairs that the tree joins, beside what the noise alone
predicts; and of all pairs, among them those that it knows through others.
"""

from __future__ import annotations

import argparse
import itertools
import math
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from fedround.learning.columns import Numeric, Truth
from fedround.privacy.accounting import epsilon
from fedround.privacy.noise import stream
from fedround.statistics import release, total
from fedround.synthetic.blueprint import Blueprint
from fedround.synthetic.model import fitted
from fedround_examples.banks.split import split

TARGET, ROWS, DELTA = "DEFAULT", 20_000, 1e-5
STATUS = ("PAY_0", "PAY_2", "PAY_3")
COLUMNS = (
    Numeric("LIMIT_BAL", low=10_000, high=1e6, scale="log"), Numeric("AGE", low=18, high=90),
    *(Numeric(name, low=-2, high=3) for name in STATUS), Numeric("BILL_AMT1", low=0, high=1e6, scale="log"),
    Numeric("PAY_AMT1", low=0, high=1e6, scale="log"), Numeric("PAY_AMT2", low=0, high=1e6, scale="log"),
    Truth(TARGET, missing=False))
Pairs = Literal["all", "chain", "star"] | tuple[tuple[str, str], ...]
NOBODY: Pairs = ()


class Bank:
    """Rows at a site."""

    def __init__(self, rows: pd.DataFrame):
        self.rows = rows

    def column(self, name: str) -> Any:
        """As `Evidence`."""
        return self.rows[name].to_numpy()


def blueprint(pairs: Pairs) -> Blueprint:
    """Nine columns of the banks' 24; what is learnt last."""
    return Blueprint(columns=COLUMNS, cells=6, whole=("AGE", *STATUS), pairs=pairs)


def auc(train: pd.DataFrame, test: pd.DataFrame) -> float:
    """Of boosted trees, which know how columns act together."""
    model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, random_state=0)
    features = [one.column for one in COLUMNS[:-1]]
    model.fit(train[features].astype(float), train[TARGET].astype(int))
    return float(roc_auc_score(test[TARGET], model.predict_proba(test[features].astype(float))[:, 1]))


def measured(pairs: Pairs, noise_std: float, seeds: int, banks: list[pd.DataFrame],
             test: pd.DataFrame) -> list[str]:
    """A line of the table."""
    plan, everybody = blueprint(pairs), blueprint("all")
    exact = {pair: one.cells(Bank(pd.concat(banks))) for pair, one in zip(
        everybody.edges, everybody.statistics(0.0)[len(COLUMNS):], strict=True)}
    records, aucs, joined, predicted, all_pairs = sum(map(len, banks)), [], [], [], []
    for seed in range(seeds):
        told = [[release(one, Bank(rows), stream(bytes(32), b"synthetic", f"{seed} {place} {at}".encode()))
                 for at, one in enumerate(plan.statistics(noise_std))] for place, rows in enumerate(banks)]
        totals = [total(of_one) for of_one in zip(*told, strict=True)]
        tree = fitted(plan, totals)
        draw = np.random.default_rng(seed)
        cells = tree.sample(ROWS, [False] * len(COLUMNS), draw)
        aucs.append(auc(plan.rows(cells, draw).dropna(subset=[TARGET]), test))
        joined += [np.abs(share - exact[pair] / records).sum() / 2 for pair, share in tree.pairs.items()]
        each = totals[0].noise_std * math.sqrt(2 / math.pi) / records / 2
        predicted += [share.size * each for share in tree.pairs.values()]
        for one, other in itertools.combinations(range(len(COLUMNS)), 2):
            there = np.zeros(exact[one, other].shape)
            np.add.at(there, (cells[:, one], cells[:, other]), 1 / ROWS)
            all_pairs.append(np.abs(there - exact[one, other] / records).sum() / 2)
    cost = epsilon([one.mechanism for one in plan.statistics(noise_std)], DELTA) if noise_std else math.inf
    return [str(len(plan.statistics(0.0))), f"{noise_std:g}", f"{cost:.2f}", f"{np.mean(aucs):.3f} ± {np.std(aucs):.3f}",
            f"{np.mean(joined):.3f}" if joined else "", f"{np.mean(predicted):.3f}" if joined else "",
            f"{np.mean(all_pairs):.3f}"]


def main() -> None:
    """The table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds, parts = parser.parse_args().seeds, split()
    banks = [bank.train for bank in parts.banks]
    print(f"real rows: {auc(pd.concat(banks), parts.public_test):.3f}")
    print("| pairs | tables | noise | epsilon | AUC | joined pairs off by | by noise alone | all pairs off by |")
    print("|---|---|---|---|---|---|---|---|")
    for name, pairs in (("none", NOBODY), ("star", "star"), ("chain", "chain"), ("all", "all")):
        for noise_std in (0.0, 5.0, 20.0):
            print("|", " | ".join([name, *measured(pairs, noise_std, seeds, banks, parts.public_test)]), "|", flush=True)


if __name__ == "__main__":
    main()
