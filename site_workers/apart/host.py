"""A site's side: the recipe as values, and a process that computes with its code.

What comes back is believed in nothing but its form: names, shapes, and of sums of clipped gradients their length. So whatever
the recipe's code does, also to the modules of its process, what leaves under the unit `site` keeps its promise; noise is
drawn here and never there. What is not promised is in docs/threat-model.md ("A hostile recipe").
"""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fedround import codec, sandbox
from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.apart import Bools, Float32, Float64, GradientSums, Int64, RowBound, Sought
from fedround.learning.described import Described, recipe_of
from fedround.learning.device import DeviceName
from fedround.learning.examples import Examples, Form
from fedround.learning.parts import Rest, Schemas
from fedround.learning.recipe import Recipe
from fedround.learning.spec import LocalTraining, Parts
from fedround.learning.tasks import CLASSIFY, Scored, Task
from fedround.learning.union.spec import UnionStep
from fedround.sandbox import Sandbox
from fedround.spoken import one_line
from fedround.values import TensorSpec, parse
from site_workers.apart import wire
from site_workers.apart.child import Child
from site_workers.apart.wire import Array, Forms, Said
from site_workers.policy import Limits

_NOTE, _NOTES = 300, 20
_ANY = 604_800
"""Seconds of processor time: time is watched from outside."""


class Host:
    """As `Apart`: a process with one recipe, which is started when it is needed, and again if it has ended."""

    def __init__(self, file: Path, digest: str, limits: Limits, device: DeviceName):
        """file: the recipe's, of this digest. device: where it may compute."""
        self._file, self._digest, self._limits, self._device = file, digest, limits, device
        self._child: Child | None = None
        self._name = file.name
        self._task: Task = CLASSIFY
        self._held: list[tuple[int, Examples]] = []
        self._keys = 0
        self._watch: Callable[[], bool] = lambda: False

    def recipe(self) -> Recipe:
        """What the file says. Raises ContractError as `load_recipe` does, and if it takes more time or memory than one plan
        may.
        """
        try:
            told, _ = self._ask("describe", returns=())
        except MemoryError:
            raise ContractError(f"recipe '{self._name}': needs more memory than one plan may take here (memory_mb in "
                                "policy.toml)") from None
        said = parse(Described, str(told.get("described", "")), f"recipe {self._file.name}")
        self._name, self._task = said.name, said.task
        if said.trees is not None:
            self.rest()                 # nothing more will be asked
        return recipe_of(said, self._digest, self)

    def rest(self) -> None:
        """Give the memory back."""
        if self._child is not None:
            self._child.end()
        self._child, self._held = None, []

    @contextmanager
    def watched(self, watch: Callable[[], bool]) -> Iterator[None]:
        """While this lasts, everything ends with Cancelled when `watch` says so."""
        self._watch = watch
        try:
            yield
        finally:
            self._watch = lambda: False

    # -- as `Apart`

    def schemas(self, parts: Parts) -> Schemas:
        """As `Apart`."""
        told, _ = self._ask("schemas", {"parts": parts.model_dump_json()}, returns=())
        try:
            return Schemas(*(tuple(TensorSpec(name=name, shape=tuple(shape)) for name, shape in told[part])
                             for part in ("shared", "private", "frozen")))
        except (KeyError, TypeError, ValueError):
            raise self._odd() from None

    def order(self) -> tuple[str, ...]:
        """As `Apart`."""
        told, _ = self._ask("order", returns=())
        names = told.get("names")
        if not isinstance(names, list) or len({str(name) for name in names}) < len(names):
            raise self._odd()
        return tuple(map(str, names))

    def initial(self, seed: int, parts: Parts, start: Tensors | None, *, per_record: bool) -> tuple[Tensors, Rest]:
        """As `Apart`."""
        found = self.schemas(parts)
        order = [*found.shared, *found.private, *found.frozen]
        names, arrays = (None, []) if start is None else wire.named(start)
        _, made = self._ask("initial", {"seed": seed, "parts": parts.model_dump_json(), "per_record": per_record,
                                        "start": names}, arrays, returns=[("float32", spec.shape) for spec in order])
        whole = {spec.name: array for spec, array in zip(order, made, strict=True)}
        return {spec.name: whole[spec.name] for spec in found.shared}, found.rest_of(whole)

    def tried(self, form: Form, parts: Parts | None, training: LocalTraining | UnionStep | None, device: DeviceName, *,
              per_record: bool) -> tuple[tuple[str, ...], float]:
        """As `Apart`. Warnings are lines of printable text."""
        told, _ = self._ask("tried", {
            "form": form, "parts": None if parts is None else parts.model_dump_json(), "device": device,
            "per_record": per_record, "training": _of_training(training)}, returns=())
        notes, number = told.get("notes"), told.get("number")
        if not isinstance(notes, list) or not isinstance(number, int | float) or not math.isfinite(number):
            raise self._odd()
        return tuple(one_line(str(note))[:_NOTE] for note in notes[:_NOTES]), float(number)

    def scored(self, tensors: Tensors, examples: Examples) -> tuple[Scored, Bools]:
        """As `Apart`: what the task says of a row, of all that are said to count, which are some of those that count."""
        names, arrays = wire.named(tensors)
        told, found = self._ask("scored", {"names": names, "rows": self._hold(examples)}, arrays,
                                returns=lambda told: _of_scores(self._task, told, len(examples)))
        *numbers, counts_N = found
        if (counts_N & ~examples.counts_N).any() or len(numbers[0]) != counts_N.sum():
            raise self._odd()
        return Scored(dict(zip(told["names"], numbers, strict=True))), counts_N

    @contextmanager
    def gradients(self, sought: Sought) -> Iterator[GradientSums]:
        """As `Apart`."""
        rest, bound = sought.rest, sought.bound
        names, arrays = zip(*(wire.named(part) for part in (sought.base, rest.private, rest.frozen)), strict=True)
        told, _ = self._ask("gradients", {
            **dict(zip(("base", "private", "frozen"), names, strict=True)), "rows": self._hold(sought.examples),
            "bound": None if bound is None else [bound.clip.norm, bound.clip.cell, bound.each, bound.expected],
            "device": sought.device, "training": _of_training(sought.training)}, [array for part in arrays for array in part],
            returns=())
        trained = told.get("trained")
        if not isinstance(trained, list) or not sought.base.keys() <= set(trained) <= {*sought.base, *rest.private}:
            raise self._odd()
        yield _Sums(self, sought, [str(name) for name in trained])
        self._ask("end", returns=())

    # -- asking

    def _hold(self, examples: Examples) -> int:
        """A number by which the process has these rows."""
        self._running()
        for key, held in self._held:
            if held is examples:
                return key
        self._keys += 1
        said, arrays = wire.of_examples(examples)
        self._ask("hold", {**said, "key": self._keys}, arrays, returns=())
        self._held = [*self._held[-1:], (self._keys, examples)]
        return self._keys

    def _ask(self, do: str, said: Said | None = None, arrays: Sequence[Array] = (), *,
             returns: Forms | Callable[[Said], Forms]) -> tuple[Said, list[Array]]:
        wanted = returns if callable(returns) else lambda _: returns
        return self._running().call({"do": do, **(said or {})}, arrays, wanted, self._watch, self._limits.seconds)

    def _running(self) -> Child:
        if self._child is None or not self._child.end.alive:
            read, names = sandbox.own_python()
            devices = () if self._device == "cpu" else tuple(sorted(glob.glob("/dev/nvidia*")))
            allowed = Sandbox(read=(*read, str(self._file.resolve())), write=devices, names=names,
                              memory_mb=self._limits.memory_mb, nice=self._limits.nice, seconds=_ANY)
            self._held = []
            self._child = Child(self._name, [str(self._file.resolve()), self._digest, str(self._limits.threads)], allowed,
                                self._limits.threads)
        return self._child

    def _odd(self) -> ContractError:
        self.rest()
        return ContractError(f"recipe '{self._name}': its process gave an answer of another form than it was asked for")


