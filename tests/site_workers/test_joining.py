"""An exchange between two members: what each learns, what the coordinator learns, and what a policy refuses."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from fedround import codec, layout
from fedround.errors import (
    Cancelled,
    ContractError,
    FedroundError,
    LostError,
    PrivacyError,
    SetupError,
    SignatureError,
    TrustError,
)
from fedround.privacy import ledger
from fedround.privacy.spec import RandomisedLabels
from fedround.records import Answer, Join, Told
from fedround.signing import digest, seal, unseal
from fedround.vertical import box, intersection
from fedround_cli.main import app
from infra.history import read_commit, read_finding
from site_workers import audit, exchange, joining, recover, together
from site_workers import round as site_round
from site_workers.policy import Limits
from site_workers.preflight import _vertical
from tasks.epochs import newest_first
from tasks.plan import Planned
from tasks.verify import verify_run
from tests.joining import BANK, REQUEST, SHOP, Joining, customers, make


@pytest.fixture(scope="module")
def new(tmp_path_factory, rows_are_judged_here):
    made = make(tmp_path_factory.mktemp("new") / "f")
    made.step(made.until("blinded"))
    return made


@pytest.fixture(scope="module")
def begun(new, tmp_path_factory):
    return copied(new, tmp_path_factory.mktemp("begun"))


@pytest.fixture(scope="module")
def done(new, tmp_path_factory):
    made = copied(new, tmp_path_factory.mktemp("done"))
    made.whole()
    return made


def copied(made: Joining, root) -> Joining:
    return Joining(made.copy(root / "f").root, made.names)


@pytest.fixture
def again(begun, tmp_path):
    return copied(begun, tmp_path)


def refused(made: Joining, name: str, planned) -> str:
    made.answer(name, planned)
    said = made.said(name, planned)
    assert said["kind"] == "refusal"
    return f"{said['body']['reason']}: {said['body']['detail']}"


def both() -> set[str]:
    bank, shop = customers()
    return {*bank["customer"].iloc[:450]} & {*shop["customer"].iloc[150:]}


# -- what it is for ----------------------------------------------------------------------------------------------------


def test_both_learn_who_is_common_and_labels_are_paid_for(done):
    last = steps_of(done)[0]
    for name in (BANK, SHOP):
        site = done.site(name)
        found = exchange.read_exchange(site, done.coordinator.federation, last.plan.federation_digest, last.plan, last.digest)
        assert found.folder.is_dir()
        common, _ = found.common(1000)
        assert {*common} == both()
        assert {*found.sent} >= {*common}
    charges = ledger.read(done.root / BANK / "ledger.jsonl").charges
    assert [charge.mechanisms for charge in charges] == [(RandomisedLabels(epsilon=3.0),)]
    assert ledger.spent(ledger.read(done.root / BANK / "ledger.jsonl"), 1e-5, unit="label") == 3.0
    assert not ledger.read(done.root / SHOP / "ledger.jsonl").charges, "scores have no epsilon, and pretend to none"


def steps_of(made: Joining) -> list[Planned]:
    """The steps that were concluded, the last first."""
    head = read_commit(made.coordinator.store, "spring", 0, made.coordinator.identity.key)
    return [Planned(one.plan, one.finding.plan, head) for one in newest_first(made.coordinator, "spring", "join")]


def test_every_disclosure_stands_in_the_audit_log_before_it_leaves(done):
    told = {name: [(one.told, one.count, one.peer) for one in audit.read(done.root / name)
                   if isinstance(one, audit.Disclosed)] for name in (BANK, SHOP)}
    common = len(both())
    assert told[SHOP] == [("how many ids", 450, BANK), ("which ids both have", 450, BANK), ("scores", common, BANK)]
    assert told[BANK][:2] == [("how many ids", 450, SHOP), ("which ids both have", 450, SHOP)]
    assert told[BANK][2][0] == "randomised labels"
    for name in (BANK, SHOP):
        audit.verify(done.site(name).safe)


def test_an_operator_reads_what_a_peer_was_told_and_what_a_label_has_spent(done):
    logged = CliRunner().invoke(app, ["site", "audit", str(done.root / SHOP)]).output
    assert f"to 'bank' for 'credit-risk': scores, of {len(both())} customers" in " ".join(logged.split())
    spent = CliRunner().invoke(app, ["site", "ledger", str(done.root / BANK)]).output
    assert "spent ε 3.0000 of 4 at δ 1e-05 for one label" in " ".join(spent.split())


def test_predictions_need_both_and_are_better_than_the_bank_alone(done):
    held = done.root / "data" / BANK / "validation.parquet"
    frame = pd.read_parquet(held)
    found = together.predict(done.site(BANK), SHOP, "credit-risk", held)
    assert found.customer_N == frame["customer"].tolist()
    known = np.isfinite(found.chance_N)
    assert known.all(), "the bank's held-out customers are the shop's, too"
    alone = roc_auc_score(frame["default"], frame["income"])
    assert roc_auc_score(frame["default"], found.chance_N) > alone + 0.1


def test_other_customers_are_asked_for_and_scored_by_what_was_learnt(done, tmp_path):
    made = copied(done, tmp_path)
    bank, _ = customers()
    new = bank.iloc[450:480].drop(columns="default")
    new = pd.concat([new, pd.DataFrame({"customer": ["stranger"], "income": [0.5]})])
    new.to_parquet(tmp_path / "new.parquet")
    with pytest.raises(SetupError, match="scores of 31 customers .*fedround join --score"):
        together.predict(made.site(BANK), SHOP, "credit-risk", tmp_path / "new.parquet")
    wanted = REQUEST.model_copy(update={"score": True})
    assert "no more than 1 exchange" in refused(made, BANK, made.next(wanted))
    for name in (BANK, SHOP):
        made.policy(name, times=2)
    assert [planned.plan.asks.step for planned in made.whole(wanted)] == ["channel", "blinded", "matched", "scores"]
    found = together.predict(made.site(BANK), SHOP, "credit-risk", tmp_path / "new.parquet")
    assert np.isfinite(found.chance_N).tolist() == [True] * 30 + [False], "the shop does not have the stranger"
    assert roc_auc_score(bank["default"].iloc[450:480], found.chance_N[:30]) > 0.8
    assert together.write(found, tmp_path / "out.csv") == 30
    assert len(ledger.read(made.root / BANK / "ledger.jsonl").charges) == 1, "no label was told again"


def test_scores_of_other_customers_are_on_the_scale_of_what_was_learnt_whatever_is_asked(done, tmp_path):
    made = copied(done, tmp_path)
    for name in (BANK, SHOP):
        made.policy(name, times=2)
    bank, _ = customers()
    bank.iloc[450:480].drop(columns="default").to_parquet(tmp_path / "new.parquet")
    with pytest.raises(SetupError, match="scores of 30 customers"):
        together.predict(made.site(BANK), SHOP, "credit-risk", tmp_path / "new.parquet")
    steps = made.whole(REQUEST.model_copy(update={"score": True, "levels": 4}))
    assert {planned.plan.asks.levels for planned in steps} == {64}
    found = together.predict(made.site(BANK), SHOP, "credit-risk", tmp_path / "new.parquet")
    assert np.isfinite(found.chance_N).all()


def test_the_last_exchange_gives_the_predictions_whatever_its_run_is_called(done, tmp_path):
    made = copied(done, tmp_path)
    held = made.root / "data" / BANK / "validation.parquet"
    for name in (BANK, SHOP):
        made.policy(name, times=2)
    first = together.predict(made.site(BANK), SHOP, "credit-risk", held)
    steps = made.whole(REQUEST.model_copy(update={"run": "winter", "label_epsilon": 1.0}))
    second = together.predict(made.site(BANK), SHOP, "credit-risk", held)
    assert second.exchange == steps[0].digest != first.exchange
    assert not np.array_equal(first.chance_N, second.chance_N)
    assert ledger.spent(ledger.read(made.root / BANK / "ledger.jsonl"), 1e-5, unit="label") == 4.0


def test_attack_a_peer_gets_no_scores_of_what_was_learnt_with_another(done, tmp_path):
    """The coordinator names which exchange gives the scores; under another peer's or purpose's grant it gives none."""
    made = copied(done, tmp_path)
    (used,) = (made.root / SHOP / "joins" / "used").iterdir()
    used.rename(used.with_name("0" * 32))           # as if it had been made under another grant
    for name in (BANK, SHOP):
        made.policy(name, times=2)
    pd.DataFrame({"customer": [*sorted(both())[:5], "customer-x"], "income": 0.0}).to_parquet(tmp_path / "new.parquet")
    with pytest.raises(SetupError, match="scores of 1 customer at"):
        together.predict(made.site(BANK), SHOP, "credit-risk", tmp_path / "new.parquet")
    planned = made.until("scores", REQUEST.model_copy(update={"score": True}))
    assert "was not learnt with 'bank' for 'credit-risk'" in refused(made, SHOP, planned)


def test_attack_whose_scores_are_wanted_of_one_peer_is_told_to_no_other(done, tmp_path):
    """The operator names customers for one peer and purpose; the coordinator asks for an exchange under another grant."""
    made = copied(done, tmp_path)
    bank, _ = customers()
    bank.iloc[450:480].drop(columns="default").to_parquet(tmp_path / "new.parquet")
    with pytest.raises(SetupError, match="scores of 30 customers"):
        together.predict(made.site(BANK), SHOP, "credit-risk", tmp_path / "new.parquet")
    for name in (BANK, SHOP):
        made.policy(name, purpose="marketing")
    marketing = REQUEST.model_copy(update={"purpose": "marketing", "run": "summer", "label_epsilon": 1.0})
    made.whole(marketing)
    for name in (BANK, SHOP):
        made.policy(name, times=2)
    planned = made.until("blinded", marketing.model_copy(update={"score": True}))
    assert "the rows cannot be used for this exchange" in refused(made, BANK, planned)
    told = [one for one in audit.read(made.root / BANK) if isinstance(one, audit.Disclosed) and one.purpose == "marketing"]
    assert [one.count for one in told if one.told == "how many ids"] == [450], "nobody hears of the thirty"


# -- what the coordinator learns ---------------------------------------------------------------------------------------


def test_attack_a_dictionary_finds_no_id_label_or_score_in_all_that_lay_in_the_store(done):
    transcript = done.transcript()
    bank, shop = customers()
    link = bytes.fromhex(next(path.name for path in (done.root / BANK / "joins").iterdir() if path.name != "used"))
    names = sorted({*bank["customer"], *shop["customer"]})
    assert not [name for name in names if name.encode() in transcript]
    for name in names[:200]:
        told = hashlib.sha256(name.encode())
        for guess in (told.digest(), told.hexdigest().encode(), intersection.point(name, link),
                      intersection.point(name, link).hex().encode()):
            assert guess not in transcript
    last = steps_of(done)[0]
    for name, steps in ((BANK, ("blinded", "matched")), (SHOP, ("blinded", "matched", "labels"))):
        found = exchange.read_exchange(done.site(name), done.coordinator.federation, last.plan.federation_digest, last.plan,
                                       last.digest)
        for step in steps:
            assert found.received(step)[:48] not in transcript, "what is relayed is encrypted"
    for secret in (done.site(name).noise_secret for name in (BANK, SHOP)):
        assert secret not in transcript


def test_the_coordinator_sees_sizes_and_nothing_that_other_customers_would_not_show(done, tmp_path):
    """The same numbers of customers, all of them others, with other labels: every object is as long."""
    bank, shop = customers(seed=8)
    other = make(tmp_path / "f", bank.iloc[:450], shop.iloc[150:])
    other.whole()

    def sizes(made: Joining) -> list[int]:
        return sorted(path.stat().st_size for path in (made.root / "store").rglob("payload.bin"))

    assert sizes(other) == sizes(done)


# -- what a policy refuses ---------------------------------------------------------------------------------------------


def test_an_exchange_is_made_once_unless_the_operator_grants_another(done, tmp_path):
    made = copied(done, tmp_path)
    assert made.next() is None, "asked again, it is the same exchange"
    anew = made.next(REQUEST.model_copy(update={"anew": True}))
    assert "no more than 1 exchange with 'shop' for 'credit-risk' may be made here" in refused(made, BANK, anew)
    assert "no more than 1 exchange" in refused(made, SHOP, anew)


def test_attack_a_second_plan_for_a_step_is_answered_by_nobody(again):
    planned = again.until("matched")
    again.step(planned)
    labels = again.next()
    again.answer(BANK, labels)
    twin = labels.plan.model_copy(update={"attempt": labels.plan.attempt + 1, "deadline_s": 61})
    sealed = seal(twin, again.coordinator.identity)
    again.coordinator.store.put_once(layout.plan("spring", twin.round, twin.attempt, "join"), sealed)
    with pytest.raises(TrustError, match="answers each step once"):
        again.answer(BANK, replace(labels, plan=twin))
    assert len(ledger.read(again.root / BANK / "ledger.jsonl").charges) == 1


@pytest.mark.parametrize(("changes", "words"), [
    ({"peer": "garage"}, "exchanges with 'shop' for 'credit-risk' are not allowed here"),
    ({"purpose": "marketing"}, "exchanges with 'shop' for 'credit-risk' are not allowed here"),
    ({"until": "2026-01-01"}, "were allowed here until 2026-01-01"),
    ({"key": "ed25519:" + "0a" * 32}, "another key for 'shop'"),
    ({"gives": ("ids",), "label": None}, "no labels are told to 'shop' here"),
    ({"most": 449}, "more than the 449 customers"),
    ({"max_epsilon_label": None}, "labels have no budget here"),
    ({"vertical": ()}, "are not allowed here")])
def test_what_no_grant_allows_is_refused(again, changes, words):
    shutil.rmtree(again.root / "store" / "sites" / BANK)
    shutil.rmtree(again.root / BANK / "outbox")
    again.policy(BANK, **changes)
    step = "blinded" if "most" in changes else "channel"
    planned = next(one for one in steps_of(again) if one.plan.asks.step == step)
    if step == "channel":
        shutil.rmtree(again.root / BANK / "joins")
    assert words in refused(again, BANK, planned)


def test_attack_a_coordinator_that_asks_for_finer_scores_than_an_operator_granted(again):
    """A score has no epsilon: how many values it can have is all that bounds it, and the coordinator says how many."""
    (grant,) = again.site(SHOP).policy.vertical
    assert grant.levels == 64
    fine = REQUEST.model_copy(update={"levels": 256})
    assert "scores of 256 levels are not told to 'bank' here, 64 at most" in refused(again, SHOP, again.next(fine))
    again.policy(SHOP, levels=8, times=2)
    assert "scores of 64 levels are not told to 'bank' here, 8 at most" in refused(again, SHOP, again.until("matched"))


def test_a_peer_that_tries_more_ids_than_were_granted_is_told_of_none(again):
    again.policy(SHOP, most=449)
    planned = again.until("matched")
    assert "a set of 450 ids, and at most 449 are allowed" in refused(again, SHOP, planned)


def test_labels_that_the_budget_does_not_pay_for_are_not_told(again):
    again.policy(BANK, max_epsilon_label=2.9)
    planned = again.until("labels")
    assert refused(again, BANK, planned).startswith("budget:")
    assert not ledger.read(again.root / BANK / "ledger.jsonl").charges


def test_rows_that_change_in_the_middle_end_the_exchange(again):
    planned = again.until("labels")
    path = again.root / "data" / BANK / "train.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, "default"] = 1 - frame.loc[0, "default"]
    frame.to_parquet(path)
    with pytest.raises(TrustError, match="its rows have changed since"):
        again.answer(BANK, planned)


@pytest.mark.parametrize("step", ["blinded", "matched", "labels", "scores"])
def test_attack_a_step_takes_no_longer_than_one_plan_may(again, step):
    """A peer may bring up to `most` ids, ten million: the site works on them for hours, and nobody could stop it."""
    planned = next((one for one in steps_of(again) if one.plan.asks.step == step), None) or again.until(step)
    name = SHOP if step == "scores" else BANK
    for kept in (again.root / "store" / "sites" / name, again.root / name / "outbox"):
        for folder in kept.rglob(f"00000/{planned.plan.attempt:02d}"):
            shutil.rmtree(folder)
    again.policy(name, limits=Limits(seconds=300))
    start, looks = again.site(name).clock(), iter(range(10 ** 6))
    slow = replace(again.site(name), clock=lambda: start + timedelta(seconds=20 * next(looks)))
    told = len([one for one in audit.read(again.root / name) if isinstance(one, audit.Disclosed)])
    assert again.answer(name, planned, slow) == "refusal"
    assert again.said(name, planned)["body"]["reason"] == "limits"
    assert len([one for one in audit.read(again.root / name) if isinstance(one, audit.Disclosed)]) == told
    assert again.answer(name, planned) == "answer", "with more time, the same plan"


def test_a_step_that_is_stopped_ends(again):
    planned = again.until("matched")
    site, plan = again.site(SHOP), planned.plan
    with pytest.raises(Cancelled):
        site_round.answer(site, site_round.SiteRequest(run="spring", round=0, attempt=plan.attempt, purpose="join"),
                          lambda: True)


def test_two_rows_of_one_customer_are_refused_without_a_word_of_who(tmp_path):
    bank, shop = customers()
    twice = pd.concat([bank.iloc[:449], bank.iloc[:1]])
    made = make(tmp_path / "f", twice, shop.iloc[150:])
    assert "the site's operator sees why" in refused(made, BANK, made.until("blinded"))


# -- what does not hold ------------------------------------------------------------------------------------------------


def test_attack_what_is_relayed_by_another_hand_is_not_believed(again):
    """The coordinator cannot put its own key in a member's place: the answer that carries it is signed by the member."""
    planned = again.until("matched")
    channel, coordinator = steps_of(again)[-1], again.coordinator
    finding = read_finding(coordinator.store, "spring", 0, channel.plan.attempt, "join", coordinator.identity.key)
    told = next(one for one in finding.answers if one.site == BANK)
    honest = unseal((again.root / "store" / layout.relayed("spring", told.answer)).read_bytes(), Answer,
                    again.site(BANK).identity.key, BANK)
    mallory = box.public_of(box.key_of(bytes(32), bytes(32), "channel"))
    forged = seal(honest.model_copy(update={"material": codec.payload_of(mallory)}), coordinator.identity)
    told = tuple(Told(site=BANK, answer=digest(forged)) if one.site == BANK else one for one in finding.answers)
    lie = seal(finding.model_copy(update={"answers": told}), coordinator.identity)
    for key, body in ((layout.relayed("spring", digest(forged)), forged),
                      (layout.relayed("spring", codec.payload_of(mallory).sha256), mallory)):
        coordinator.store.put_once(key, body)
    place = again.root / "store" / layout.finding("spring", 0, channel.plan.attempt, "join")
    place.chmod(0o600)
    place.write_bytes(lie)
    asks = planned.plan.asks
    before = (asks.before[0].model_copy(update={"digest": digest(lie)}), *asks.before[1:])
    plan = planned.plan.model_copy(update={"asks": asks.model_copy(update={"before": before})})
    found = exchange.read_exchange(again.site(SHOP), coordinator.federation, plan.federation_digest, plan.model_copy(
        update={"asks": asks.model_copy(update={"step": "blinded", "before": before[:1]})}), "0" * 64)
    with pytest.raises(SignatureError):
        found.sealed(b"my ids", "0" * 64)


