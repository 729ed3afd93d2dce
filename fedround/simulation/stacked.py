"""Many sites trained at once: their models are stacked, and one call computes a step of all of them (`torch.vmap`).

The same training as `fedround.learning.train`, in float32 throughout. Noise is added to float sums, not counted in whole
cells, and drawn for all sites together: the same law of batches and noise, other draws. Nothing that is simulated protects
anybody.

Legend: S sites, B rows of a batch, D coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedround.codec import Schema, Tensors, coordinates, flatten, schema_of
from fedround.learning.batch import called, tensors_of
from fedround.learning.descent import Descent, scale
from fedround.learning.examples import Examples
from fedround.learning.furnished import check_fits
from fedround.learning.recipe import Recipe, check_model
from fedround.learning.spec import LocalTraining
from fedround.learning.train import asked_of
from fedround.privacy.spec import DpSgd, GaussianUpdate, NoMechanism, TrainingMechanism
from fedround.simulation.jobs import Batches, Done, Float32, Job, Learnt, OneGenerator, Pool, StackDraws
from fedround.simulation.sums import clipped_sum, plain_sum

if TYPE_CHECKING:
    import torch

    from fedround.simulation.sums import Parts, Rows

MOST = 1024
"""Sites that are stacked at once; more gain nothing."""

STACK_BYTES = 256 << 20
"""What a stack may take, roughly."""

ALONE = 1 << 16
"""A single model with more coordinates already keeps a processor busy: three sites' convolutions took a third longer when
stacked."""


class Stacked:
    """A recipe's model, ready to be trained at many sites at once."""

    def __init__(self, recipe: Recipe, training: LocalTraining, sample: Examples):
        """sample: a row at least, to look at what the model does with it."""
        from fedround.learning.tape import Tape

        self._recipe, self._training, self._model = recipe, training, recipe.build_model()
        self._sample = sample.at([0])               # a copy: the model may write into it
        check_model(self._model, recipe.name)
        self._objective = recipe.objective(self._model, training)
        self._tape = Tape(lambda weights, row: self._objective.losses(weights, row.at(None)).sum())
        self._schema = schema_of({name: parameter.detach().numpy() for name, parameter in self._model.named_parameters()})
        self._size = coordinates(self._schema)

    def why_not(self, mechanism: TrainingMechanism) -> str | None:
        """Why sites must be trained one by one; None if they need not be."""
        if not isinstance(mechanism, NoMechanism | GaussianUpdate | DpSgd):
            return f"the mechanism '{mechanism.kind}' takes rows in their order"
        if isinstance(mechanism, DpSgd) and mechanism.rows_per_person is not None:
            return "persons are drawn, and not rows"
        base = {name: parameter.detach().numpy() for name, parameter in self._model.named_parameters()}
        pool = Pool({"one": self._sample, "other": self._sample})
        try:
            self._run(base, [Job("one", mechanism), Job("other", mechanism)], pool, OneGenerator(0),
                      self._training.model_copy(update={"local_steps": 1}))
        except RuntimeError as error:
            return f"its model cannot be stacked: {str(error).splitlines()[0][:200]}"
        return None

    def sites_at_once(self, rows: int, *, private: bool) -> int:
        """How many sites with so many rows each are trained at once: within `STACK_BYTES`, roughly."""
        if self._size > ALONE:
            return 1
        numbers = self._sample.table_NF.shape[1] + 3 * self._outputs_of_one()
        if private:
            numbers += self._size               # a gradient for each row, of layers that are used at several places
        batch = min(2 * self._training.batch_size, rows)
        fit: int = STACK_BYTES // (4 * (5 * self._size + batch * numbers))
        return max(1, min(MOST, fit))

    def train(self, base: Tensors, jobs: Sequence[Job], pool: Pool, draws: StackDraws,
              training: LocalTraining | None = None) -> Learnt:
        """One round of every job, from the same base model; mechanisms of one kind. training: with another rate or number of
        steps; None: as it was agreed.

        Raises ContractError if base and model do not fit each other.
        """
        check_fits(self._recipe, self._model, base)
        return self._run(base, jobs, pool, draws, training or self._training)

    def _run(self, base: Tensors, jobs: Sequence[Job], pool: Pool, draws: StackDraws, training: LocalTraining) -> Learnt:
        import torch

        schema = schema_of(base)
        base_D = torch.from_numpy(flatten(base))
        weights_SD = base_D.repeat(len(jobs), 1)
        weights, batches = _by_name(weights_SD, schema), Batches(jobs, pool, training, draws)
        share_S = torch.from_numpy(1 / batches.expected_S).float()
        shift_SD = _shifts(jobs, len(base_D))
        descent = None if shift_SD is None and _is_plain(training) else Descent(training, base_D.numpy(), shift_SD)
        done = [_steps(job, training) for job in jobs]
        done_S, fewest = torch.tensor(done), min(done)
        surplus_S, ones_S = torch.zeros(len(jobs)), torch.ones(len(jobs))
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(draws.seed())      # torch.manual_seed also looks for devices: 2 ms
            for step in range(max(done)):
                parts, surplus = self._gradients(weights, jobs, batches.next(), draws)
                active_S = ones_S if step < fewest else (step < done_S).float()
                moved_S = share_S if step < fewest else share_S * active_S
                if surplus is not None:
                    surplus_S += surplus * active_S
                if descent is None:
                    for name, part in parts.items():
                        weights[name].addcmul_(part, _wide(moved_S, part), value=-training.learning_rate)
                else:
                    mean_SD = _joined(parts, schema) * share_S[:, None]
                    change_SD = torch.from_numpy(descent.change(weights_SD.numpy(), mean_SD.numpy()))
                    weights_SD += change_SD * active_S[:, None]
        weights_SD -= base_D
        scales = {steps: scale(training, steps) for steps in set(done)}
        if set(scales.values()) != {1.0}:
            weights_SD *= torch.tensor([scales[steps] for steps in done])[:, None]
        delta_SD = _released(weights_SD, jobs, draws)
        within_S = 0.5 + surplus_S.double() / (2 * done_S * torch.from_numpy(batches.expected_S))
        counted = isinstance(jobs[0].mechanism, DpSgd) and jobs[0].mechanism.count_noise_std is not None
        return Learnt(delta_SD.numpy(), [Done(steps, within if counted else None)
                                         for steps, within in zip(done, within_S.tolist(), strict=True)])

    def _gradients(self, weights: Parts, jobs: Sequence[Job], batch: Rows,
                   draws: StackDraws) -> tuple[Parts, torch.Tensor | None]:
        """Every site's sum, noised; and where they are counted rows within the clip norm minus the others, noised, (S,)."""
        if not isinstance(jobs[0].mechanism, DpSgd):
            return plain_sum(self._objective, weights, batch), None
        clip_norm = jobs[0].mechanism.clip_norm
        parts, within_S = clipped_sum(self._tape, weights, batch, clip_norm)
        noise = _by_name(draws.normal(len(jobs), self._size), self._schema)
        std_S = _numbers(jobs, "noise_multiplier") * clip_norm
        for name, part in parts.items():
            part.addcmul_(noise[name], _wide(std_S, part))
        if jobs[0].mechanism.count_noise_std is None:
            return parts, None
        surplus_S = 2 * within_S - batch[1].sum(1)
        return parts, surplus_S + draws.normal(len(jobs), 1)[:, 0] * 2 * _numbers(jobs, "count_noise_std")

    def _outputs_of_one(self) -> int:
        """How many numbers a row's forward pass makes."""
        import torch

        made: list[int] = []

        def count(_: object, __: object, out: object) -> None:
            made.append(out.numel() if isinstance(out, torch.Tensor) else 0)

        hooks = [module.register_forward_hook(count) for module in self._model.modules() if not list(module.children())]
        with torch.no_grad():
            called(self._model, tensors_of(self._sample.inputs))
        for hook in hooks:
            hook.remove()
        return sum(made)


