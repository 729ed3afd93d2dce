"""Questions that make no model: asked once, answered with noise, added up, signed, and proven with the run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from fedround import layout
from fedround.errors import ChainError, ContractError, QuorumError, SignatureError, StoreDeniedError, TrustError
from fedround.privacy import ledger
from fedround.privacy.spec import GaussianCounts
from fedround.records import Finding, Rejection
from fedround.signing import Identity, digest, seal, unseal
from fedround.statistics import Release, Statistic
from infra.settings import load_toml, save_toml
from infra.stores import MemoryStore, ObjectStore
from site_workers.policy import SitePolicy
from tasks.ask import MeasurementRequest, conclude, find, known, plan_question
from tasks.doctor import diagnose
from tasks.membership import add_member
from tasks.plan import Planned
from tasks.proofs import RoundProof
from tasks.requests import RoundRequest
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import LABELS, NAMES, X1, SmallFederation, changed
from tests.tasks.conftest import objects


def allow(federation: SmallFederation, *names: str) -> None:
    for name in names:
        path = federation.root / name / "policy.toml"
        save_toml(load_toml(SitePolicy, path).model_copy(update={
            "purposes": ("train", "evaluate", "measure"), "statistics": (
                "scores", "checks", "histograms", "group_counts", "moments", "quantiles", "missing", "models"),
        }), path, "measures, too")


def request(run: str = "spring", **changes: object) -> MeasurementRequest:
    return MeasurementRequest(run=run, **{"statistics": (X1, LABELS), **changes})


def asked(federation: SmallFederation, about: RoundRequest | None = None) -> Planned:
    return plan_question(federation.coordinator, about or request())


def concluded(federation: SmallFederation, about: RoundRequest | None = None, sites: tuple[str, ...] = NAMES) -> Finding:
    """The question goes its whole way."""
    planned = asked(federation, about)
    for name in sites:
        federation.answer(name, planned)
    return conclude(federation.coordinator, planned, federation.collect(planned))


@pytest.fixture(scope="module")
def measuring(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """One committed round; all sites allow measurements, and one is concluded. Its tests change nothing."""
    federation = small_federation.make(tmp_path_factory.mktemp("measuring"), max_epsilon=80.0)
    allow(federation, *NAMES)
    federation.round()
    concluded(federation)
    concluded(federation, RoundRequest(run="spring"))
    return federation


def test_what_is_concluded_waits_for_nobody(measuring: SmallFederation):
    assert diagnose(measuring.coordinator, "spring").waits == ()


@pytest.fixture
def fresh(federation: SmallFederation) -> SmallFederation:
    """Nothing is asked yet; all sites allow measurements."""
    allow(federation, *NAMES)
    return federation


# -- asking ------------------------------------------------------------------------------------------------------------


def test_a_run_that_does_not_exist_is_begun_and_nothing_is_trained(fresh: SmallFederation):
    planned = asked(fresh)
    assert (planned.plan.round, planned.plan.asks.kind, planned.plan.asks.statistics) == (0, "measure", (X1, LABELS))
    assert planned.plan.parent == planned.parent.digest
    assert [fresh.answer(name, planned) for name in NAMES] == ["answer"] * 3
    assert fresh.plan().plan.round == 1


def test_totals_are_what_all_sites_have_but_for_noise_of_the_size_that_is_said(measuring: SmallFederation):
    finding = find(measuring.coordinator, asked(measuring))
    for found, counts, noise in zip(finding.totals, measuring.exact(), (4.0, 6.0), strict=True):
        assert found.mechanism == GaussianCounts(noise_std=noise * np.sqrt(3))
        assert 0 < np.abs(found.table - counts).max() < 6 * found.noise_std
    assert [told.site for told in finding.answers] == sorted(NAMES)


def test_the_same_question_finds_its_plan_and_its_finding_and_costs_nothing(fresh: SmallFederation):
    other = request(statistics=(LABELS,))
    concluded(fresh, other)
    first, plan = concluded(fresh), asked(fresh)
    assert plan.plan.attempt == 2
    before, charges = objects(fresh.coordinator.store), len(ledger.read(fresh.site("north").ledger).charges)
    again = asked(fresh)
    assert (again.digest, find(fresh.coordinator, again)) == (plan.digest, first)
    assert find(fresh.coordinator, asked(fresh, other)).attempt == 1
    assert objects(fresh.coordinator.store) == before
    assert len(ledger.read(fresh.site("north").ledger).charges) == charges == 2


def test_who_only_looks_for_a_finding_writes_nothing(fresh: SmallFederation):
    coordinator = fresh.coordinator
    assert known(coordinator, request()) is None
    assert list(coordinator.store.list("")) == []
    found = concluded(fresh)
    before = objects(coordinator.store)
    assert known(coordinator, request()) == found
    assert known(coordinator, request(statistics=(X1,))) is None
    assert objects(coordinator.store) == before
    with pytest.raises(ContractError, match="quorum 4 can never be met by 3 sites"):
        known(coordinator, request("another", quorum=4))


def test_a_member_more_is_asked_too(fresh: SmallFederation):
    """What was counted without it does not answer the question any more."""
    first = concluded(fresh)
    add_member(fresh.root / "coordinator", "west", Identity.generate().key, 100.0)
    again = asked(fresh)
    assert (again.plan.attempt, again.plan.cohort) == (first.attempt + 1, (*NAMES, "west"))


def test_with_a_finding_another_deadline_or_a_quorum_that_was_met_is_no_new_question(fresh: SmallFederation):
    concluded(fresh)
    first = asked(fresh)
    assert asked(fresh, request(deadline_s=7)).digest == first.digest
    assert asked(fresh, request(quorum=3)).digest == first.digest


def test_a_quorum_that_was_not_met_is_asked_anew(fresh: SmallFederation):
    concluded(fresh, sites=("north", "east"))
    assert asked(fresh).plan.attempt == 1
    assert asked(fresh, request(quorum=3)).plan.attempt == 2


def test_another_question_about_the_same_model_has_a_plan_of_its_own(fresh: SmallFederation):
    quieter = X1.model_copy(update={"noise_std": 3.0})
    attempts = [asked(fresh, request(statistics=one)).plan.attempt for one in ((X1,), (quieter,), (X1, LABELS), (X1,))]
    assert attempts == [1, 2, 3, 1]


def test_after_a_round_the_same_is_asked_of_the_new_model(tmp_path, rows_are_judged_here: None):
    """Without noise in training: a run whose measurement has spent some has no room for what its plan promises."""
    fresh = small_federation.make(tmp_path, units=("record", "none"), privacy={"unit": "none"})
    allow(fresh, *NAMES)
    first = concluded(fresh)
    fresh.round()
    planned = asked(fresh)
    assert (first.round, planned.plan.round, find(fresh.coordinator, planned)) == (0, 1, None)


def test_below_the_quorum_nothing_is_published_and_later_answers_count(fresh: SmallFederation):
    planned = asked(fresh)
    fresh.answer("north", planned)
    before = objects(fresh.coordinator.store)
    with pytest.raises(QuorumError, match=r"measurement at round 0 of run 'spring': 1 of 3 sites gave an answer, the "
                                          r"quorum is 2\..*no answer 2: .* Nothing is published\..* run it again"):
        conclude(fresh.coordinator, planned, fresh.collect(planned))
    assert objects(fresh.coordinator.store) == before
    assert len(concluded(fresh, sites=("east",)).answers) == 2


def test_who_allows_no_measurement_is_named_with_its_reason(federation: SmallFederation):
    allow(federation, "north", "east")
    finding = concluded(federation)
    assert [told.site for told in finding.answers] == ["east", "north"]
    assert [(no.site, no.reason) for no in finding.refusals] == [("south", "policy")]


def test_a_site_that_noises_too_little_is_not_counted(fresh: SmallFederation):
    planned = asked(fresh)
    for name in NAMES:
        fresh.answer(name, planned)
    path = fresh.root / "store" / layout.answer("east", "spring", 0, 1, "measure")
    said = fresh.collect(planned).admitted["east"].answer
    quiet = said.releases[0].model_copy(update={"mechanism": GaussianCounts(noise_std=3.9)})
    path.chmod(0o600)
    path.write_bytes(seal(said.model_copy(update={"releases": (quiet, *said.releases[1:])}),
                          fresh.site("east").identity))
    finding = conclude(fresh.coordinator, planned, fresh.collect(planned))
    assert [rejection.site for rejection in finding.rejected] == ["east"]
    assert "noise 3.9, the plan asks for at least 4.0" in finding.rejected[0].reason


def test_of_two_coordinators_one_writes_the_finding_and_both_read_it(fresh: SmallFederation):
    planned = asked(fresh)
    for name in ("north", "east"):
        fresh.answer(name, planned)
    early = fresh.collect(planned)
    fresh.answer("south", planned)
    first = conclude(fresh.coordinator, planned, fresh.collect(planned))
    assert conclude(fresh.coordinator, planned, early) == first == find(fresh.coordinator, planned)


def test_where_a_site_as_a_whole_is_protected_nothing_is_counted(tmp_path, rows_are_judged_here):
    federation = small_federation.make(tmp_path, privacy={
        "unit": "site", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3},
        units=("site",), max_epsilon_site=8.0)
    with pytest.raises(ContractError, match="under the unit 'site' no counts leave the sites"):
        asked(federation)


@pytest.mark.parametrize("changes", [
    {"statistics": ()}, {"statistics": ({"kind": "mean", "column": "x1"},)}, {"run": "Spring"}, {"quorum": 0},
    {"statistics": ({"kind": "histogram", "column": "x1", "edges": [1.0, 0.0], "noise_std": 4.0},)},
    {"statistics": ({"kind": "histogram", "column": "x1", "edges": [0.0]},)}, {"rounds": 2}])
def test_a_request_is_bounded(changes: dict):
    asks = {"run": "spring", "statistics": [json.loads(X1.model_dump_json())]}
    assert MeasurementRequest.model_validate_json(json.dumps(asks)).statistics == (X1,)
    with pytest.raises(ValidationError):
        MeasurementRequest.model_validate_json(json.dumps({**asks, **changes}))


def test_the_form_says_what_it_asks_and_offers_each_statistic():
    """Prefect's form draws `anyOf`, and shows nothing where it finds `oneOf`."""
    schema = MeasurementRequest.model_json_schema()
    for name, field in schema["properties"].items():
        assert field.get("title"), name
        assert len(field.get("description", "")) > 20, name
    offered = schema["properties"]["statistics"]["items"]["anyOf"]
    assert {one["$ref"].split("/")[-1] for one in offered} == {
        one.__name__ for one in get_args(get_args(Statistic)[0])}
    assert "oneOf" not in json.dumps(schema["properties"])