def test_attack_labels_that_there_are_not_are_not_learnt_from(again, monkeypatch):
    """A hundred kinds of them would take a hundred times as long, while a model is fitted and nobody can stop it."""
    monkeypatch.setattr(joining.labels, "told", lambda label_N, *_: np.arange(len(label_N), dtype=np.int8) % 100)
    planned = again.until("scores")
    with pytest.raises(TrustError, match="'bank' tells labels that there are not"):
        again.answer(SHOP, planned)


@pytest.mark.parametrize("lie", [np.full(30, 64), np.zeros(29)], ids=["beyond the levels", "of others"])
def test_attack_scores_that_do_not_hold_spoil_their_own_exchange_and_no_other(done, tmp_path, monkeypatch, caplog, lie):
    made, bank = copied(done, tmp_path), customers()[0]
    for name in (BANK, SHOP):
        made.policy(name, times=3)
    new = tmp_path / "new.parquet"
    bank.iloc[450:480].drop(columns="default").to_parquet(new)
    held = made.root / "data" / BANK / "validation.parquet"
    before = together.predict(made.site(BANK), SHOP, "credit-risk", held)
    wanted = REQUEST.model_copy(update={"score": True})
    for lies in (True, False):
        with pytest.raises(SetupError, match="scores of 30 customers"):
            together.predict(made.site(BANK), SHOP, "credit-risk", new)
        with monkeypatch.context() as patch:
            if lies:
                patch.setattr(joining.learners, "scores", lambda *_: lie.astype(np.uint8))
            made.whole(wanted.model_copy(update={"anew": not lies}))
        assert np.array_equal(together.predict(made.site(BANK), SHOP, "credit-risk", held).chance_N, before.chance_N)
        assert "its scores are left out" in caplog.text
    assert np.isfinite(together.predict(made.site(BANK), SHOP, "credit-risk", new).chance_N).all()


