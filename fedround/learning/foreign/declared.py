"""What a recipe says of a foreign client: `FOREIGN = Foreign(kind="flower", client="app:client", files={…})`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedround.errors import ContractError
from fedround.learning.foreign.spec import Foreign


def foreign_of(module: Mapping[str, Any], recipe: str) -> Foreign | None:
    """The client that a recipe's file declares; None: it declares none. recipe: the file, in words.

    Raises ContractError, which says what to write.
    """
    if "FOREIGN" not in module:
        return None
    said = module["FOREIGN"]
    if not isinstance(said, Foreign):
        raise ContractError(f"{recipe}: FOREIGN must be a client, for example Foreign(kind=\"flower\", "
                            "client=\"client_app:app\", files={\"client_app.py\": \"…\"})")
    if "TREES" in module:
        raise ContractError(f"{recipe}: says both TREES and FOREIGN; remove one of them")
    if "loss" in module:
        raise ContractError(f"{recipe}: says both FOREIGN and loss(); the client has a loss of its own: remove the function")
    return said
