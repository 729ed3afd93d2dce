"""doorkeeper.toml, beside the logins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from fedround.errors import SetupError
from fedround.values import Value

SERVER_AUTH = "server.auth"
"""The file with the auth string of the Prefect server behind (PREFECT_SERVER_API_AUTH_STRING there)."""


Login = Annotated[str, StringConstraints(pattern="^[a-z0-9-]{1,60}$")]
"""Of a site: its name. Of the coordinator: its pool's."""


class DoorkeeperSettings(Value):
    """What the doorkeeper needs to know."""

    api_behind: str
    """The Prefect API that nobody but the proxy reaches."""
    coordinator: Login
    """The name of the coordinator's login, which may do everything."""
    socket: str = "run/doorkeeper.sock"
    certificates: bool = False
    """Whether members show a certificate, too, which has their name."""
    models_per_day: int | None = None
    """How many models an S3 credential may fetch in a day before that is told; None: the proxy stands before no S3 server."""

    def auth_string(self, folder: Path) -> str:
        """The server's; empty if it has none."""
        try:
            return (folder / SERVER_AUTH).read_text().strip()
        except OSError as error:
            raise SetupError(f"cannot read {folder / SERVER_AUTH}: {error.strerror}; make it with 'fedround proxy init'"
                             ) from None
