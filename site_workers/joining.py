"""A site's part in an exchange with one other member: what it sends in each step, and what it must be allowed for that.

Nothing is sent but to the peer that the policy names, and each step once. The audit log says what the peer is about to learn,
before it does. Labels are told by a coin, and charged. Ids and scores are disclosed: no epsilon is about them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedround.errors import BudgetError, Cancelled, ContractError, SetupError, TrustError
from fedround.learning.persons import ids_of
from fedround.privacy import ledger
from fedround.privacy.noise import stream
from fedround.privacy.spec import NoPrivacy, RandomisedLabels
from fedround.records import Join, Reason, Refusal
from fedround.spoken import how_many
from fedround.vertical import box, intersection, labels, learners
from fedround.vertical.labels import UNTOLD
from fedround.vertical.spec import Step
from site_workers import audit, charging, database, exchange, grants, registry
from site_workers.authorise import Order, refuse
from site_workers.exchange import Exchange, read_exchange, uses_up
from site_workers.grants import Grant
from site_workers.rows import digest_of_files, judged, read_columns
from site_workers.site import Site

_DIGEST = 32
Stop = Callable[[], bool]
"""Whether to stop: the run was, or the policy's time is up."""


@dataclass(frozen=True)
class Said:
    """What a site sends in one step, and the ledger that was charged for it."""

    body: bytes
    noised: tuple[RandomisedLabels, ...]
    book: ledger.Ledger


@dataclass(frozen=True)
class _Own:
    """The site's customers, as far as they count, one row each."""

    place: dict[str, int]
    """Of each id: its row's place among the columns."""
    columns: dict[str, npt.NDArray[Any]]
    train: int
    """So many rows come first: labels are told of these alone."""

    def numbers(self, names: tuple[str, ...], of: list[str]) -> npt.NDArray[np.float64]:
        """Columns of these customers' rows, (N, D); nan where there is no number."""
        places = [self.place[customer] for customer in of]
        return np.column_stack([floats(self.columns[name][places]) for name in names]).reshape(len(of), len(names))

    def labels(self, name: str, of: list[str]) -> labels.Int8:
        """0 or 1 of these customers' rows to train on, -1 of those held out. Raises ContractError for another label."""
        places = np.array([self.place[customer] for customer in of], dtype=np.int64)
        value_N = floats(self.columns[name][places])
        if not np.isin(value_N[places < self.train], (0.0, 1.0)).all():
            raise ContractError(f"column '{name}' has labels other than 0 and 1")
        return np.where(places < self.train, np.nan_to_num(value_N), UNTOLD).astype(np.int8)


def step(site: Site, order: Order, stop: Stop) -> Said | Refusal:
    """Carry out one step, if the policy grants it. Raises TrustError for what does not hold, and Cancelled if `stop` says so
    while it works (not while a model is fitted): then nothing is sent.
    """
    asks = order.plan.asks
    if not isinstance(asks, Join) or site.name not in asks.senders:
        raise TrustError(f"plan {order.digest[:16]}: '{site.name}' has nothing to send in this step")
    found = read_exchange(site, order.federation, order.plan.federation_digest, order.plan, order.digest)
    grant = grants.find(site.policy.vertical, asks, site.name)
    why_not = grants.objection(grant, asks, site.name, order.federation, site.clock(),
                               labels_have_a_budget=site.policy.max_epsilon_label is not None)
    if grant is None or why_not is not None:
        return refuse(site, order, Reason.POLICY, (why_not or "")[:300])
    if not uses_up(site, grant, found.link):
        return refuse(site, order, Reason.POLICY,
                      f"no more than {how_many(grant.times, 'exchange')} with '{grant.peer}' for '{asks.purpose}' may be "
                      "made here")
    found.promise(asks.step, order.digest)
    if asks.step == "channel":
        return _free(site, box.public_of(found.channel))
    try:
        return _WORK[asks.step](site, order, found, grant, stop)
    except BudgetError as error:
        charging.log.error("%s", error)
        return refuse(site, order, Reason.BUDGET, "the site's privacy budget would be exceeded")
    except (ContractError, SetupError) as error:
        charging.log.error("%s of an exchange with '%s': %s", asks.step, grant.peer, error)
        return refuse(site, order, Reason.DATA, "the rows cannot be used for this exchange; the site's operator sees why")


