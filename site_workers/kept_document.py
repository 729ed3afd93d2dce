"""What the outbox must know of a signed document that it keeps, whichever version of fedround wrote it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from fedround.records import Answer, Refusal
from fedround.values import Purpose


class _Some(BaseModel):
    """Other keys may stand there: a document of an older version has others."""

    model_config = ConfigDict(strict=True, frozen=True)


class KeptFile(_Some):
    """The file beside an answer."""

    sha256: str
    size_bytes: int


class _Mechanism(_Some):
    kind: str


class _Update(_Some):
    mechanism: _Mechanism
    payload: KeptFile


class _Masked(_Some):
    payload: KeptFile


class KeptBody(_Some):
    """What an answer or a refusal says."""

    plan: str
    site: str
    asked: Purpose
    reason: str | None = None
    detail: str = ""
    update: _Update | None = None
    masked: _Masked | None = None
    material: KeptFile | None = None

    @property
    def payload(self) -> KeptFile | None:
        """The file beside it; None: there is none. As `Answer.payload`."""
        said = self.update or self.masked
        return self.material if said is None else said.payload


class KeptDocument(_Some):
    """A signed answer or refusal. Whether it is signed, its reader looks; here it is the site's own."""

    kind: Literal["answer", "refusal"]
    body: KeptBody

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.kind == Refusal.kind and self.body.reason is None:
            raise ValueError("a refusal has a reason")
        if self.kind == Answer.kind and "update" not in self.body.model_fields_set:
            raise ValueError("an answer says whether it has an update")
        return self