def test_a_step_of_another_exchange_is_not_taken_for_one_of_this(again):
    planned = again.until("matched")
    asks = planned.plan.asks.model_copy(update={"levels": 8})
    plan = planned.plan.model_copy(update={"asks": asks})
    with pytest.raises(TrustError, match="is a step of another exchange"):
        exchange.read_exchange(again.site(SHOP), again.coordinator.federation, plan.federation_digest, plan, "0" * 64)


def test_labels_are_not_released_if_they_were_charged_otherwise(again, monkeypatch):
    planned = again.until("labels")
    monkeypatch.setattr(joining.charging, "charge_labels", lambda site, order, mechanism: ledger.read(site.ledger))
    with pytest.raises(PrivacyError, match="otherwise than the ledger was charged"):
        again.answer(BANK, planned)


def test_a_question_says_its_steps_in_their_order():
    of_two = {"labels": BANK, "features": SHOP, "purpose": "credit-risk"}
    with pytest.raises(ValueError, match="names the findings of all before it"):
        Join(step="blinded", epsilon=1.0, **of_two)
    with pytest.raises(ValueError, match="say epsilon, or learnt"):
        Join(step="channel", **of_two)
    with pytest.raises(ValueError, match="one is named twice"):
        Join(step="channel", epsilon=1.0, labels=BANK, features=BANK, purpose="credit-risk")
    with pytest.raises(ContractError, match="'garage' is none of the two"):
        Join(step="channel", epsilon=1.0, **of_two).peer_of("garage")