def _blinded(site: Site, order: Order, found: Exchange, grant: Grant, stop: Stop) -> Said | Refusal:
    """Every id, blinded. From it the peer learns how many there are."""
    customers = _customers(site, order, found, grant)
    if len(customers) > grant.most:
        return refuse(site, order, Reason.POLICY, f"more than the {how_many(grant.most, 'customer')} that may be compared "
                                                  "here")
    points, order_N = intersection.blinded(customers, found.exponent, bytes.fromhex(found.link), site.name, stop)
    found.remember([customers[place] for place in order_N])
    _disclose(site, order, grant, "how many ids", len(customers))
    return _free(site, found.sealed(intersection.written(points), order.digest))


def _matched(site: Site, order: Order, found: Exchange, grant: Grant, stop: Stop) -> Said | Refusal:
    """The peer's ids, blinded once more. From them the peer learns which of its own this site has, too."""
    source = f"the ids of '{found.peer}'"
    try:
        theirs = intersection.read(found.received("blinded"), source, grant.most)
        raised = intersection.raised(theirs, found.exponent, found.peer, stop)
    except ContractError as error:
        return refuse(site, order, Reason.POLICY, str(error)[:300])
    _disclose(site, order, grant, "which ids both have", len(theirs))
    return _free(site, found.sealed(intersection.written(raised), order.digest))


def _labels(site: Site, order: Order, found: Exchange, grant: Grant, stop: Stop) -> Said | Refusal:
    """A label of each common customer with a row to train on, told by a coin; charged before it is drawn."""
    (mechanism,) = order.plan.asks.noised if isinstance(order.plan.asks, Join) else (None,)
    if grant.label is None or mechanism is None or isinstance(order.plan.agreed.privacy, NoPrivacy):
        return refuse(site, order, Reason.POLICY, "labels are told under a promise of privacy alone")
    own = _own(site, order, found, grant)
    common, digest = found.common(grant.most, stop)
    label_N = own.labels(grant.label, common)
    book = charging.charge_labels(site, order, mechanism)
    rows = digest_of_files(site.row_files)
    told_N = labels.told(label_N, mechanism.epsilon, stream(site.noise_secret, order.digest.encode(), rows, b"labels"))
    found.keep({"columns": own.numbers(grant.columns, common), "labels": label_N, "digest": np.frombuffer(digest, np.uint8)})
    _disclose(site, order, grant, "randomised labels", int((label_N != UNTOLD).sum()))
    return Said(found.sealed(digest + told_N.tobytes(), order.digest), (mechanism,), book)


def _scores(site: Site, order: Order, found: Exchange, grant: Grant, stop: Stop) -> Said | Refusal:
    """A score of each common customer. What it tells of the customer's columns has no epsilon: at most log2(levels) bits."""
    asks = found.asks
    own = _own(site, order, found, grant)
    common, digest = found.common(grant.most, stop)
    column_ND = own.numbers(grant.columns, common)
    if asks.learnt is None:
        told_N = said_of(found, "labels", digest, len(common)).view(np.int8)
        score_N = learners.scores(column_ND, told_N, grant.learner, asks.levels, found.seed)
        found.keep({"columns": column_ND, "labels": told_N, "seed": np.array([found.seed], np.uint64)})
    elif asks.learnt not in exchange.uses(site, grant):
        return refuse(site, order, Reason.POLICY, f"what is to give the scores was not learnt with '{grant.peer}' for "
                                                  f"'{grant.purpose}'"[:300])
    else:
        before = exchange.kept_of(site, asks.learnt)
        score_N = learners.scores(before["columns"], before["labels"], grant.learner, asks.levels, int(before["seed"][0]),
                                  column_ND)
    if stop():
        raise Cancelled("the time for scores was over when there were some; none was told")
    _disclose(site, order, grant, "scores", len(common))
    return _free(site, found.sealed(digest + score_N.tobytes(), order.digest))


