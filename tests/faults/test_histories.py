"""Months of a federation in a second: members answer, die, come late, come back from a backup, change keys, join and leave,
in any order. Whatever happened: what is written stays, nobody pays twice, the history proves, and the next round works.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedround.errors import AuditError, ContractError, FedroundError, QuorumError, SetupError
from fedround.privacy import ledger
from fedround.sightings import answers_to
from fedround.signing import Identity
from infra.history import last_round, read_commit
from site_workers import audit, recover
from site_workers.keys import begin_rotation
from site_workers.service import begin
from tasks.membership import add_member, revoke_key, rotate_key
from tasks.plan import Planned
from tasks.verify import verify_run
from tests import small_federation
from tests.faults.crash import Watch
from tests.small_federation import SmallFederation

NAMES = ("ash", "birch", "cedar", "elm")
RUN = "spring"
LONG = {"unit": "record", "epsilon": 50.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 40}


class KilledError(BaseException):
    """The process is dead: it changes nothing more on any disk."""


class Mortal(Watch):
    """As `Watch`, for this process: it does not die, and from its death on every change fails."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.alive = True
        sys.addaudithook(self._hear)

    def _change(self, what: str, path: str, torn: int | None = None) -> None:
        if self.kill_at is not None:
            self.alive &= self.kill_at > 0
            self.kill_at -= 1
            if not self.alive:
                raise KilledError

    @contextmanager
    def dies(self, root: Path, after: int | None):
        """What is done within dies at its change with this number; None: it lives."""
        self.root, self.kill_at, self.alive = root, after, True
        try:
            yield
        except KilledError:
            pass
        finally:
            self.root, self.kill_at = Path("/nowhere"), None


@pytest.fixture(scope="module")
def mortal() -> Mortal:
    return Mortal()


@pytest.fixture(scope="module", params=[{}, {"quorum": 1, "enough": 2, "pace": {"max_age": 2}}],
                ids=["one pace", "own paces"])
def founded(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None,
            request: pytest.FixtureRequest) -> SmallFederation:
    return small_federation.make(tmp_path_factory.mktemp("founded"), names=NAMES, max_epsilon=1000.0, privacy=LONG,
                                 **request.param)


DEATH = st.one_of(st.none(), st.integers(0, 80))


