"""A client that was written for another product, as a value: what a recipe says of it, and what every plan repeats."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from fedround.codec import Schema
from fedround.errors import ContractError
from fedround.learning.learner import AtOnce, ClassWeights
from fedround.values import LARGEST_WHOLE, Digest

Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$",
                                            max_length=200)]
"""A path below the client's folder. No part of it begins with a dot."""
Client = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*(:[A-Za-z_][A-Za-z0-9_]*)?$",
                                          max_length=200)]
Setting = (bool | Annotated[int, Field(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)] | Annotated[float, Field(ge=-1e150, le=1e150)]
           | Annotated[str, StringConstraints(max_length=1000)])


def _pairs(found: object) -> object:
    """A recipe writes a dict; a document holds pairs."""
    if isinstance(found, dict):
        return tuple(sorted(found.items()))
    return tuple(tuple(one) if isinstance(one, list) else one for one in found) if isinstance(found, list) else found


Settings = Annotated[tuple[tuple[Word, Setting], ...], BeforeValidator(_pairs), Field(max_length=100)]


class Foreign(AtOnce):
    """Training by code that knows nothing of this product: it gets the base model's numbers, and gives the trained ones back.

    kind: whose interface the code was written for.

    * "flower": a `ClientApp`, or a `NumPyClient` (an object, or a class that is made without arguments), as
      "package.module:name".
    * "nvflare": a script on the client API (`flare.receive`, `flare.send`), as "client.py". It needs no NVFLARE.
    * "function": a function train(parameters, settings), as "module:name", from and to a dict of float32 arrays.

    files: all files of its code, each with its SHA-256. Whoever approves the recipe approves these bytes.
    config: what a server would send with a round. run_config: what stands in Flower's pyproject. arguments: of a script.

    Promised: what leaves of a round is the change of the model, cut to the clip norm and noised outside of that code (the
    unit `site`), whatever the code is. Metrics and counts of rows that it reports are dropped. Not promised: anything about
    one record; that is what such code cannot promise, because nobody sees its gradients.
    """

    name: Literal["foreign"] = "foreign"
    kind: Literal["flower", "nvflare", "function"]
    client: Client
    files: Annotated[tuple[tuple[FileName, Digest], ...], BeforeValidator(_pairs), Field(min_length=1, max_length=1000)]
    config: Settings = ()
    run_config: Settings = ()
    arguments: tuple[Annotated[str, StringConstraints(max_length=1000)], ...] = ()

    @model_validator(mode="after")
    def _check_client(self) -> Self:
        if (":" in self.client) != (self.kind != "nvflare"):
            raise ValueError(f"client = '{self.client}': write " + (
                "the script's name, for example 'client.py'" if self.kind == "nvflare" else
                "module and name, for example 'package.client_app:app'"))
        names = [name for name, _ in self.files]
        if len(set(names)) < len(names):
            raise ValueError("files: one of them is named twice")
        if self.entry not in names and str(PurePosixPath(self.entry.removesuffix(".py")) / "__init__.py") not in names:
            raise ValueError(f"files: '{self.entry}', with which the client begins, is not among them")
        return self

    @property
    def entry(self) -> str:
        """The file with which it begins."""
        module = self.client.partition(":")[0]
        return module if self.kind == "nvflare" else module.replace(".", "/") + ".py"

    in_recipes: ClassVar[str] = "FOREIGN"
    is_linear: ClassVar[bool] = False
    class_weights: ClassVar[ClassWeights] = ()
    batch_size: ClassVar[None] = None

    @property
    def in_words(self) -> str:
        """For titles."""
        return f"a {self.kind} client"

    def sent(self, model: Schema, *, noised: bool) -> Schema:
        """The tensors of an update: the model's."""
        return model


def files_of(folder: Path) -> dict[str, str]:
    """The Python files below a folder, each with its SHA-256: what a recipe says as `files`.

    Raises ContractError if there are none, or one has a name that no client's file may have.
    """
    found = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
             for path in sorted(folder.rglob("*.py")) if path.is_file()}
    if not found:
        raise ContractError(f"no Python file below {folder}: name the folder that holds the client's code")
    return found
