"""The process in which a recipe runs. It answers what it is asked on its standard input, and has nothing else.

    python -P -m site_workers.apart.guest RECIPE DIGEST THREADS

From the moment in which the recipe's file runs, this process is the recipe's: nothing that it says is believed but its form
(`host`).
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fedround import sandbox

if TYPE_CHECKING:
    from fedround.learning.apart import GradientSums
    from fedround.learning.examples import Examples
    from fedround.learning.recipe import Recipe
    from site_workers.apart.wire import Array, Said

_HELD = 2
"""Rows to train on, and rows held out."""


def main(path: str, digest: str, threads: str) -> None:
    """Answer until nobody asks any more."""
    sandbox.stay_alone()
    asked, answer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    _Guest(Path(path), digest, int(threads), asked, answer).serve()


class _Guest:
    def __init__(self, path: Path, digest: str, threads: int, asked: BinaryIO, answer: BinaryIO):
        self._path, self._digest, self._threads, self._asked, self._answer = path, digest, threads, asked, answer
        self._recipe: Recipe | None = None
        self._held: dict[int, Examples] = {}
        self._session = ExitStack()
        self._sums: GradientSums | None = None

    def serve(self) -> None:
        from site_workers.apart import wire

        while True:
            try:
                said = wire.read_said(self._read)
            except EOFError:
                return
            arrays = wire.read_arrays(wire.forms_of(said), self._fill)
            try:
                told, found = getattr(self, f"_{said['do']}")(said, arrays)
            except (Exception, SystemExit) as error:
                told, found = _told(error), []
            for piece in wire.packed(told, found):
                self._answer.write(piece)
            self._answer.flush()

    def _read(self, size: int) -> bytes:
        found = self._asked.read(size)
        if len(found) < size:
            raise EOFError
        return found

    def _fill(self, memory: memoryview) -> None:
        while len(memory):
            memory = memory[self._asked.readinto(memory) or self._gone():]  # type: ignore[attr-defined]

    @staticmethod
    def _gone() -> int:
        raise EOFError

    @property
    def recipe(self) -> Recipe:
        if self._recipe is None:
            from fedround.learning.recipe import load_recipe

            self._recipe = load_recipe(self._path, self._digest)
        return self._recipe

    def _with_torch(self) -> Recipe:
        recipe = self.recipe
        import torch

        torch.set_num_threads(self._threads)
        return recipe

    # -- what it is asked

    def _describe(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        from fedround.learning.described import described

        return {"described": described(self.recipe).decode()}, []

    def _schemas(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        from fedround.learning.recipe import schemas

        found = schemas(self._with_torch(), self._parts(said))
        return {part: [[spec.name, spec.shape] for spec in getattr(found, part)]
                for part in ("shared", "private", "frozen")}, []

    def _order(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        from fedround.learning.recipe import order_of

        return {"names": order_of(self._with_torch())}, []

    def _initial(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        from fedround.learning.recipe import initial

        start = None if said["start"] is None else dict(zip(said["start"], arrays, strict=True))
        shared, rest = initial(self._with_torch(), said["seed"], self._parts(said), start=start,
                               per_record=said["per_record"])
        return {}, [part[name] for part in (shared, rest.private, rest.frozen) for name in sorted(part)]

    def _tried(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        from fedround.learning.trial import tried
        from site_workers.apart import wire

        notes, number = tried(self._with_torch(), wire.form_of(said["form"]),
                              None if said["parts"] is None else self._parts(said), self._training(said), said["device"],
                              per_record=said["per_record"])
        return {"notes": notes, "number": number}, []

    def _hold(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        from site_workers.apart import wire

        while len(self._held) >= _HELD:
            del self._held[next(iter(self._held))]
        self._held[said["key"]] = wire.examples_of(said, arrays)
        return {}, []

    def _scored(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        from fedround.learning.evaluate import scored_rows

        tensors = dict(zip(said["names"], arrays, strict=True))
        found, counts_N = scored_rows(self._with_torch(), tensors, self._held[said["rows"]])
        return {"names": list(found.numbers)}, [*found.numbers.values(), counts_N]

    def _gradients(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        from fedround.learning.apart import RowBound, Sought
        from fedround.learning.gradients import Clip
        from fedround.learning.parts import Rest
        from fedround.learning.sums import gradient_sums

        self._session.close()
        left = iter(arrays)
        base, private, frozen = ({name: next(left) for name in said[part]} for part in ("base", "private", "frozen"))
        bound = None
        if said["bound"] is not None:
            norm, cell, each, expected = said["bound"]
            bound = RowBound(Clip(norm, cell), each, expected)
        training = self._training(said)
        if training is None:
            raise ValueError("there is no training without settings")
        self._sums = self._session.enter_context(gradient_sums(self._with_torch(), Sought(
            base, Rest(private, frozen), self._held[said["rows"]], training, bound, said["device"])))
        return {"trained": [spec.name for spec in self._sums.schema]}, []

    def _begin(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        self._open.begin(said["seed"])
        return {}, []

    def _plain(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        *weights, rows_B = arrays
        self._go_on_at(weights)
        return {}, [self._open.plain(rows_B)]

    def _bounded(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        *weights, rows_B, there_B = arrays
        self._go_on_at(weights)
        total_D, within = self._open.bounded(rows_B, there_B)
        return {"within": within}, [total_D]

    def _kept(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        kept = self._open.kept()
        return {}, [kept[name] for name in sorted(kept)]

    def _end(self, said: Said, arrays: list[Array]) -> tuple[Said, list[Array]]:
        self._session.close()
        self._sums = None
        return {}, []

    def _go_on_at(self, weights: list[Array]) -> None:
        """Where the next sum is taken; no weights: where the last one was, or at the base model."""
        for weights_D in weights:
            self._open.weights_D[:] = weights_D

    @property
    def _open(self) -> GradientSums:
        if self._sums is None:
            raise ValueError("no gradients were asked for")
        return self._sums

    @staticmethod
    def _parts(said: Said) -> Any:
        from fedround.learning.spec import Parts

        return Parts.model_validate_json(said["parts"])

    @staticmethod
    def _training(said: Said) -> Any:
        from fedround.learning.spec import TRAINING

        return None if said["training"] is None else TRAINING.validate_json(said["training"])


def _told(error: BaseException) -> Said:
    """An error, for the operator: of our own kinds its words; of any other, where it was raised, too."""
    from fedround.errors import ContractError, SetupError

    out_of_memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)     # torch's allocator
    kind = ("MemoryError" if out_of_memory else "SetupError" if isinstance(error, SetupError) else
            "ContractError" if isinstance(error, ContractError) else "")
    words = str(error) if kind else "".join(traceback.format_exception(error))[-4000:]
    return {"error": kind, "words": words}


if __name__ == "__main__":
    main(*sys.argv[1:])