def histories(founded: SmallFederation, mortal: Mortal) -> type[RuleBasedStateMachine]:
    """The machine, on copies of one federation."""

    class Histories(RuleBasedStateMachine):
        plans = Bundle("plans")

        @initialize()
        def begin(self) -> None:
            self.folder = tempfile.TemporaryDirectory(prefix="fedround-histories-")
            self.root = Path(self.folder.name)
            self.federation = founded.copy(self.root)
            self.members, self.known = set(NAMES), dict[str, bytes]()
            self.backed_up, self.lost = set[str](), set[str]()

        @rule(target=plans, death=DEATH)
        def plan(self, death: int | None) -> Planned | None:
            with mortal.dies(self.root, death):
                return self.federation.plan(RUN)
            return None

        @rule(plan=plans, name=st.sampled_from(NAMES), death=DEATH, times=st.integers(1, 2))
        def answer(self, plan: Planned | None, name: str, death: int | None, times: int) -> None:
            """To a plan that may be of yesterday, by a process that has just started."""
            if plan is None or name not in plan.plan.answering:
                return
            plan = plan.of(name)
            for _ in range(times):
                with mortal.dies(self.root, death):
                    try:
                        begin(self.federation.site(name))
                        self.federation.answer(name, plan)
                    except (AuditError, SetupError) as error:
                        assert name in self.lost, error        # only a folder of yesterday does not serve
                    except FedroundError as error:
                        assert 20 < len(str(error)) < 900

        @rule(plan=plans, death=DEATH)
        def commit(self, plan: Planned | None, death: int | None) -> None:
            if plan is None:
                return
            with mortal.dies(self.root, death):
                try:
                    self.federation.commit(self.federation.plan(RUN) if death is None else plan)
                except QuorumError:
                    pass
                except ContractError as error:
                    assert 20 < len(str(error)) < 900

        @rule(name=st.sampled_from(NAMES))
        def back_up(self, name: str) -> None:
            if name not in self.lost:
                shutil.rmtree(self.root / f"{name}.backup", ignore_errors=True)
                shutil.copytree(self.root / name, self.root / f"{name}.backup")
                self.backed_up.add(name)

        @precondition(lambda self: self.backed_up)
        @rule(data=st.data())
        def restore(self, data: st.DataObject) -> None:
            name = data.draw(st.sampled_from(sorted(self.backed_up)))
            shutil.rmtree(self.root / name)
            shutil.copytree(self.root / f"{name}.backup", self.root / name)
            self.lost.add(name)

        @precondition(lambda self: self.lost)
        @rule(data=st.data(), death=DEATH)
        def recover(self, data: st.DataObject, death: int | None) -> None:
            name = data.draw(st.sampled_from(sorted(self.lost)))
            with mortal.dies(self.root, death):
                self._recover(name)

        def _recover(self, name: str) -> None:
            site = self.federation.site(name)
            recover.restore(site, recover.forgotten(site))

        @rule(name=st.sampled_from(NAMES), death=DEATH)
        def change_key(self, name: str, death: int | None) -> None:
            if name in self.members and name not in self.lost:
                with mortal.dies(self.root, death):
                    try:
                        self.backed_up.discard(name)       # a folder without the new key has to be enrolled anew
                        begin_rotation(self.federation.site(name), None)
                        rotate_key(self.root / "coordinator", name)
                    except FedroundError as error:
                        assert 20 < len(str(error)) < 900

        @rule(name=st.sampled_from(NAMES), death=DEATH)
        def leave(self, name: str, death: int | None) -> None:
            if name in self.members and len(self.members & {*NAMES}) > 3 and self._goes_on_with(self.members - {name}):
                with mortal.dies(self.root, death):
                    revoke_key(self.root / "coordinator", name)
                self._look_who_is_there()

        @rule(number=st.integers(0, 5), death=DEATH)
        def join(self, number: int, death: int | None) -> None:
            """Somebody who never answers."""
            guest = f"guest-{number}"
            if guest not in self.members and len(self.members) < 6 and self._goes_on_with(self.members | {guest}):
                with mortal.dies(self.root, death):
                    add_member(self.root / "coordinator", f"guest-{number}", Identity.generate().key, 10.0)
                self._look_who_is_there()

        def _goes_on_with(self, members: set[str]) -> bool:
            """With a pace, a majority must answer now and then; guests never do."""
            return founded.coordinator.federation.pace is None or 2 * len(members & {*NAMES}) > len(members)

        def _look_who_is_there(self) -> None:
            self.members = {site.name for site in self.federation.coordinator.federation.sites}

        @invariant()
        def what_is_written_stays(self) -> None:
            if not hasattr(self, "root"):
                return
            store = self.federation.coordinator.store
            now = {key: store.get(key) for key in store.list("")}
            assert self.known.items() <= now.items()
            self.known = now

        @invariant()
        def nobody_pays_twice(self) -> None:
            if not hasattr(self, "root"):
                return
            for name in NAMES:
                book = ledger.read(self.root / name / "ledger.jsonl")
                assert max(Counter((charge.plan, charge.mechanisms) for charge in book.charges).values(), default=0) <= 1
                if name not in self.lost:
                    audit.verify(self.federation.site(name).safe)

        def teardown(self) -> None:
            """Everybody starts again, and the next round works; then all of it proves."""
            if not hasattr(self, "root"):
                return
            for name in NAMES:
                if name in self.lost:
                    self._recover(name)
                begin(self.federation.site(name))
            planned = self.federation.plan(RUN)
            mine = [name for name in NAMES if name in planned.plan.answering]
            for name in mine:
                self.federation.answer(name, planned.of(name))
            committed = self.federation.commit(planned)
            assert {update.site for update in committed.commit.updates} == set(mine)
            self._no_answer_counts_twice(committed.commit.round)
            store, key = self.federation.coordinator.store, self.federation.coordinator.identity.key
            assert [proof.round for proof in verify_run(store, RUN, key)] == list(range(committed.commit.round + 1))
            assert last_round(store, RUN, key) == committed.commit.round
            self.folder.cleanup()

        def _no_answer_counts_twice(self, last: int) -> None:
            mine = self.federation.coordinator
            commits = [read_commit(mine.store, RUN, number, mine.identity.key).commit for number in range(last + 1)]
            counted = Counter((one.site, answers_to(commit, one)) for commit in commits for one in commit.updates)
            assert max(counted.values()) == 1
            assert all(0 <= commit.round - answers_to(commit, one) <= 2 for commit in commits for one in commit.updates)

    return Histories


def tried(founded: SmallFederation, mortal: Mortal, examples: int, steps: int) -> None:
    machine = histories(founded, mortal).TestCase
    machine.settings = settings(max_examples=examples, stateful_step_count=steps, deadline=None, print_blob=True,
                                suppress_health_check=list(HealthCheck))
    machine().runTest()


def test_some_histories(founded: SmallFederation, mortal: Mortal):
    tried(founded, mortal, 3, 12)


def test_many_histories(founded: SmallFederation, mortal: Mortal):
    tried(founded, mortal, int(os.environ.get("FEDROUND_HISTORIES", "60")), 30)
