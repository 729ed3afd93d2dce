"""A site's privacy ledger: what every release from one data set cost, on the site's own disk.

A hash-chained file (`fedround.privacy.chain`): its first line names the data set, every other is one charge. It is the site's
own, so the chain says that the file is as we wrote it, not that nobody rewrote all of it. It stores mechanisms, not
epsilons: a better accountant later reads the same facts.

`charge` returns only after its line is durable, and work begins only after `charge` has returned: a crash can leave a charge
for work that was not done (too much is safe), and never work without its charge.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fedround.errors import BudgetError, ContractError, LedgerError
from fedround.privacy import chain
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import Mechanism, Unit
from fedround.values import Digest, Name, Purpose, Round, Value


class Charge(Value):
    """What one release costs: the mechanisms, and the plan that asked for it."""

    federation: Name
    run: Name | None
    """None: of a run that nobody knows any more (`site_workers.recover`); it counts in every one."""
    round: Round
    purpose: Purpose
    plan: Digest | None
    """None: nobody knows any more."""
    mechanisms: Annotated[tuple[Mechanism, ...], Field(min_length=1)]
    delta_dp: Annotated[float, Field(gt=0, lt=0.1)]
    """What the plan promises its epsilon at; the total over the data set is compared with the budget at this value."""
    utc: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$")]


class _Opening(chain.Line):
    format: Literal["fedround-ledger/1"] = "fedround-ledger/1"
    dataset: Name


class _Entry(chain.Line):
    charge: Charge


_KIND = chain.Kind(
    name="privacy ledger", opening=_Opening, entry=_Entry, content="charge", error=LedgerError,
    if_lost="make one with 'fedround site init', or restore it from your backup; never start an empty one for rows that were "
            "used before")


@dataclass(frozen=True)
class Ledger:
    """What the file at `path` said when it was read."""

    path: Path
    dataset: str
    charges: tuple[Charge, ...]
    heads: tuple[str, ...]
    """The digests of its lines: the first, before any charge, and then one for each charge."""

    @property
    def head(self) -> str:
        """The digest of the last line; it stands for the whole history."""
        return self.heads[-1]


def create(path: Path, dataset: str) -> Ledger:
    """Open a ledger for the data set that the site calls `dataset`. Raises LedgerError if the file exists."""
    chain.create(_KIND, path, {"format": "fedround-ledger/1", "dataset": dataset})
    return read(path)


def read(path: Path) -> Ledger:
    """Read and verify a ledger. Raises SetupError if there is none, LedgerError if it is not as we wrote it."""
    return _ledger(path, chain.read(_KIND, path))


def charge(ledger: Ledger, charge: Charge, max_epsilon: float, max_epsilon_site: float | None = None,
           max_epsilon_per_run: float | None = None) -> Ledger:
    """Record `charge` before the work that it pays for; durable when this returns.

    The budget is the data set's: every charge in the ledger counts, of every run and federation. The same charge for
    the same plan (its time aside) is recorded once: a retry costs nothing. The same plan with other mechanisms is
    another release and is charged. Another process may have charged since `ledger` was read; that counts too.
    max_epsilon bounds what one record spends, max_epsilon_site what the site as a whole does (None: nothing was promised for
    it). Each counts everything that ever left, whatever it was noised for (see `accounting`). max_epsilon_per_run bounds what
    one record spends in the charge's own run.
    Raises BudgetError, and records nothing, if a total would exceed its bound at the charge's delta_dp; LedgerError if the
    file is not as we wrote it or does not continue `ledger`; PrivacyError if it cannot be written.
    """
    bounds: list[tuple[float | None, Unit, str | None]] = [
        (max_epsilon, "record", None), (max_epsilon_site, "site", None), (max_epsilon_per_run, "record", charge.run)]
    for bound, _, _ in bounds:
        if bound is not None and not bound >= 0:    # NaN too: nothing is greater than NaN, so it would allow everything
            raise ContractError(f"a budget is a number of at least 0, got max_epsilon {bound}")
    with chain.appending(_KIND, ledger.path) as file:
        current = _ledger(ledger.path, file.chain)
        if current.charges[:len(ledger.charges)] != ledger.charges or current.dataset != ledger.dataset:
            raise LedgerError(f"{ledger.path} does not continue what was read from it before: restore the newest copy")
        if charge.plan is not None and any(
                charge.model_copy(update={"utc": earlier.utc}) == earlier for earlier in current.charges):
            file.settle()
            return current
        for bound, unit, run in bounds:
            if bound is not None:
                _check_budget(current, charge, bound, unit, run)
        head = file.append(charge.model_dump(mode="json"))
    return _extended(current, charge, head)


def spent(ledger: Ledger, delta_dp: float, run: str | None = None, unit: Unit = "record") -> float:
    """Epsilon of one unit at `delta_dp`, of all charges or of those of one run; rounded up, infinite if anything left
    without noise for that unit.
    """
    return epsilon([mechanism for charge in ledger.charges if run is None or charge.run in (None, run)
                    for mechanism in charge.mechanisms], delta_dp, unit)


def _check_budget(ledger: Ledger, charge: Charge, bound: float, unit: Unit, run: str | None) -> None:
    after = spent(_extended(ledger, charge, ledger.head), charge.delta_dp, run, unit)
    if after > bound:
        raise BudgetError(
            f"data set '{ledger.dataset}': round {charge.round} of run '{charge.run}' would bring the epsilon of a {unit} "
            f"{'' if run is None else 'in this run '}from {spent(ledger, charge.delta_dp, run, unit):.6f} to {after:.6f} at "
            f"delta_dp {charge.delta_dp}, and the site's policy allows {bound:g}; nothing was charged")


def _extended(ledger: Ledger, charge: Charge, head: str) -> Ledger:
    return Ledger(ledger.path, ledger.dataset, (*ledger.charges, charge), (*ledger.heads, head))


def _ledger(path: Path, found: chain.Chain[_Opening, _Entry]) -> Ledger:
    return Ledger(path, found.opening.dataset, tuple(entry.charge for entry in found.entries),
                  (found.opening.sha256, *(entry.sha256 for entry in found.entries)))