# -- what an auditor proves --------------------------------------------------------------------------------------------


def test_an_auditor_proves_who_sent_what_when_and_finds_what_was_altered(done, tmp_path):
    made = copied(done, tmp_path)
    key, store = made.coordinator.identity.key, made.coordinator.store
    (proof,) = verify_run(store, "spring", key)
    assert [(one.asked, one.answers) for one in proof.findings] == [("join", (BANK, SHOP))] * 3 + [
        ("join", (BANK,)), ("join", (SHOP,))]
    scores = steps_of(made)[0].plan
    place = made.root / "store" / layout.payload(SHOP, "spring", 0, scores.attempt, "join")
    place.chmod(0o600)
    place.write_bytes(bytes([place.read_bytes()[0] ^ 1]) + place.read_bytes()[1:])
    with pytest.raises(LostError, match=SHOP):
        list(verify_run(store, "spring", key))


@pytest.mark.parametrize("hidden", [False, True])
def test_attack_a_folder_that_was_restored_makes_no_second_exchange(again, hidden):
    """Everything that remembers the exchange is gone, from the folder and, if it is hidden, its plans from the store, too."""
    for name in ("joins", "outbox"):
        shutil.rmtree(again.root / BANK / name)
    anew = again.next(REQUEST.model_copy(update={"anew": True}))
    assert "restored from a backup" in refused(again, BANK, anew)
    if hidden:
        for planned in steps_of(again):
            (again.root / "store" / layout.plan("spring", 0, planned.plan.attempt, "join")).unlink()
    site = again.site(BANK)
    recover.restore(site, recover.forgotten(site))
    assert "no more than 1 exchange" in refused(again, BANK, anew)


