"""The regional coordinator: it admits its members' answers, adds up what they sent, and signs the sum.

It has a folder, a key and a store credential of its own: it reads its members' answers, and writes below its own prefix.
The plan, which the coordinator signed, says what is asked; the federation file, which the plan names, whose answers it may
add up.

::

    region.toml   its name, the federation, the coordinator's public key, where API and store are
    keys/         identity.pem, s3.toml: mode 0600
    spool/        updates of the round in progress, read in blocks
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedround import __version__, codec, layout
from fedround.errors import Cancelled, ChainError, ContractError, TrustError
from fedround.federation import Federation
from fedround.federation_log import Logged
from fedround.records import Counted, PartialSum, Rejection
from fedround.regions import sums
from fedround.regions.spec import Region
from fedround.signing import Identity, digest, seal
from fedround.values import Payload
from infra.epochs import who_dealt
from infra.federation_log import read_up_to
from infra.history import read_commit, read_plan_at
from infra.invitations import RegionInvitation
from infra.passphrase import passphrase_for
from infra.settings import RegionSettings, load_toml
from infra.stores import ObjectStore, Patience, open_store, put_first
from tasks import partial_sums, spool
from tasks.collect import MAX_POLL_S, MOST_SHARES, POLL_S, UNREADABLE, admit, last_look_s, with_part
from tasks.collected import Collected, Heard
from tasks.new_folder import new_folder
from tasks.plan import Planned

log = logging.getLogger("fedround.region")

AUTHORISE_S = 300.0
"""How long a region waits for the store until it knows the plan."""


@dataclass(frozen=True)
class Post:
    """A regional coordinator's folder, opened."""

    folder: Path
    settings: RegionSettings
    identity: Identity
    store: ObjectStore

    def within(self, patience: Patience) -> Post:
        """The same, which waits for its store no longer than this."""
        return replace(self, store=self.store.within(patience))


@dataclass(frozen=True)
class RegionOrder:
    """A plan that this region has a part in, verified."""

    planned: Planned
    region: Region
    members: Federation
    log: Sequence[Logged]


def create_region(folder: Path, asked: RegionInvitation) -> str:
    """Make a regional coordinator's folder with a new key; returns the public key. Raises SetupError if it is in use."""
    identity = Identity.generate()
    with new_folder(folder, asked.settings, identity, asked.credential):
        pass
    return identity.key


def open_region(folder: Path) -> Post:
    """Read and check the folder. Raises SetupError or ContractError that says which file to mend."""
    settings, key = load_toml(RegionSettings, folder / "region.toml"), folder / "keys" / "identity.pem"
    return Post(folder, settings, Identity.load(key, passphrase_for(key)), open_store(settings.store, folder))


def authorise(post: Post, run: str, number: int, attempt: int) -> RegionOrder:
    """The plan, if the coordinator signed it as the continuation of the run, and the federation file that it names gives
    this region's key a mandate for it.

    Raises TrustError if anything does not hold, NotFoundError if there is no such plan.
    """
    source, key, name = f"plan of round {number} of run '{run}'", post.settings.coordinator, post.settings.name
    plan, named = read_plan_at(post.store, run, number, attempt, "train", key)
    entries = read_up_to(post.store, key, plan.log, source)
    members = entries[-1].federation
    if plan.federation != post.settings.federation or entries[-1].entry.federation_digest != plan.federation_digest:
        raise TrustError(f"{source}: is of another federation, or names another federation file than the log does")
    if plan.agreed.regions != members.regions:
        raise TrustError(f"{source}: names other regions than the federation file")
    region = next((one for one in members.regions if one.name == name), None)
    if region is None or region.key != post.identity.key:
        raise TrustError(f"{source}: the federation file gives the key of region '{name}' no mandate. Send the coordinator "
                         f"this key: {post.identity.key}")
    parent = read_commit(post.store, run, number - 1, key)
    if parent.digest != plan.parent:
        raise ChainError(f"{source}: continues another commit than the one in the store")
    return RegionOrder(Planned(plan, named, parent), region, members, entries)


