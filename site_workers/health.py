"""What a site's process says of itself: its last work, its budget, and what waits in its outbox."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from fedround.errors import FedroundError
from fedround.privacy import ledger
from fedround.privacy.spec import Unit
from infra.health import Number, log
from infra.settings import load_toml
from infra.stores import Traffic
from site_workers import outbox
from site_workers.outcome import Outcome
from site_workers.policy import SitePolicy
from site_workers.site import Site

Job = Callable[[dict[str, Any], Callable[[], bool]], Outcome]


_STORE = {"calls": "Calls of the store since the process began.", "seconds": "How long it was waited for in these.",
          "sent_bytes": "What it took in these.", "received_bytes": "What it gave out in these."}


class SiteNumbers:
    """The numbers of one site. The budget is priced when work has ended: whoever looks costs nothing."""

    def __init__(self, site: Site, traffic: Traffic) -> None:
        """traffic: of the store, since the process began."""
        self._site, self._traffic = site, traffic
        self._last: tuple[str, int, str, float] | None = None
        self._budgets: dict[Unit, tuple[float, float]] = {}

    def price(self) -> None:
        """Read the ledger, and price it by the policy as it is now."""
        policy = load_toml(SitePolicy, self._site.folder / "policy.toml")
        book = ledger.read(self._site.settings.data.ledger_file(self._site.folder))
        self._budgets = {unit: (ledger.held(book, policy.delta_dp, unit=unit), bound)
                         for unit, bound in policy.budgets.items()}

    def counted(self, job: Job) -> Job:
        """The same job, noted here."""
        def work(parameters: dict[str, Any], cancelled: Callable[[], bool]) -> Outcome:
            try:
                outcome = job(parameters, cancelled)
            finally:
                self._price_again()
            self._last = str(parameters.get("run")), int(parameters.get("round", 0)), outcome.ending.name, time.time()
            return outcome

        return work

    def _price_again(self) -> None:
        """What cannot be priced, a policy that is just being edited for example, changes no outcome."""
        try:
            self.price()
        except (FedroundError, OSError) as error:
            self._budgets = {}
            log.warning("the budget cannot be read: %s", error)

    def __call__(self) -> Iterator[Number]:
        """The numbers now."""
        yield Number("fedround_outbox_unsent", "Answers that the store has not taken yet.",
                     sum(1 for _ in outbox.unsent(self._site.safe)))
        for what, value in (("calls", self._traffic.calls), ("seconds", self._traffic.seconds),
                            ("sent_bytes", self._traffic.sent_bytes), ("received_bytes", self._traffic.received_bytes)):
            yield Number(f"fedround_store_{what}", _STORE[what], value)
        for unit, (spent, most) in self._budgets.items():
            of = {"unit": unit}
            yield Number("fedround_epsilon_spent", "What the data set's ledger counts, campaigns set aside included.", spent,
                         of)
            yield Number("fedround_epsilon_limit", "What policy.toml allows.", most, of)
        if self._last is not None:
            run, number, ending, when = self._last
            yield Number("fedround_last_round", "The last round that this process worked on.", number, {"run": run})
            yield Number("fedround_last_work_timestamp_seconds", "When its last work ended, and how.", when,
                         {"ending": ending.lower()})