class _Sums:
    """As `GradientSums`: they are computed there, and looked at here."""

    def __init__(self, host: Host, sought: Sought, trained: list[str]):
        whole = {**sought.base, **sought.rest.private}
        ours = {name: whole[name] for name in trained}
        self.schema, self.weights_D = codec.schema_of(ours), codec.flatten(ours)
        self._host, self._bound = host, sought.bound
        self._there: Tensors | None = ours
        self._buffers = {name: array for name, array in sorted(sought.rest.private.items()) if name not in ours}

    def begin(self, seed: int) -> None:
        """As `GradientSums`."""
        self._host._ask("begin", {"seed": seed}, returns=())

    def plain(self, rows_B: Int64) -> Float32 | Float64:
        """As `GradientSums`."""
        _, (total_D,) = self._host._ask("plain", None, [*self._weights(), rows_B],
                                        returns=lambda told: _of_a_sum(told, self.weights_D.shape))
        return total_D

    def bounded(self, rows_B: Int64, there_B: Bools) -> tuple[Int64, int]:
        """As `GradientSums`."""
        if self._bound is None:
            raise ContractError("nothing bounds these rows")
        told, (total_D,) = self._host._ask("bounded", None, [*self._weights(), rows_B, there_B],
                                           returns=[("int64", self.weights_D.shape)])
        units, within = int(there_B.reshape(-1, self._bound.each).any(1).sum()), told.get("within")
        if not _is_short(total_D, units, self._bound) or type(within) is not int or not 0 <= within <= units:
            raise self._host._odd()
        return total_D, within

    def kept(self) -> Tensors:
        """As `GradientSums`."""
        _, found = self._host._ask("kept", returns=[("float32", array.shape) for array in self._buffers.values()])
        return dict(zip(self._buffers, found, strict=True))

    def _weights(self) -> list[Float32]:
        """The weights; none as long as they are those with which the process began."""
        there, self._there = self._there, None
        same = there is not None and all(
            np.array_equal(np.asarray(there[name], np.float32).view(np.int32), array.view(np.int32))
            for name, array in codec.unflatten(self.weights_D, self.schema).items())
        return [] if same else [self.weights_D]


def _of_scores(task: Task, told: Said, rows: int) -> Forms:
    """The form of what the task says of some of so many rows, and of which rows these are. Raises ValueError for others."""
    said, names = {one.name: one for one in task.scored_shapes}, told.get("names")
    (_, shape), *_ = wire.forms_of(told)
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(said) or not shape or shape[0] > rows:
        raise ValueError("other numbers than the task's")
    return [*((said[name].dtype, (shape[0], *said[name].shape)) for name in names), ("bool", (rows,))]


def _of_a_sum(told: Said, shape: tuple[int, ...]) -> Forms:
    """The form of a sum of gradients, which is in single or in double precision. Raises ValueError for another."""
    (dtype, _), = wire.forms_of(told)
    if dtype not in ("float32", "float64"):
        raise ValueError("a sum of another kind")
    return [(dtype, shape)]


def _is_short(total_D: Int64, units: int, bound: RowBound) -> bool:
    """Whether so many clipped vectors can add up to this one."""
    long_D: Float64 = total_D.astype(np.float64)
    return float(np.linalg.norm(long_D)) <= units * bound.clip.norm / bound.clip.cell * (1 + 1e-9)


def _of_training(training: LocalTraining | UnionStep | None) -> str | None:
    return None if training is None else training.model_dump_json()