def test_attack_a_store_that_hides_the_first_step_makes_a_recovered_folder_forget_no_exchange(again):
    """The answer that named the exchange is hidden; that to its next step is not, and leads to it."""
    for name in ("joins", "outbox"):
        shutil.rmtree(again.root / BANK / name)
    channel = steps_of(again)[-1].plan
    assert channel.asks.step == "channel"
    shutil.rmtree(again.root / "store" / layout.answers(BANK, "spring", 0, "join") / f"{channel.attempt:02d}")
    site = again.site(BANK)
    recover.restore(site, recover.forgotten(site))
    (grant,) = site.policy.vertical
    assert exchange.uses(site, grant) == [steps_of(again)[-1].digest]
    assert "no more than 1 exchange" in refused(again, BANK, again.next(REQUEST.model_copy(update={"anew": True})))


def twin(made: Joining, planned: Planned, **changes: object) -> Planned:
    """Another plan for the same step, by the coordinator."""
    plan = planned.plan.model_copy(update={"attempt": 60, **changes})
    document = seal(plan, made.coordinator.identity)
    made.coordinator.store.put_once(layout.plan("spring", plan.round, plan.attempt, "join"), document)
    return replace(planned, plan=plan, digest=digest(document))


@pytest.mark.parametrize("step", ["blinded", "labels"])
def test_attack_a_recovered_folder_takes_no_part_in_an_exchange_that_it_was_in(again, step):
    """Which steps it has answered, and with which ids, nobody knows any more: a second plan for one would be answered."""
    labels = again.until("labels")
    again.answer(BANK, labels)
    planned = labels if step == "labels" else steps_of(again)[1]
    for name in ("joins", "outbox"):
        shutil.rmtree(again.root / BANK / name)
    site = again.site(BANK)
    recover.restore(site, recover.forgotten(site))
    again.policy(BANK, max_epsilon_label=8.0)
    with pytest.raises(TrustError, match="answers each step once"):
        again.answer(BANK, twin(again, planned))
    assert len(ledger.read(again.root / BANK / "ledger.jsonl").charges) == 1