# -- proven ------------------------------------------------------------------------------------------------------------


def proofs(federation: SmallFederation, store: ObjectStore | None = None) -> list[RoundProof]:
    coordinator = federation.coordinator
    return list(verify_run(store or coordinator.store, "spring", coordinator.identity.key))


def copied(federation: SmallFederation, without: str = "no key") -> MemoryStore:
    real, store = federation.coordinator.store, MemoryStore()
    for key in real.list(""):
        if not key.startswith(without):
            store.put_once(key, real.get(key))
    return store


def test_findings_are_proven_with_the_round_that_they_are_about(measuring: SmallFederation):
    begun, first = proofs(measuring)
    assert begun.findings == ()
    evaluation, measurement = first.findings
    assert (evaluation.asked, measurement.asked) == ("evaluate", "measure")
    assert measurement.answers == tuple(sorted(NAMES))
    assert measurement.totals == find(measuring.coordinator, asked(measuring)).totals
    assert (measurement.signatures, measurement.hashes) == (2 + 2 * 3, 1 + 3)


def lied(federation: SmallFederation, change: Callable[[Finding], dict[str, object]],
         identity: Identity | None = None) -> MemoryStore:
    """The store, in which the coordinator signed the finding of the measurement with changes."""
    planned = asked(federation)
    finding = find(federation.coordinator, planned)
    key = layout.finding("spring", planned.plan.round, planned.plan.attempt, "measure")
    store = copied(federation, without=key)
    changed_finding = finding.model_copy(update=change(finding))
    store.put_once(key, seal(changed_finding, identity or federation.coordinator.identity))
    return store


