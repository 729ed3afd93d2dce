"""The site's own keys: the one it signs with, and the next one while a rotation is under way.

`keys/next.pem` waits until the federation log has taken it for this site; then it takes the place of `keys/identity.pem`, and
the noise secret that waits beside it, behind its passphrase, that of `keys/noise.key`: it is the same secret.
"""

from __future__ import annotations

import functools
from pathlib import Path

from fedround.errors import SetupError
from fedround.federation_log import Rotation
from fedround.files import take_place
from fedround.privacy import noise
from fedround.signing import Identity
from infra.passphrase import passphrase_for
from site_workers import release
from site_workers.site import Site, finish_rotation, next_noise


def begin_rotation(site: Site, passphrase: bytes | None) -> str:
    """Make the next key, and publish in the store that the present key hands over to it; returns the new public key.

    The noise secret waits beside it, behind the next key's passphrase, or behind none if that key has none.

    Nothing changes until the coordinator has put the new key into the federation log: until then the old one signs. A second
    call names the same new key. Raises StoreError if the store does not take it.
    """
    path = _next(site.folder)
    if not path.exists():
        for stale in path.parent.glob("next-noise-*.key"):      # of a next key that the operator has removed
            stale.unlink()
        Identity.generate().save(path, passphrase)
    ask = functools.cache(passphrase_for(path))
    new = Identity.load(path, ask).key
    waiting = next_noise(site.folder, new)
    if not waiting.exists():
        noise.keep_secret(waiting, site.noise_secret, ask() if ask.cache_info().currsize else None)
    release.hand_over(site, Rotation(federation=site.settings.federation, site=site.name, old=site.identity.key, new=new))
    return new


def agreed_identity(site: Site, key: str) -> Identity | None:
    """The site's identity with this public key, if it has one; a next key that the federation has taken becomes the key."""
    if site.identity.key == key:
        return site.identity
    present = site.folder / "keys" / "identity.pem"
    for path in (present, _next(site.folder)):
        if path.exists() and (found := _load(path)).key == key:
            take_place(path, present)
            finish_rotation(site.folder, key)
            return found
    return None


def _next(folder: Path) -> Path:
    return folder / "keys" / "next.pem"


def _load(path: Path) -> Identity:
    try:
        return Identity.load(path, passphrase_for(path))
    except SetupError as error:
        raise SetupError(f"{error}; or start the site's process again") from None