def serve(post: Post, run: str, number: int, attempt: int, cancelled: Callable[[], bool] = lambda: False,
          sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic) -> PartialSum:
    """Wait for the region's members until all have said something or the plan's deadline is over; add up what is admitted,
    sign it, and put it into the store.

    What was signed for the plan stands, unless a member has answered since: then another is signed. A store that is slow, or
    away for a while, is waited for as long as the coordinator does; of that time a member whose answer comes slowly gets its
    share. Raises Cancelled if it is told to stop before it has signed.
    """
    order = authorise(post.within(Patience(AUTHORISE_S, moved=cancelled)), run, number, attempt)
    plan, asked = order.planned.plan, order.region.asked(order.planned.plan.cohort)
    patience = Patience(plan.deadline_s + last_look_s(plan), moved=cancelled)
    heard, begun, pause = Collected(), clock(), POLL_S
    while True:
        late = clock() - begun >= plan.deadline_s
        before, waiting = len(heard.answered), sorted(set(asked) - heard.answered)
        for site in waiting:
            heard = heard.hearing(site, _admitted(post.within(patience.share(min(len(waiting), MOST_SHARES))), order, site))
        if late or heard.answered >= set(asked):
            break
        if cancelled():
            raise Cancelled(f"region '{order.region.name}', {order.planned.in_words}: stopped before it had signed")
        sleep(pause)
        pause = POLL_S if len(heard.answered) > before else min(pause * 1.2, MAX_POLL_S)
    heard = replace(heard, missing=tuple(sorted(set(asked) - heard.answered)))
    post = post.within(Patience(last_look_s(plan), moved=cancelled))
    if (slot := plan.asks.slot) is not None:
        dealt = who_dealt(post.store, post.settings.coordinator, run, plan.federation_digest, slot.dealt)
        heard = with_part(dealt, plan, heard)
    standing = partial_sums.newest(post.store, order.planned, order.region)
    if standing is not None and not set(standing[0].missing) - set(heard.missing):
        return standing[0]
    return _signed(post, order, heard)


def _admitted(post: Post, order: RegionOrder, site: str) -> Heard | None:
    try:
        return admit(post, order.members, order.planned, site, order.log)
    except UNREADABLE as error:
        log.warning("site '%s', %s: its answer cannot be read: %s", site, order.planned.in_words, error)
        return None


@dataclass(frozen=True)
class _Added:
    """Whose numbers are in a sum, each with the length of its update; who was left out, and why; the sum."""

    counted: Mapping[str, float | None]
    wrong: Mapping[str, str]
    on_disk: tuple[Path, Payload] | None


def _added(post: Post, planned: Planned, name: str, heard: Collected) -> _Added:
    """Of updates, those that are finite and in proportion. Of masked answers nobody sees what they are, and all are added."""
    if planned.plan.asks.slot is not None:
        files = {site: file for site, one in sorted(heard.admitted.items()) if (file := one.file) is not None}
        return _Added(dict.fromkeys(files), {},
                      partial_sums.added_masked(post, planned, name, list(files.values())) if files else None)
    rows = {site: row for site, one in sorted(heard.admitted.items()) if (row := one.row) is not None}
    norm_of = sums.norms(list(rows.values()), codec.coordinates(planned.plan.sent))
    wrong = sums.left_out(norm_of)
    counted = {site: row for site, row in rows.items() if site not in wrong}
    return _Added({site: norm_of[site] for site in counted}, wrong,
                  partial_sums.added_up(post, planned, name, list(counted.values())) if counted else None)


def _signed(post: Post, order: RegionOrder, heard: Collected) -> PartialSum:
    planned, name, plan = order.planned, order.region.name, order.planned.plan
    added = _added(post, planned, name, heard)
    said = PartialSum(
        federation=plan.federation, run=plan.run, round=plan.round, attempt=plan.attempt, region=name, plan=planned.digest,
        log=plan.log, counted=tuple(Counted(site=site, answer=heard.admitted[site].digest, norm=norm)
                                    for site, norm in added.counted.items()),
        refusals=tuple(no.committed for _, no in sorted(heard.refused.items())),
        rejected=tuple(sorted((*heard.rejected.values(), *(
            Rejection(site=site, reason=f"its update {words}") for site, words in added.wrong.items())),
            key=lambda no: no.site)),
        missing=heard.missing, numbers=None if added.on_disk is None else added.on_disk[1], tool_version=__version__)
    document = seal(said, post.identity)
    if added.on_disk is not None:
        partial_sums.put_numbers(post.store, planned, name, added.on_disk[0], added.on_disk[1].sha256)
    for count in range(partial_sums.counted(post.store, planned, name) + 1, partial_sums.MOST + 1):
        key = layout.partial(*partial_sums.where(planned, name), count)
        put_first(post.store, key, document)
        if digest(post.store.get(key)) == digest(document):
            spool.clear(post, planned)
            return said
    raise ContractError(f"region '{name}', {planned.in_words}: {partial_sums.MOST} partial sums were signed for one plan, "
                        "and no more can be; the coordinator begins a new run")