def moved(release: Release) -> Release:
    return release.model_copy(update={"numbers": (release.numbers[0] + 1, *release.numbers[1:])})


OTHER_TOTALS = "its totals are not what the sites' answers add up to"


@pytest.mark.parametrize(("change", "says"), [
    (lambda f, found: {"totals": (moved(found.totals[0]), *found.totals[1:])}, OTHER_TOTALS),
    (lambda f, found: {"totals": found.totals[:1]}, OTHER_TOTALS),
    (lambda f, found: {"totals": (found.totals[0].model_copy(update={"mechanism": GaussianCounts(noise_std=1.0)}),
                                  *found.totals[1:])}, OTHER_TOTALS),
    (lambda f, found: {"answers": found.answers[1:]}, "does not name every site of the cohort once"),
    (lambda f, found: {"answers": found.answers[1:], "missing": ("east",)}, OTHER_TOTALS),
    (lambda f, found: {"answers": found.answers[:1], "missing": ("north", "south")}, "1 answers, its plan asks for a quorum"),
    (lambda f, found: {"answers": (found.answers[0].model_copy(update={"answer": "0" * 64}), *found.answers[1:])},
     "answer of 'east' in round 1"),
    (lambda f, found: {"answers": found.answers[1:], "rejected": (Rejection(site="nobody", reason="no"),)},
     "does not name every site of the cohort once"),
    (lambda f, found: {"plan": "0" * 64}, "names is not in the store"),
], ids=["a changed total", "a total less", "less noise than it has", "an answer left out", "an answer called missing",
        "below the quorum", "another answer", "a stranger", "another plan"])
