"""How an invitation is made and handed over, whoever is invited: a site, a region or another coordinator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.errors import SetupError
from fedround.spoken import typed
from fedround_cli.output import out

if TYPE_CHECKING:
    from infra.invitations import AnyInvitation
    from infra.settings import S3Credential
    from infra.stack import LocalStack

AccessKey = Annotated[str | None, typer.Option(help="S3 access key, where the bucket is not on this machine's stack.")]
SecretKey = Annotated[str | None, typer.Option(envvar="FEDROUND_SECRET_KEY", help="S3 secret key.")]


def given(access_key: str | None, secret_key: str | None) -> S3Credential | None:
    """The credential that was typed, if one was. Raises SetupError for half of one."""
    from infra.settings import S3Credential

    if (access_key is None) != (secret_key is None):
        there, lacks = "--access-key", "--secret-key (or FEDROUND_SECRET_KEY)"
        if access_key is None:
            there, lacks = lacks, there
        raise SetupError(f"{there} is given without {lacks}: a credential is both")
    return None if access_key is None or secret_key is None else S3Credential(access_key=access_key, secret_key=secret_key)


def credential_for(home: Path, access_key: str | None, secret_key: str | None,
                   grant: Callable[[LocalStack], S3Credential]) -> S3Credential | None:
    """The credential that was typed, or one that this machine's servers grant. None: neither is there."""
    from infra.stack import LocalStack

    if (typed_in := given(access_key, secret_key)) is not None:
        return typed_in
    return None if LocalStack.find(home) is None else grant(LocalStack(home))


def hand_over(invitation: AnyInvitation, path: Path, then: str) -> None:
    """Write the invitation, and say who does what with it. then: the coordinator's next command, without 'fedround'."""
    from infra.settings import save_toml

    save_toml(invitation, path, f"Invitation of {invitation.of} '{invitation.whom}'. It holds a secret: hand it over "
                                "privately.", secret=True)
    out.say("wrote {}\nNext, on its machine: [bold]fedround {} init FOLDER --invitation {}[/], and then here: [bold]fedround "
            "{}[/]", path, invitation.of, typed(path), then)