def _steps(job: Job, training: LocalTraining) -> int:
    steps = asked_of(job.mechanism, training)
    return steps if job.steps is None or training.partial == "refuse" else min(steps, max(job.steps, 1))


def _is_plain(training: LocalTraining) -> bool:
    """Whether a step that nothing shifts is the learning rate times the gradient, and nothing else."""
    return training.optimizer == "sgd" and training.momentum == 0 and training.algorithm.pull == 0


def _shifts(jobs: Sequence[Job], size: int) -> Float32 | None:
    if all(job.shift_D is None for job in jobs):
        return None
    return np.stack([np.zeros(size, np.float32) if job.shift_D is None else job.shift_D for job in jobs])


def _released(delta_SD: torch.Tensor, jobs: Sequence[Job], draws: StackDraws) -> torch.Tensor:
    """Whole updates clipped and noised, where that is the mechanism."""
    mechanism = jobs[0].mechanism
    if not isinstance(mechanism, GaussianUpdate):
        return delta_SD
    norm_S = delta_SD.double().norm(dim=1)
    share_S = (mechanism.clip_norm / norm_S).clamp(max=1).where(norm_S.isfinite(), norm_S.new_zeros(()))
    noise_SD = draws.normal(*delta_SD.shape) * (_numbers(jobs, "noise_multiplier") * mechanism.clip_norm)[:, None]
    clipped_SD: torch.Tensor = delta_SD.nan_to_num_() * share_S[:, None].float()
    return clipped_SD + noise_SD


def _numbers(jobs: Sequence[Job], name: str) -> torch.Tensor:
    """One setting of every job's mechanism, (S,)."""
    import torch

    return torch.tensor([getattr(job.mechanism, name) for job in jobs], dtype=torch.float32)


def _by_name(flat_SD: torch.Tensor, schema: Schema) -> Parts:
    """Views, (S, a parameter's shape) each."""
    parts, offset = {}, 0
    for spec in schema:
        size = math.prod(spec.shape)
        parts[spec.name] = flat_SD[:, offset:offset + size].view(len(flat_SD), *spec.shape)
        offset += size
    return parts


def _joined(parts: Parts, schema: Schema) -> torch.Tensor:
    import torch

    return torch.cat([parts[spec.name].flatten(1) for spec in schema], dim=1)


def _wide(number_S: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """One number for each site, to be multiplied with a part."""
    return number_S.reshape(-1, *[1] * (part.ndim - 1))
