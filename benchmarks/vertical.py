"""Two members with the same customers: what labels told by a coin and scores are worth, on the banks' columns split in two.

    python -m benchmarks.vertical [--seeds 5] [--split]

The bank has the limit and the bills, and the label; the shop has the status and the payments. A quarter of the customers is
held out. "in one place": one trees' model of all columns, on the same labels told by a coin, as nobody may have it.

--split: split learning at a cut layer instead, and what its gradients tell of labels; and columns told in a few bins each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import QuantileTransformer

from benchmarks.split_learning import CUT, Half, by_direction, by_norm, top_step
from fedround.privacy.noise import stream
from fedround.vertical import box, intersection
from fedround.vertical.labels import UNTOLD, told
from fedround.vertical.learners import chances, scores, stacked
from fedround.vertical.spec import Learner
from fedround_examples import banks

ROWS = Path(banks.__file__).parent / "credit_default.parquet"
OF_PERSONS = ["SEX", "AGE", "EDUCATION", "MARRIAGE"]
EPSILONS = (1.0, 2.0, 4.0)
LEVELS = 64

Floats = npt.NDArray[np.float64]


class Split:
    """The customers, whom both have, and who is held out."""

    def __init__(self, seed: int):
        frame = pd.read_parquet(ROWS).astype(float)
        self.seed, self.label = seed, frame.pop("DEFAULT").to_numpy().astype(np.int8)
        frame = frame.drop(columns=OF_PERSONS)
        self.bank = frame[[name for name in frame if name == "LIMIT_BAL" or name.startswith("BILL")]].to_numpy()
        self.shop = frame[[name for name in frame if name.startswith("PAY")]].to_numpy()
        train, self.held = train_test_split(np.arange(len(frame)), test_size=0.25, random_state=seed, stratify=self.label)
        self.train = np.sort(train)
        self.known = np.full(len(frame), UNTOLD, dtype=np.int8)
        self.known[self.train] = self.label[self.train]

    def coins(self, epsilon: float) -> npt.NDArray[np.int8]:
        """The labels to train on, as they are told."""
        return told(self.known, epsilon, stream(bytes([self.seed]) * 32, b"labels", f"{epsilon:g}".encode()))

    def auc(self, chance_N: Floats) -> float:
        """Of the held-out customers."""
        return float(roc_auc_score(self.label[self.held], chance_N[self.held]))

    def one_place(self, column_ND: Floats, label_N: npt.NDArray[np.int8]) -> float:
        """Of one model of these columns."""
        model = HistGradientBoostingClassifier(max_iter=100, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=40,
                                               early_stopping=False, random_state=self.seed)
        model.fit(column_ND[self.train], label_N[self.train])
        return self.auc(model.predict_proba(column_ND)[:, 1])

    def together(self, coin_N: npt.NDArray[np.int8], learner: Learner = "trees", levels: int = LEVELS,
                 order: npt.NDArray[np.int64] | None = None) -> float:
        """Of the two together. order: the shop's customers, if they are not in the bank's order."""
        shop_ND = self.shop if order is None else self.shop[order]
        score_N = scores(shop_ND, coin_N, learner, levels, self.seed)
        return self.auc(chances(stacked(self.bank, score_N, self.known, self.seed), self.bank, score_N))


def measure(seeds: int) -> dict[str, list[float]]:
    """Every number, by its name, for every seed."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        split = Split(seed)
        both = np.column_stack([split.bank, split.shop])
        wrong = np.random.default_rng(seed).permutation(len(both))
        rows: dict[str, Callable[[], float]] = {
            "bank alone": lambda s=split: s.one_place(s.bank, s.label),
            "shop alone, with the labels": lambda s=split: s.one_place(s.shop, s.label),
            "in one place, with the labels": lambda s=split, b=both: s.one_place(b, s.label),
            **{f"in one place, label epsilon {e:g}": lambda s=split, b=both, e=e: s.one_place(b, s.coins(e))
               for e in EPSILONS},
            **{f"together, label epsilon {e:g}": lambda s=split, e=e: s.together(s.coins(e)) for e in EPSILONS},
            "together, epsilon 2, a network": lambda s=split: s.together(s.coins(2), "network"),
            "together, epsilon 2, 8 levels": lambda s=split: s.together(s.coins(2), levels=8),
            "together, epsilon 2, 2 levels": lambda s=split: s.together(s.coins(2), levels=2),
            "shuffled, label epsilon 4": lambda s=split, w=wrong: s.together(s.coins(4), order=w)}
        for name, work in rows.items():
            found.setdefault(name, []).append(work())
            print(f"seed {seed}  {name:36} {found[name][-1]:.4f}", flush=True)
    return found


