"""Which of a few labels a row has.

N rows, B rows of a batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedround.errors import ContractError
from fedround.learning.examples import TARGET, Arrays, Shape
from fedround.learning.tasks.base import Float64, Int64, Scored, Steepness, check_numbers, one_for_each_row
from fedround.learning.tasks.binned import Binned, few
from fedround.learning.tasks.chances import LOGIT_EDGES, calibration_error, in_bins, macro_f1, of_counts, of_truth, surprise
from fedround.learning.tasks.metrics import Metrics
from fedround.learning.tasks.summed import hidden

if TYPE_CHECKING:
    import torch

MAX_CLASSES = 100_000


class Classify(Binned):
    """Which of `classes` labels a row has; labels are whole numbers from 0 up.

    Two classes: the model gives one logit for each row, the loss is the logistic one, and what is scored is the chance of
    label 1, which is true where the label is 1. More: `classes` logits and the cross-entropy; what is scored is the chance of
    the class that the model predicts, which is true where that class is the right one.
    """

    hub: ClassVar[str] = "tabular-classification"
    kind: Literal["classify"] = "classify"
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)] = 2

    # -- targets

    @property
    def labels(self) -> int | None:
        """As `Kind`."""
        return self.classes

    def check(self, targets: Arrays, recipe: str) -> None:
        """Raise ContractError unless every row has one of the labels."""
        if TARGET in targets:
            one_for_each_row(self, targets[TARGET], recipe)
        super().check(targets, recipe)

    def fits(self, targets: Arrays) -> npt.NDArray[np.bool_]:
        """As `Kind`: the labels that there are."""
        return np.asarray((targets[TARGET] >= 0) & (targets[TARGET] < self.classes))

    @property
    def expects(self) -> str:
        """As `Kind`."""
        return (f"whole numbers from 0 to {self.classes - 1} (if there are more, the recipe says so: "
                "TASK = Classify(classes=…))")

    def made_up(self, rows: int, targets: Sequence[Shape]) -> Arrays:
        """As `Kind`."""
        return {TARGET: np.arange(rows, dtype=np.int64) % self.classes}

    def strata(self, targets: Arrays) -> Int64:
        """As `Kind`: the labels."""
        return targets[TARGET]

    def groups(self, targets: Arrays) -> tuple[list[str], Int64]:
        """As `Kind`: the labels."""
        return [f"label {label}" for label in range(self.classes)], targets[TARGET]

    # -- outputs

    def outputs(self, raw: Any, rows: int) -> torch.Tensor:
        """As `Kind`: (B,) for two classes, else (B, C)."""
        if self.classes == 2 and raw.numel() == rows:
            return raw.reshape(rows)  # type: ignore[no-any-return]
        if self.classes > 2 and raw.shape == (rows, self.classes):
            return raw  # type: ignore[no-any-return]
        wanted = "one logit" if self.classes == 2 else f"{self.classes} logits"
        raise ContractError(f"for {self.classes} classes the recipe's model must give {wanted} for each row, it gave outputs "
                            f"of shape {tuple(raw.shape)} for {rows} rows; change the model, or TASK = Classify(classes=…)")

    def losses(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """As `Kind`: the logistic loss, or the cross-entropy."""
        from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

        labels_B = targets[TARGET]
        if self.classes == 2:
            return binary_cross_entropy_with_logits(outputs, labels_B.to(outputs.dtype), reduction="none")
        # `cross_entropy` gives the same bits; mapped over rows or sites, torch takes it apart in Python.
        chance_B1: torch.Tensor = log_softmax(outputs, 1).gather(1, labels_B.unsqueeze(1))
        return -chance_B1.squeeze(1)

    @property
    def outputs_each(self) -> int:
        """As `Kind`: one for two classes, else one for each."""
        return 1 if self.classes == 2 else self.classes

    def slopes(self, output_NK: Float64, targets: Arrays) -> tuple[Float64, Float64]:
        """As `Kind`: p - y and p (1 - p), p the chance of a class."""
        label_N1 = targets[TARGET][:, None]
        if self.classes == 2:
            chance_N1 = 0.5 + 0.5 * np.tanh(output_NK / 2)
            return chance_N1 - label_N1, chance_N1 * (1 - chance_N1)
        power_NK = np.exp(output_NK - output_NK.max(axis=1, keepdims=True))
        chance_NK = power_NK / power_NK.sum(axis=1, keepdims=True)
        return chance_NK - (label_N1 == np.arange(self.classes)), chance_NK * (1 - chance_NK)

    @property
    def steepness(self) -> Steepness:
        """As `Kind`. No row is longer.

        Two classes: g² + 8 h² <= 1. (For y = 0 it is p² (1 + 8 (1-p)²), whose derivative 2p (1 + 8 (1-p)(1-2p)) is not below
        0: (1-p)(1-2p) is nowhere below -1/8. y = 1 mirrors it.)

        More: |g|² + 2 |h|² <= 2. (f(b) = b² (1 + 2 (1-b)²) is convex, because f'' = 6 - 24 b + 24 b² is not below 0, and
        f(0) = 0: so the classes other than the row's add up to f(1-p_y) at most, and the row's own is f(1-p_y), too. f grows,
        and f(1) = 1.)
        """
        return Steepness(math.sqrt(8), 1.0) if self.classes == 2 else Steepness(math.sqrt(2), math.sqrt(2))

    def scored(self, outputs: Any, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What is scored, in [0, 1], as "score", and whether it is true, 0 or 1, as "truth"; (B,) each.

        Of more than two classes also the "label", the one that is "named", and the chance of the label as "chance".
        """
        import torch

        labels_B = targets[TARGET]
        if self.classes == 2:
            return {"score": torch.sigmoid(outputs.double()), "truth": labels_B}
        chance_BC = torch.softmax(outputs.double(), dim=1)
        score_B, named_B = chance_BC.max(dim=1)
        return {"score": score_B, "truth": (named_B == labels_B).long(), "label": labels_B, "named": named_B,
                "chance": chance_BC.gather(1, labels_B[:, None])[:, 0]}

    @property
    def scored_shapes(self) -> tuple[Shape, ...]:
        """As `Kind`."""
        more = () if self.classes == 2 else (Shape("label", "int64", ()), Shape("named", "int64", ()),
                                             Shape("chance", "float64", ()))
        return Shape("score", "float64", ()), Shape("truth", "int64", ()), *more

    def answers(self, outputs: Any) -> torch.Tensor:
        """As `Kind`: the chance of label 1, (B,), or of every label, (B, C)."""
        import torch

        return torch.sigmoid(outputs) if self.classes == 2 else torch.softmax(outputs, dim=1)

    @property
    def gives(self) -> str:
        """As `Kind`."""
        return "the chance of label 1" if self.classes == 2 else f"the chance of each of {self.classes} labels"

    def columns(self, width: int) -> list[str]:
        """As `Kind`."""
        return ["chance"] if self.classes == 2 else [f"chance_{label}" for label in range(width)]

    def scored_answers(self, answers: npt.NDArray[np.float32], targets: Arrays) -> Scored:
        """As `Kind`."""
        labels_N, long = targets[TARGET], answers.astype(np.float64)
        if self.classes == 2:
            return Scored({"score": long, "truth": labels_N})
        named_N = long.argmax(axis=1)
        return Scored({"score": long.max(axis=1), "truth": (named_N == labels_N).astype(np.int64), "label": labels_N,
                       "named": named_N, "chance": long[np.arange(len(long)), labels_N]})

    # -- what may be measured

    @property
    def summed(self) -> tuple[str, ...]:
        """As `Kind`: where it is one of several heads."""
        bins = range(len(LOGIT_EDGES) + 1) if self.classes == 2 else ()
        return "rows", "missed", "wrong", *(f"label_{label}.bin_{place}" for label in (0, 1) for place in bins)

    @property
    def longest(self) -> float:
        """As `Kind`."""
        return math.sqrt(4 if self.classes == 2 else 3)

    def summands(self, scored: Scored) -> Float64:
        """As `Kind`: how far the chance of label 1 is from the truth, whether the row is predicted wrongly, and in which bin
        of which label it is (`in_bins`); of more labels twice the second.
        """
        score_N, truth_N = scored["score"], scored["truth"]
        if self.classes > 2:
            return np.stack([np.ones(len(score_N)), truth_N == 0, truth_N == 0], axis=1).astype(np.float64)
        wrong_N = (score_N > 0.5) != truth_N
        told_N3 = np.stack([np.ones(len(score_N)), np.abs(truth_N - score_N), wrong_N], axis=1).astype(np.float64)
        return np.concatenate([told_N3, in_bins(score_N, truth_N)], axis=1)

    def of_sums(self, sum_C: Float64, noise_std: float) -> Metrics | None:
        """As `Kind`: the accuracy; of two classes also what follows from counts by bin, if the noise does not hide it."""
        if hidden(sum_C, noise_std):
            return None
        negatives_B, positives_B = np.split(sum_C[3:], 2)
        found = None if self.classes > 2 else of_counts(positives_B[::-1], negatives_B[::-1], noise_std)
        return Metrics.model_validate({**(found or {}), "accuracy": float(np.clip(1 - sum_C[2] / sum_C[0], 0, 1)),
                                       "rows": round(float(sum_C[0]))})

    def missed(self, table_TB: Float64, middle_B: Float64) -> tuple[float, float]:
        """As `Binned`; with more than two labels, the rows that are predicted wrongly."""
        wrong_B, right_B = table_TB
        missed = wrong_B.sum() if self.classes > 2 else right_B @ (1 - middle_B) + wrong_B @ middle_B
        return float(missed), float(table_TB.sum())

    # -- how good

    def _exact(self, scored: Scored) -> Metrics:
        """Exact metrics. Raises ContractError without rows, and for two classes unless there are rows of both labels.

        Of more classes the macro-F1 is the mean over those that a row has or that the model names, and the calibration is
        that of the chance of the named class.
        """
        from sklearn.metrics import auc, average_precision_score, roc_curve

        chance_N, truth_N = scored["score"], scored["truth"]
        if self.classes > 2:
            if len(scored) == 0:
                raise ContractError("metrics need rows; hold out some")
            return Metrics(accuracy=float(truth_N.mean()), rows=len(scored),
                           macro_f1=macro_f1(scored["label"], scored["named"]),
                           log_loss=float(surprise(scored["chance"]).mean()),
                           calibration_error=calibration_error(chance_N, truth_N))
        if len(np.unique(truth_N)) != 2:
            raise ContractError("metrics need rows of both labels; hold out more rows")
        fpr, tpr, _ = roc_curve(truth_N, chance_N, drop_intermediate=False)
        # A sum of shares may be 1.0000000000000002: of nine rows that are ranked perfectly, say.
        return Metrics(auc=min(1.0, float(auc(fpr, tpr))), recall_at_20_fpr=min(1.0, float(np.interp(0.2, fpr, tpr))),
                       pr_auc=min(1.0, float(average_precision_score(truth_N, chance_N))),
                       accuracy=float(((chance_N > 0.5) == truth_N).mean()), rows=len(scored),
                       log_loss=float(surprise(of_truth(chance_N, truth_N)).mean()),
                       calibration_error=calibration_error(chance_N, truth_N))

    @property
    def headline(self) -> str:
        """The first of `metrics`."""
        return "auc" if self.classes == 2 else "accuracy"

    def worth(self, scored: Scored) -> float:
        """The `headline` of `metrics`, faster: for where many models are compared. Raises ContractError as `metrics` does."""
        check_numbers(scored)
        chance_N, truth_N = scored["score"], scored["truth"]
        if self.classes > 2:
            if len(scored) == 0:
                raise ContractError("metrics need rows; hold out some")
            return float(truth_N.mean())
        below, above = np.sort(chance_N[truth_N == 0]), chance_N[truth_N == 1]
        if not len(below) or not len(above):
            raise ContractError("metrics need rows of both labels; hold out more rows")
        pairs = below.searchsorted(above, "left").sum() + below.searchsorted(above, "right").sum()
        return float(pairs / (2 * len(below) * len(above)))

    def grain(self, targets: Arrays) -> float:
        """As `Kind`: of two classes two rows, of more one."""
        truth_N = targets[TARGET]
        ones = int(truth_N.sum())
        return 1 / max(1, len(truth_N)) if self.classes > 2 else 1 / max(1, ones * (len(truth_N) - ones))

    def of_counts(self, table_TB: Float64, noise_std: float) -> Metrics | None:
        """As `Binned`; the result is cut to [0, 1].

        Expect a standard error of about 0.3 · (noise of a label's total) / (positives), plus what the width of a bin hides.
        Log loss and calibration are not told: they ask where in a bin the scores lie, and noise makes every model look less
        calibrated. Of more than two classes the totals alone count: the accuracy is off by about (noise of a total) / (rows).
        """
        negatives_B, positives_B = (counts_B[::-1] for counts_B in table_TB)        # from the highest score down
        rows = float(table_TB.sum())
        if self.classes == 2:
            found = of_counts(positives_B, negatives_B, noise_std)
            return None if found is None else Metrics.model_validate({**found, "rows": round(rows)})
        if few(rows, table_TB, noise_std):
            return None
        return Metrics(accuracy=min(max(float(positives_B.sum()) / rows, 0.0), 1.0), rows=round(rows))