def test_attack_labels_whose_answer_is_hidden_are_counted_for_what_their_plan_says(again):
    """A ledger of yesterday, and an answer that the store hides: a later answer tells that there was one charge more."""
    labels, path = again.until("labels"), again.root / BANK / "ledger.jsonl"
    shutil.copytree(again.root / BANK, again.root / "yesterday")
    again.step(labels)
    again.step(again.next())
    for name in (BANK, SHOP):
        again.policy(name, times=2)
    again.step(again.next(REQUEST.model_copy(update={"anew": True})))         # its answer tells the ledger's length
    shutil.rmtree(again.root / BANK)
    (again.root / "yesterday").rename(again.root / BANK)
    shutil.rmtree(again.root / "store" / layout.answers(BANK, "spring", 0, "join") / f"{labels.plan.attempt:02d}")
    site = again.site(BANK)
    recover.restore(site, recover.forgotten(site))
    assert ledger.spent(ledger.read(path), 1e-5, unit="label") >= 3.0


def test_the_preflight_says_whether_an_exchange_could_be_made(again):
    def said() -> str:
        return _vertical(again.site(BANK))

    assert said() == "'shop' for 'credit-risk' until 2999-12-31: ids, labels"
    again.policy(BANK, most=449)
    with pytest.raises(FedroundError, match="450 customers, .*'shop' allows 449"):
        said()
    again.policy(BANK, columns=("wealth",))
    with pytest.raises(FedroundError, match="names the column 'wealth'"):
        said()
    again.policy(BANK, columns=("income",), id="default", most=1000)
    with pytest.raises(FedroundError, match="2 customers have more than one row"):
        said()
    again.policy(BANK, vertical=())
    assert said() == "nobody learns of single customers"
