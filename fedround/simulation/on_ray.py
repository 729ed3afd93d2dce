"""A crew of Ray workers, on this machine or on a cluster that `ray.init` finds. The optional extra `ray`.

The unit of work is a chunk of sites (`fedround.simulation.crew`), cut as in one process, with its own draws and one thread:
so the result is the same, bit for bit, however many workers there are (on processors of one kind).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedround.errors import SetupError
from fedround.learning.examples import Examples
from fedround.learning.recipe import load_recipe
from fedround.learning.spec import Training
from fedround.simulation.chance import Chance
from fedround.simulation.crew import Chunk, Trainer
from fedround.simulation.jobs import Learnt

AHEAD = 2
"""Chunks that wait at each worker, so that none waits for us; results that are not yet read take memory."""


class _Worker:
    """What runs in each worker's process. The recipe travels as bytes: what a file defines cannot be pickled."""

    def __init__(self, source: bytes, rows: Mapping[str, Examples], training: Training, chance: Chance):
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recipe.py"
            path.write_bytes(source)
            self._trainer = Trainer(load_recipe(path), rows, training, chance)

    def train(self, chunk: Chunk) -> Learnt:
        """One chunk."""
        return self._trainer.train(chunk)


class RayCrew:
    """A `Crew` of so many Ray workers; a context that ends them. Ray itself is started if it does not run.

    Raises SetupError if Ray is not installed.
    """

    def __init__(self, recipe: Path, rows: Mapping[str, Examples], training: Training, chance: Chance, workers: int):
        try:
            import ray
        except ImportError:
            raise SetupError("Ray is not installed: pip install 'fedround[ray]', or leave the workers out") from None
        self._ray: Any = ray
        self._started = not ray.is_initialized()
        if self._started:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
        everything = ray.put(dict(rows))
        worker = ray.remote(num_cpus=1)(_Worker)
        self._workers: list[Any] = [worker.remote(recipe.read_bytes(), everything, training, chance) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            self._ray.kill(worker)
        if self._started:
            self._ray.shutdown()

    def __call__(self, chunks: Iterable[Chunk]) -> Iterator[Learnt]:
        """As `Crew`."""
        waiting: deque[Any] = deque()
        for turn, chunk in enumerate(chunks):
            if len(waiting) >= AHEAD * len(self._workers):
                yield self._ray.get(waiting.popleft())
            waiting.append(self._workers[turn % len(self._workers)].train.remote(chunk))
        while waiting:
            yield self._ray.get(waiting.popleft())
