"""What a site keeps from one round of a run to the next: SCAFFOLD's control variate, what compression left, its private part
of the model, and its personal model.

::

    kept/<run>/<what>/<round>-<attempt>.safetensors      after that answer

None of it is sent. It is written before the answer is, under a name of its own, and counts once the answer is in the outbox.
So a site that is killed in between computes from the same again, and writes the same bytes. What is lost begins anew, control
variates and residuals at zeros, the private part as in round 1, the personal model at the shared one: slower, not wrong.
What a backup brought back from before later answers is used, too, but for a residual: some of that has left since.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedround import codec
from fedround.codec import Schema, Tensors
from fedround.errors import CodecError, SetupError
from fedround.files import make_folders, write_whole
from fedround.types import RoundPlan
from site_workers import outbox

Float32 = npt.NDArray[np.float32]
What = Literal["control", "residual", "private", "personal"]

log = logging.getLogger("fedround.site")

_WORDS: dict[What, str] = {"control": "control variate", "residual": "residual", "private": "private part of the model",
                           "personal": "personal model"}


def read(folder: Path, plan: RoundPlan, what: What) -> Float32 | None:
    """What was kept, as long as what travels, with the site's last answer to an earlier round of the plan's run; None if
    there is nothing. Raises SetupError if the file is damaged, or of another model.
    """
    tensors = read_tensors(folder, plan, what, plan.tensors)
    return None if tensors is None else codec.flatten(tensors)


def read_tensors(folder: Path, plan: RoundPlan, what: What, schema: Schema) -> Tensors | None:
    """The same for tensors of any schema."""
    return newest(folder, plan.run, plan.round, what, schema)


def newest(folder: Path, run: str, before: int, what: What, schema: Schema) -> Tensors | None:
    """The same for the site's last answer in a run to a round earlier than `before`."""
    given = outbox.updates(folder, run, before=before)
    path = next(_there(folder, run, what, given[:1] if what == "residual" else given), None)
    if path is None:
        return None
    try:
        return codec.decode(path.read_bytes(), schema, str(path))
    except CodecError as error:
        raise SetupError(f"{error}; restore the file from your backup, or remove it: the {what} then begins anew") from None


def write(folder: Path, plan: RoundPlan, what: What, vector_D: Float32) -> None:
    """Keep a vector with the answer to this plan, durably, before the answer is written. Older ones than a retry needs go."""
    write_tensors(folder, plan, what, codec.unflatten(vector_D, plan.tensors))


def write_tensors(folder: Path, plan: RoundPlan, what: What, tensors: Tensors) -> None:
    """The same for tensors of any schema. What is not finite is not kept, and the operator reads so: the site's answer must
    not wait for, nor tell of, what trained without noise and went astray.
    """
    if not all(np.isfinite(array).all() for array in tensors.values()):
        log.warning("round %d of run '%s': the site's %s is not finite and not kept; the last one stays. Ask for a smaller "
                    "training.learning_rate", plan.round, plan.run, _WORDS[what])
        return
    path = _path(folder, plan.run, what, plan.round, plan.attempt)
    make_folders(path.parent)
    write_whole(path, codec.encode(tensors), durable=True)
    for older in list(_there(folder, plan.run, what, outbox.updates(folder, plan.run, before=plan.round)))[1:]:
        older.unlink()


def _there(folder: Path, run: str, what: What, answers: list[tuple[int, int]]) -> Iterator[Path]:
    """The files that belong to these answers, those excepted that are not there."""
    for number, attempt in answers:
        if (path := _path(folder, run, what, number, attempt)).exists():
            yield path


def _path(folder: Path, run: str, what: What, number: int, attempt: int) -> Path:
    return folder / "kept" / run / what / f"{number:05d}-{attempt:02d}.safetensors"
