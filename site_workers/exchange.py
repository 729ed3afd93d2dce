"""What two members have sent each other so far, as one of them reads it; and what it keeps of it, which never leaves.

::

    joins/used/<grant>/<number>      the exchanges that a grant was used for
    joins/<exchange>/<step>          the plan that was answered for a step: no other ever is
    joins/<exchange>/rows            a digest of the row files, which may not change before the end
    joins/<exchange>/sent.json       whose ids were sent, in the order in which they were; encrypted under a passphrase
    joins/<exchange>/learnt.safetensors      what scores are made from, or put together with; encrypted under a passphrase
    joins/asked/<grant>.json         the customers whose scores are wanted of this peer, for this purpose ('fedround predict
                                     --with')

The exchange is named by the plan of its first step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedround.errors import ContractError, SetupError, TrustError
from fedround.federation import Federation
from fedround.files import create_once, make_folders
from fedround.records import Finding, Join, Plan, Told
from fedround.values import Digest, Name
from fedround.vertical import box, intersection
from fedround.vertical.spec import SCORING, TRAINING, Step
from infra.epochs import concluded, relayed
from site_workers.grants import Grant
from site_workers.site import Site

_ALIKE = ("labels", "features", "purpose", "number", "epsilon", "levels", "learnt")


@dataclass(frozen=True)
class SentByBoth:
    """What both members sent in one step: the plan that asked for it, and the answers."""

    plan: Plan
    digest: Digest
    told: tuple[Told, ...]


@dataclass(frozen=True)
class Exchange:
    """The steps before this one, proven, and both ends of the channel."""

    site: Site
    federation: Federation
    asks: Join
    link: Digest
    steps: dict[Step, SentByBoth]
    run: str

    @property
    def peer(self) -> str:
        """The other member."""
        return self.asks.peer_of(self.site.name)

    @property
    def _secret(self) -> tuple[bytes, bytes]:
        return self.site.noise_secret, bytes.fromhex(self.link)

    @property
    def folder(self) -> Path:
        """What is kept of it."""
        return self.site.folder / "joins" / self.link

    @property
    def exponent(self) -> X25519PrivateKey:
        """By which this site blinds ids, in this exchange and in no other."""
        return box.key_of(*self._secret, "exponent")

    @property
    def channel(self) -> X25519PrivateKey:
        """The end of the channel that is here."""
        return box.key_of(*self._secret, "channel")

    @property
    def seed(self) -> int:
        """For choices that may be known: folds, and where trees begin."""
        return int.from_bytes(bytes.fromhex(self.link)[:8], "little")

    def sealed(self, body: bytes, plan: Digest) -> bytes:
        """What is sent to the peer in answer to `plan`."""
        return box.seal(body, self.channel, self._peers_key, bytes.fromhex(plan), self.site.name, self.peer)

    def received(self, step: Step) -> bytes:
        """What the peer sent. Raises TrustError if it did not, or if it does not open."""
        sent = self.steps[step]
        with _holding(f"{step} of exchange {self.link[:16]}"):
            return box.opened(self._body(step), self.channel, self._peers_key, bytes.fromhex(sent.digest), self.peer,
                              self.site.name)

    def common(self, most: int, stop: Callable[[], bool] = lambda: False) -> tuple[list[str], bytes]:
        """The common ids, in an order that both find, and a digest of them. Raises TrustError for what is no set of ids,
        Cancelled if `stop` says so.
        """
        with _holding(f"exchange {self.link[:16]}"):
            mine = intersection.read(self.received("matched"), f"what '{self.peer}' returned")
            theirs = intersection.read(self.received("blinded"), f"the ids of '{self.peer}'", most)
            order = self.sent
            if len(mine) != len(order):
                raise ContractError(f"'{self.peer}' returned {len(mine)} points for {len(order)} ids")
            twice = intersection.raised(theirs, self.exponent, self.peer, stop)
            places, digest = intersection.common(mine, range(len(order)), twice)
        return [order[place] for place in places], digest

    @property
    def sent(self) -> list[str]:
        """Whose ids this site sent, in the order in which it did."""
        return list(json.loads(self.site.safe.read(self.folder / "sent.json")))

    def remember(self, customers: Sequence[str]) -> None:
        """Keep whose ids are sent, before they are."""
        self.site.safe.write(self.folder / "sent.json", json.dumps(customers).encode())

    def keep(self, learnt: dict[str, npt.NDArray[Any]]) -> None:
        """Keep what scores come from."""
        from safetensors.numpy import save

        self.site.safe.write(self.folder / "learnt.safetensors", save({name: np.ascontiguousarray(array) for name, array in
                                                                       learnt.items()}))

    def ended(self, plan: Plan, finding: Finding) -> Exchange:
        """With the last step, whose plan and finding these are."""
        return replace(self, steps={**self.steps, self.asks.step: SentByBoth(plan, finding.plan, finding.answers)})

    def promise(self, what: str, named: str) -> None:
        """From now on `what` of this exchange is `named`, for ever. Raises TrustError if it is something else already."""
        if not _promised(self.folder / what, named):
            raise TrustError(f"exchange {self.link[:16]}: this site has answered another plan for its step '{what}', or its "
                             "rows have changed since; it answers each step once. Begin a new exchange, if both members' "
                             "policies grant another one")

    @property
    def _peers_key(self) -> bytes:
        return self._body("channel")

    def _body(self, step: Step) -> bytes:
        sent = self.steps[step]
        told = next((one for one in sent.told if one.site == self.peer), None)
        if told is None:
            raise TrustError(f"{step} of exchange {self.link[:16]}: '{self.peer}' has sent nothing")
        return relayed(self.site.store, self.federation, sent.plan, sent.digest, told, lambda body, _: body)


@contextmanager
def _holding(source: str) -> Iterator[None]:
    """What does not hold in what others said is no reason to answer anything."""
    try:
        yield
    except ContractError as error:
        raise TrustError(f"{source}: {error}") from None


def read_exchange(site: Site, federation: Federation, agreed: Digest, plan: Plan, named: Digest) -> Exchange:
    """What was sent before the step that `plan` asks for. named: its digest. agreed: of the federation file.

    Raises TrustError or ChainError if a step before it is of another exchange, or does not hold.
    """
    asks = plan.asks
    if not isinstance(asks, Join):
        raise TrustError(f"plan {named[:16]}: is no step between two members")
    order, steps = (TRAINING if asks.learnt is None else SCORING), dict[Step, SentByBoth]()
    for place, placed in enumerate(asks.before):
        asked, finding = concluded(site.store, site.settings.coordinator, plan.run, agreed, placed, "join")
        was = asked.asks
        if not isinstance(was, Join) or was.step != order[place] or was.before != asks.before[:place] or any(
                getattr(was, name) != getattr(asks, name) for name in _ALIKE):
            raise TrustError(f"{asks.step} of an exchange between '{asks.labels}' and '{asks.features}': what it names as "
                             f"the step '{order[place]}' is a step of another exchange")
        steps[order[place]] = SentByBoth(asked, finding.plan, finding.answers)
    link = steps["channel"].digest if "channel" in steps else named
    return Exchange(site, federation, asks, link, steps, plan.run)


def kept_of(site: Site, link: Digest) -> dict[str, npt.NDArray[Any]]:
    """What was learnt in an exchange. Raises SetupError if nothing was."""
    from safetensors.numpy import load

    path = site.folder / "joins" / link / "learnt.safetensors"
    if not path.exists():
        raise SetupError(f"{path} is not there: nothing was learnt in this exchange here; restore it from your backup, or "
                         "begin a new exchange")
    return dict(load(site.safe.read(path)))


def want(site: Site, grant: Grant, customers: Sequence[str]) -> None:
    """Write down whose scores the operator wants of this peer, for this purpose. Nobody else is ever told of them."""
    path = _asked(site, grant)
    make_folders(path.parent, mode=0o700)
    site.safe.write(path, json.dumps(customers).encode())


def wanted(site: Site, grant: Grant) -> list[str]:
    """The customers whose scores the operator wants of this peer, for this purpose. Raises SetupError if none are."""
    path = _asked(site, grant)
    if not path.exists():
        raise SetupError(f"{path} is not there: say whose scores are wanted with 'fedround predict --with {grant.peer}'")
    return list(json.loads(site.safe.read(path)))


def uses_up(site: Site, grant: Grant, link: Digest) -> bool:
    """Whether the grant has room for this exchange, which it is then used for, for ever; the same again has."""
    place = _used(site, grant.peer, grant.purpose)
    return any(_promised(place / f"{number:04d}", link) for number in range(1, grant.times + 1))


def uses(site: Site, grant: Grant) -> list[Digest]:
    """The exchanges that were made under this grant, in their order, and under no other."""
    return [path.read_text() for path in sorted(_used(site, grant.peer, grant.purpose).glob("[0-9]*"))]


def was_used(site: Site, peer: Name, purpose: Name, link: Digest) -> None:
    """Write down again, in a folder that has forgotten it, that an exchange was made: whatever grant it was under."""
    place, number = _used(site, peer, purpose), 1
    while not _promised(place / f"{number:04d}", link):
        number += 1


def close(site: Site, link: Digest) -> None:
    """Answer no step of this exchange that the folder does not know to have answered."""
    for step in TRAINING:
        _promised(site.folder / "joins" / link / step, "recovered")


def _used(site: Site, peer: Name, purpose: Name) -> Path:
    return site.folder / "joins" / "used" / _grant(peer, purpose)


def _asked(site: Site, grant: Grant) -> Path:
    return site.folder / "joins" / "asked" / f"{_grant(grant.peer, grant.purpose)}.json"


def _grant(peer: Name, purpose: Name) -> str:
    return hashlib.sha256(f"{peer}/{purpose}".encode()).hexdigest()[:32]


def _promised(path: Path, named: str) -> bool:
    """Whether the file says so, now or already."""
    try:
        make_folders(path.parent, mode=0o700)
        return create_once(path, named.encode()) or path.read_text() == named
    except OSError as error:
        raise SetupError(f"{path}: it cannot be kept what was agreed with a peer ({error.strerror}), so nothing is sent; "
                         "make room, or mend the folder's permissions") from None