_WORK: dict[str, Callable[[Site, Order, Exchange, Grant, Stop], Said | Refusal]] = {
    "blinded": _blinded, "matched": _matched, "labels": _labels, "scores": _scores}


def said_of(found: Exchange, step: Step, digest: bytes, count: int) -> npt.NDArray[np.uint8]:
    """What the peer said of each common customer, (N,). Raises TrustError if it found others than this site, or if it told
    what no label or score can be.
    """
    said = found.received(step)
    if said[:_DIGEST] != digest or len(said) != _DIGEST + count:
        raise TrustError(f"exchange {found.link[:16]}: '{found.peer}' tells {step} of other customers than both have")
    told_N = np.frombuffer(said[_DIGEST:], np.uint8)
    if not (np.isin(told_N.view(np.int8), (UNTOLD, 0, 1)) if step == "labels" else told_N < found.asks.levels).all():
        raise TrustError(f"exchange {found.link[:16]}: '{found.peer}' tells {step} that there are not")
    return told_N


def _customers(site: Site, order: Order, found: Exchange, grant: Grant) -> list[str]:
    """Whose ids are sent: of all rows; where scores are asked for, of those whose scores are wanted."""
    if found.asks.learnt is not None and site.name == found.asks.labels:
        return exchange.wanted(site, grant)
    return sorted(_own(site, order, found, grant).place)


def _own(site: Site, order: Order, found: Exchange, grant: Grant) -> _Own:
    """The rows that count. Raises ContractError or SetupError, which quote no value."""
    database.of_run(site, order.plan.run)
    verdict, rows = judged(site), digest_of_files(site.row_files)
    if verdict.form != ():
        raise ContractError("the rows do not meet the contract")
    found.promise("rows", rows.hex())
    registry.look(site.folder, site.settings.data, rows, audit.utc(site.clock()))
    gives_labels = grant.label is not None and site.name == found.asks.labels
    names = [grant.id, *grant.columns, *([grant.label] if gives_labels and grant.label is not None else [])]
    columns = read_columns(site, names)
    if missing := sorted({*names} - columns.keys()):
        raise ContractError(f"the rows have no column '{missing[0]}'")
    left_out, place = set(verdict.left_out), dict[str, int]()
    for row, customer in enumerate(ids_of(columns[grant.id])):
        if not customer or row in left_out:
            continue
        if customer in place:
            raise ContractError(f"two rows have the same '{grant.id}': an exchange needs one row for each customer")
        place[customer] = row
    if len(place) < site.policy.min_rows:
        raise ContractError(f"{how_many(len(place), 'row')}, the policy asks for {site.policy.min_rows}")
    train = len(next(iter(read_columns(site, [grant.id], site.row_files[:1]).values()), []))
    return _Own(place, columns, train)


def floats(value_N: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """A column as numbers, (N,); nan where there is none."""
    if value_N.dtype != object:
        return value_N.astype(np.float64)
    return np.array([float(value) if isinstance(value, int | float) else np.nan for value in value_N], dtype=np.float64)


def _free(site: Site, body: bytes) -> Said:
    return Said(body, (), ledger.read(site.ledger))


def _disclose(site: Site, order: Order, grant: Grant, what: audit.Told, count: int) -> None:
    audit.record(site.folder, audit.Disclosed(
        utc=audit.utc(site.clock()), plan=order.digest, peer=grant.peer, purpose=grant.purpose, told=what, count=count))