def split_learning(split: Split, noise: float) -> tuple[float, float, float]:
    """AUC of held-out customers after twelve passes; and how well the shop reads labels in what comes back over the cut: of
    the last pass's batches by length, and of all customers by direction, added up over all passes. noise: on each number of a
    gradient, in mean lengths.
    """
    own, other = (2 * QuantileTransformer(n_quantiles=200, random_state=0).fit(one[split.train]).transform(one) - 1
                  for one in (split.bank, split.shop))
    bottom, top = Half.new(other.shape[1], CUT, split.seed), Half.new(own.shape[1] + CUT, 1, split.seed + 1)
    generator, likely_N = np.random.default_rng(split.seed), np.zeros(len(split.label))
    for _ in range(12):
        order, read = generator.permutation(split.train), []
        for start in range(0, len(order), 512):
            rows = order[start:start + 512]
            top, back = top_step(top, own[rows], bottom.forward(other[rows]), split.label[rows], 3e-3)
            back = back + generator.normal(size=back.shape) * noise * np.linalg.norm(back, axis=1).mean()
            bottom, _ = bottom.step(other[rows], back, 3e-3)
            read.append(roc_auc_score(split.label[rows], by_norm(back)))
            likely_N[rows] += by_direction(back, int(np.flatnonzero(split.label[rows] == 1)[0]))
    chance_N = top.forward(np.column_stack([own, bottom.forward(other)]))[:, 0]
    by_all = roc_auc_score(split.label[split.train], likely_N[split.train])
    return split.auc(chance_N), float(np.mean(read)), float(by_all)


def in_bins(split: Split, bins: int) -> float:
    """AUC of held-out customers if the shop tells the bank in which of so many bins each of its columns lies."""
    edges = np.quantile(split.shop[split.train], np.arange(1, bins) / bins, axis=0)
    told_ND = np.column_stack([np.searchsorted(edges[:, place], split.shop[:, place], side="right")
                               for place in range(split.shop.shape[1])])
    return split.one_place(np.column_stack([split.bank, told_ND]), split.label)


def measure_split(seeds: int) -> None:
    """Print split learning's numbers, and those of columns in bins."""
    for noise in (0.0, 0.5, 2.0, 8.0):
        found = np.array([split_learning(Split(seed), noise) for seed in range(seeds)])
        print(f"split learning, noise {noise:g}: AUC, read by length, read by direction:", found.mean(axis=0).round(4),
              found.std(axis=0, ddof=1).round(4), flush=True)
    for bins in (2, 4, 16):
        aucs = [in_bins(Split(seed), bins) for seed in range(seeds)]
        print(f"each column in {bins} bins: AUC {mean(aucs):.4f} ± {stdev(aucs):.4f}", flush=True)


def intersect(count: int = 20_000) -> tuple[float, int, int]:
    """CPU seconds of one side for so many ids at both, half of them common; bytes of a set; how many were found."""
    link = bytes(32)
    ours, theirs = (box.key_of(bytes([n]) * 32, link, "exponent") for n in (1, 2))
    began = time.process_time()
    mine, order = intersection.blinded([f"id{n}" for n in range(count)], ours, link, "a")
    at_peer = intersection.raised([intersection.point(f"id{2 * n}", link) for n in range(count)], theirs, "b")
    halfway = time.process_time()
    back = intersection.raised(mine, theirs, "a")
    other = time.process_time()
    found, _ = intersection.common(back, order, intersection.raised(at_peer, ours, "b"))
    hashed = halfway - began - (other - halfway)        # half of that was the peer's, raising took as long as `back`
    return hashed / 2 + (other - halfway) + time.process_time() - other, len(b"".join(mine)), len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--split", action="store_true")
    if parser.parse_args().split:
        measure_split(parser.parse_args().seeds)
        return
    seconds, size, common = intersect()
    print(f"intersection of 20,000 and 20,000 ids: {common} found, {seconds:.1f} CPU s a side, {size:,} bytes a set")
    found = measure(parser.parse_args().seeds)
    print("\n| | AUC, mean of the seeds | standard deviation |\n|---|---|---|")
    for name, values in found.items():
        print(f"| {name} | {mean(values):.4f} | {stdev(values) if len(values) > 1 else 0:.4f} |")


if __name__ == "__main__":
    main()
