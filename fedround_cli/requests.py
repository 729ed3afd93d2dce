"""What a command asks of the coordinator's process, checked before it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from fedround.errors import ContractError

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")


def checked(kind: type[M], request: Mapping[str, object]) -> M:
    """The request. Raises ContractError, which names the options that are not as they should be."""
    from pydantic import ValidationError

    from fedround.values import in_words

    try:
        return kind.model_validate(request)
    except ValidationError as error:
        raise ContractError(f"the request: {in_words(error, request)}") from None
