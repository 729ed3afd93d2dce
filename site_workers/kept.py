"""What a site keeps from one round of a run to the next: SCAFFOLD's control variate, what compression left, its private part
of the model, and its personal model.

::

    kept/<run>/<what>/<round>-<attempt>.safetensors      after that answer; encrypted under a passphrase (`safe`)

None of it is sent. It is written before the answer is, under a name of its own, and counts once the answer is in the outbox.
So a site that is killed in between starts from the same values again, and writes the same bytes. What is lost begins anew:
control variates and residuals at zeros, the private part as in round 1, the personal model at the shared one. Training is
then slower, not wrong. Files that a backup brought back from before later answers are used too, except a residual: a part of
it has left since.

What was kept with an answer is used for later plans of the same run that ask for the same mechanism, and for no others.
Under the unit `site`, and without privacy, a private part is trained without noise. A later round that protects records
computes all gradients with it: without one record, that round would move by far more than one record's clip norm. Only the
personal model goes on under every mechanism: nothing that leaves depends on it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedround import codec
from fedround.codec import Schema, Tensors
from fedround.compression.spec import is_unbiased
from fedround.errors import CodecError, SetupError
from fedround.files import make_folders
from fedround.records import Plan
from fedround.rounds.campaign import mechanism_kind
from fedround.rounds.site import PERSONAL, PRIVATE, RESIDUAL, Kept
from site_workers import outbox
from site_workers.safe import Safe

log = logging.getLogger("fedround.site")

_OR = ", or remove it, and what it keeps begins anew"
_WORDS = {RESIDUAL: "residual", PRIVATE: "private part of the model", PERSONAL: "personal model"}


def of_plan(safe: Safe, plan: Plan, private: Schema) -> Kept:
    """What was kept with the site's last answers to earlier rounds of the plan's run, if the plan's terms use it.

    private: names and shapes of the model's private part.
    Raises SetupError if a file is damaged, or of another model.
    """
    before, terms = plan.continues + 1, plan.agreed
    asked = mechanism_kind(terms)
    vectors = (*terms.training.algorithm.keeps, *(() if is_unbiased(terms.compression) else (RESIDUAL,)))
    models = {**({PRIVATE: private} if private else {}), **({} if terms.personal is None else {PERSONAL: plan.tensors})}
    return Kept({what: codec.flatten(found) for what in vectors
                 if (found := newest(safe, plan.run, before, what, plan.tensors, asked)) is not None},
                {what: found for what, schema in models.items() if (found := newest(
                    safe, plan.run, before, what, schema, None if what == PERSONAL else asked)) is not None})


def write(safe: Safe, plan: Plan, kept: Kept) -> None:
    """Keep all of it with the answer to this plan, durably, before the answer is written."""
    for what, vector_D in kept.vectors.items():
        _write(safe, plan, what, codec.unflatten(vector_D, plan.tensors))
    for what, tensors in kept.models.items():
        _write(safe, plan, what, tensors)


def newest(safe: Safe, run: str, before: int, what: str, schema: Schema, mechanism: str | None = None) -> Tensors | None:
    """What was kept with the site's last answer in a run to a round earlier than `before`; None: nothing was kept.

    mechanism: the kind of noise of that answer; None: any.
    Raises SetupError if the file is damaged, or of another schema.
    """
    given = outbox.updates(safe, run, before=before)
    fit = [one for one in (given[:1] if what == RESIDUAL else given) if mechanism in (None, one.mechanism)]
    path = next(_there(safe.folder, run, what, fit), None)
    if path is None:
        return None
    try:
        return codec.decode(safe.read(path), schema, str(path))
    except CodecError as error:
        raise SetupError(f"{error}; restore the file from your backup{_OR}") from None
    except SetupError as error:
        raise SetupError(f"{error}{_OR}") from None


def settle(safe: Safe) -> None:
    """Encrypt what was kept before the site had a passphrase."""
    for path in sorted((safe.folder / "kept").glob("*/*/*.safetensors")):
        safe.settle(path)


def _write(safe: Safe, plan: Plan, what: str, tensors: Tensors) -> None:
    """Write one file, and delete files that are older than a retry needs.

    Tensors with a number that is not finite are not kept, and the log tells the operator. They were trained without noise:
    the site's answer must neither depend on them nor tell of them.
    """
    if not all(np.isfinite(array).all() for array in tensors.values()):
        log.warning("round %d of run '%s': the site's %s is not finite and not kept; the last one stays. Ask for a smaller "
                    "training.learning_rate", plan.round, plan.run, _WORDS.get(what, f"'{what}'"))
        return
    path = _path(safe.folder, plan.run, what, plan.round, plan.attempt)
    make_folders(path.parent, mode=0o700)
    safe.write(path, codec.encode(tensors))
    for older in list(_there(safe.folder, plan.run, what, outbox.updates(safe, plan.run, before=plan.round)))[1:]:
        older.unlink()


def _there(folder: Path, run: str, what: str, answers: list[outbox.Given]) -> Iterator[Path]:
    """The files that belong to these answers, as far as they exist."""
    for answer in answers:
        if (path := _path(folder, run, what, answer.round, answer.attempt)).exists():
            yield path


def _path(folder: Path, run: str, what: str, number: int, attempt: int) -> Path:
    return folder / "kept" / run / what / f"{number:05d}-{attempt:02d}.safetensors"