def test_a_finding_that_is_not_what_the_sites_said_is_caught(measuring: SmallFederation, change, says: str):
    with pytest.raises(TrustError, match=says):
        proofs(measuring, lied(measuring, lambda finding: change(measuring, finding)))


def test_a_finding_by_another_key_is_caught(measuring: SmallFederation):
    with pytest.raises(SignatureError, match="signed by another key"):
        proofs(measuring, lied(measuring, lambda _: {}, Identity.generate()))


def test_a_question_that_nobody_agreed_on_is_caught(fresh: SmallFederation):
    """A measurement may ask for anything, but under the agreed terms, of everybody, about a committed model."""
    planned = asked(fresh)
    for changes, says in [({"quorum": 1, "cohort": ("north",)}, "does not ask every member"),
                          ({"deadline_s": 61, "base_model": "0" * 64}, "does not continue the round before it"),
                          ({"contract_digest": "0" * 64}, "say: contract_digest")]:
        store = copied(fresh)
        plan = changed(planned.plan, attempt=2, **changes)
        document = seal(plan, fresh.coordinator.identity)
        store.put_once(layout.plan("spring", 0, 2, "measure"), document)
        finding = Finding(federation="small", run="spring", round=0, attempt=2, plan=digest(document), missing=plan.cohort,
                          tool_version=plan.tool_version)
        store.put_once(layout.finding("spring", 0, 2, "measure"), seal(finding, fresh.coordinator.identity))
        with pytest.raises(ChainError, match=says):
            proofs(fresh, store)


class SitesView(MemoryStore):
    """What a site's own credential shows."""

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        if key.startswith("sites/") and not key.startswith("sites/north/"):
            raise StoreDeniedError("this credential may not")
        return super().get(key, max_bytes=max_bytes, sha256=sha256)


def test_a_member_proves_of_a_finding_what_it_may_read_and_says_what_it_may_not(measuring: SmallFederation):
    store = SitesView()
    for key, body in objects(measuring.coordinator.store).items():
        store.put_once(key, body)
    assert proofs(measuring, store)[1].findings[1].unseen == ("east", "south")


def test_one_flipped_bit_in_a_finding_or_what_it_rests_on_is_found(measuring: SmallFederation):
    everything = objects(measuring.coordinator.store)
    names = [name for name in everything if "/measurements/" in name or "/evaluations/" in name]
    assert len(names) == 2 * (1 + 1 + 3)
    for name in names:
        store = copied(measuring, without=name)
        body = bytearray(everything[name])
        body[len(body) // 2] ^= 1
        store.put_once(name, bytes(body))
        with pytest.raises((TrustError, ContractError)):
            proofs(measuring, store)


def test_a_finding_is_signed_and_lies_beside_its_plan(measuring: SmallFederation):
    planned, coordinator = asked(measuring), measuring.coordinator
    document = coordinator.store.get(layout.finding("spring", 1, planned.plan.attempt, "measure"))
    finding = unseal(document, Finding, coordinator.identity.key, "finding")
    assert (finding.plan, finding.run, finding.round) == (planned.digest, "spring", 1)
    assert dataclasses.asdict(proofs(measuring)[1].findings[1])["asked"] == "measure"
