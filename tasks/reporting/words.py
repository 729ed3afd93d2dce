"""Numbers and foreign words as a reader sees them."""

from __future__ import annotations

import math

_LABELS = {
    "auc": "AUC",
    "recall_at_20_fpr": "Recall at 20 % false positives",
    "not_finite": "numbers that are not finite",
    "norm": "its norm",
    "gate": "the gate",
    "noise": "its noise",
    "sites_auc": "AUC at the sites, noised",
    "sites_recall_at_20_fpr": "Recall at 20 % false positives at the sites, noised",
    "accuracy": "Accuracy",
    "sites_accuracy": "Accuracy at the sites, noised",
}


def label(metric: str) -> str:
    """A metric's name for people."""
    return _LABELS.get(metric, metric.replace("_", " "))


def decimals(value: float | None, places: int = 3) -> str:
    """A number, or a dash for None."""
    return "–" if value is None else f"{value:.{places}f}"


def significant(value: float | None) -> str:
    """A number of any size with three digits, or a dash for None."""
    if value is None:
        return "–"
    return f"{value:#.3g}".rstrip(".") if 0.001 <= abs(value) < 1000 else f"{value:.3g}"


def amount(value: float) -> str:
    """A number that somebody chose, as he would write it."""
    return f"{value:,.10g}".replace(",", "\u202f")


def spent(epsilon: float | None) -> str:
    """Privacy spent, rounded up: never less than the truth."""
    return "–" if epsilon is None else f"{math.ceil(epsilon * 100 - 1e-9) / 100:.2f}"


def change(now: float, before: float | None) -> str:
    """How far a metric has moved, with its sign, or nothing in the first round."""
    return "" if before is None else f"{now - before:+.3f}".replace("-", "−")


def plain(text: str) -> str:
    """Foreign words on one line, without control characters or marks that turn the direction of writing."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def short(text: str, length: int) -> str:
    """At most `length` characters, the cut shown."""
    return text if len(text) <= length else text[:length - 1] + "…"
