"""The ledger counts every charge that returned, once, and notices every byte that changed."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedround.errors import BudgetError, ContractError, LedgerError, PrivacyError, SetupError
from fedround.privacy import chain
from fedround.privacy.accounting import epsilon
from fedround.privacy.ledger import Charge, Ledger, charge, create, read, spent
from fedround.privacy.spec import DpSgd, GaussianCounts, NoMechanism

DELTA = 1e-5
MECHANISMS = (DpSgd(noise_multiplier=5.5, clip_norm=1.0, sampling_rate=0.33, steps=10), GaussianCounts(noise_std=20.0))


def a_charge(number: int, **changes) -> Charge:
    return Charge(**({"federation": "banks", "run": "spring", "round": number, "purpose": "train",
                      "plan": f"{number:064x}", "mechanisms": MECHANISMS, "delta_dp": DELTA,
                      "utc": f"2026-03-01T10:{number:02d}:00Z"} | changes))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def ledger(path) -> Ledger:
    """Three charges."""
    state = create(path, "loans")
    for number in (1, 2, 3):
        state = charge(state, a_charge(number), 5.0)
    return state


# -- the history -------------------------------------------------------------------------------------------------------


def test_what_was_charged_is_read_back(ledger, path):
    assert read(path) == ledger
    assert [c.round for c in ledger.charges] == [1, 2, 3]
    assert ledger.dataset == "loans"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_line_is_canonical_and_the_head_names_the_last(ledger, path):
    lines = path.read_bytes().splitlines()
    assert [rfc8785.dumps(json.loads(line)) for line in lines] == lines
    assert [json.loads(line)["previous"] for line in lines[1:]] == [json.loads(line)["sha256"] for line in lines[:-1]]
    assert json.loads(lines[-1])["sha256"] == ledger.head


def test_a_charge_only_appends(ledger, path):
    before = path.read_bytes()
    charge(ledger, a_charge(4), 5.0)
    assert path.read_bytes().startswith(before)


def test_a_charge_returns_a_new_state_and_leaves_the_old(ledger):
    later = charge(ledger, a_charge(4), 5.0)
    assert (len(ledger.charges), len(later.charges)) == (3, 4)
    assert later.head != ledger.head


def test_a_new_ledger_never_replaces_one(ledger, path):
    with pytest.raises(LedgerError, match="exists already"):
        create(path, "loans")
    assert read(path) == ledger


def test_no_ledger_is_not_an_empty_ledger(path, ledger):
    path.unlink()
    with pytest.raises(SetupError, match="no privacy ledger"):
        read(path)
    with pytest.raises(SetupError, match="no privacy ledger"):
        charge(ledger, a_charge(4), 5.0)


def test_a_data_set_has_a_name_that_a_person_can_write(path):
    with pytest.raises(ContractError, match="dataset"):
        create(path, "Loans 2026")
    assert not path.exists()


# -- the budget --------------------------------------------------------------------------------------------------------


def test_spent_is_what_the_accountant_says_of_all_mechanisms(ledger):
    assert spent(ledger, DELTA) == epsilon(MECHANISMS * 3, DELTA)
    assert spent(ledger, 1e-6) > spent(ledger, DELTA)


def test_the_budget_is_the_data_sets_over_every_run(ledger):
    two = spent(charge(ledger, a_charge(1, run="summer", plan="f" * 64), 5.0), DELTA, run="spring")
    assert two == spent(ledger, DELTA)
    limit = spent(ledger, DELTA)
    with pytest.raises(BudgetError):
        charge(ledger, a_charge(2, run="summer", federation="insurers", plan="e" * 64), limit)


def test_a_charge_that_would_overspend_says_so_and_leaves_no_trace(ledger, path):
    before = path.read_bytes()
    limit = epsilon(MECHANISMS * 4, DELTA)
    with pytest.raises(BudgetError) as refusal:
        charge(ledger, a_charge(4), limit - 1e-6)
    for number in (spent(ledger, DELTA), limit):
        assert f"{number:.6f}" in str(refusal.value)
    assert path.read_bytes() == before
    assert len(charge(ledger, a_charge(4), limit).charges) == 4       # exactly the budget fits


def test_a_campaign_has_a_budget_of_its_own_within_the_whole(ledger, path):
    """The same charge fits in a fresh run, and not in the run that has spent its share."""
    before, share = path.read_bytes(), spent(ledger, DELTA)
    with pytest.raises(BudgetError, match="in this run from"):
        charge(ledger, a_charge(4), 50.0, max_epsilon_per_run=share)
    assert path.read_bytes() == before
    assert len(charge(ledger, a_charge(4, run="summer"), 50.0, max_epsilon_per_run=share).charges) == 4
    with pytest.raises(ContractError):
        charge(ledger, a_charge(5, run="summer"), 50.0, max_epsilon_per_run=float("nan"))


def test_a_release_without_noise_fits_no_budget(ledger):
    bare = a_charge(4, mechanisms=(NoMechanism(),))
    with pytest.raises(BudgetError, match="inf"):
        charge(ledger, bare, 1e9)
    allowed = charge(ledger, bare, float("inf"))        # a policy that allows it by name
    with pytest.raises(BudgetError):
        charge(allowed, a_charge(5), 1e9)               # and the rows never become private again


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_a_budget_that_is_no_number_allows_nothing(ledger, limit):
    with pytest.raises(ContractError, match="max_epsilon"):
        charge(ledger, a_charge(4), limit)


# -- retries -----------------------------------------------------------------------------------------------------------


def test_a_retry_is_not_charged_twice(ledger, path):
    before = path.read_bytes()
    assert charge(ledger, a_charge(2, utc="2026-03-02T00:00:00Z"), 0.0) == ledger
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [
    {"mechanisms": MECHANISMS[:1]}, {"delta_dp": 1e-6}, {"purpose": "evaluate"}, {"run": "summer"},
    {"federation": "insurers"}, {"round": 9}], ids=lambda change: next(iter(change)))
def test_another_release_under_the_same_plan_is_charged(ledger, change):
    assert len(charge(ledger, a_charge(2, **change), 50.0).charges) == 4


def test_a_stale_state_sees_what_another_process_charged(ledger, path):
    stale = read(path)
    charge(ledger, a_charge(4), 5.0)
    assert [c.round for c in charge(stale, a_charge(5), 5.0).charges] == [1, 2, 3, 4, 5]


def test_a_file_that_went_back_behind_the_state_in_hand_is_refused(ledger, path):
    before = path.read_bytes()
    later = charge(ledger, a_charge(4), 5.0)
    path.write_bytes(before)
    with pytest.raises(LedgerError, match="does not continue"):
        charge(later, a_charge(5), 5.0)


def test_of_many_at_once_only_as_many_are_charged_as_fit(path):
    state = create(path, "loans")
    limit = epsilon(MECHANISMS * 4, DELTA)

    def attempt(number: int) -> bool:
        try:
            charge(state, a_charge(number), limit)
        except BudgetError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        charged = [number for number, ok in zip(range(8), pool.map(attempt, range(8)), strict=True) if ok]
    assert len(charged) == 4
    assert sorted(c.round for c in read(path).charges) == charged


# -- altered files -----------------------------------------------------------------------------------------------------


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_altered_byte_is_noticed(ledger, path, data):
    original = path.read_bytes()
    where = data.draw(st.integers(0, len(original) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != original[where]))
    path.write_bytes(original[:where] + bytes([byte]) + original[where + 1:])
    try:
        with pytest.raises(LedgerError):
            read(path)
    finally:
        path.write_bytes(original)


def test_every_altered_last_byte_is_noticed(ledger, path):
    """The last newline is where an altered file could pass for a crash."""
    original = path.read_bytes()
    for where in (-1, -2):
        for byte in set(range(256)) - {original[where]}:
            altered = bytearray(original)
            altered[where] = byte
            path.write_bytes(altered)
            with pytest.raises(LedgerError):
                read(path)


@pytest.mark.parametrize("change", [
    lambda lines: lines[:1] + lines[2:],
    lambda lines: lines[1:],
    lambda lines: [lines[0], lines[2], lines[1], lines[3]],
    lambda lines: [*lines, lines[-1]],
    lambda lines: [lines[0], b"", *lines[1:]],
], ids=["missing line", "missing first line", "swapped", "repeated", "empty line"])
def test_missing_moved_and_repeated_lines_are_noticed(ledger, path, change):
    path.write_bytes(b"\n".join(change(path.read_bytes().splitlines())) + b"\n")
    with pytest.raises(LedgerError, match="line"):
        read(path)


def test_a_number_that_no_json_reader_agrees_on_is_noticed(ledger, path):
    path.write_bytes(path.read_bytes().replace(b'"steps":10', b'"steps":9223372036854775807'))
    with pytest.raises(LedgerError, match="line 2"):
        read(path)


@pytest.mark.parametrize("content", [
    b"", b"\n", b"hello", b"{}", b"{}\n", b"\x80\x04\x95\n", b'{"charge":{', b"\0" * 64], ids=repr)
def test_a_foreign_file_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        read(path)


def test_the_ledger_of_another_data_set_does_not_continue_this_one(path, tmp_path):
    loans = create(path, "loans")
    create(tmp_path / "other.jsonl", "cards").path.replace(path)
    with pytest.raises(LedgerError, match="does not continue"):
        charge(loans, a_charge(1), 5.0)


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_wherever_a_crash_cuts_the_last_line_earlier_charges_count_and_work_goes_on(ledger, path):
    original = path.read_bytes()
    start = original.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(original) + 1):
        path.write_bytes(original[:cut])
        whole = cut >= len(original) - 1        # all but the newline
        assert len(read(path).charges) == (3 if whole else 2)
        later = charge(read(path), a_charge(3), 5.0)
        assert later == ledger                  # the retry that follows the crash
        assert path.read_bytes() == original


def test_a_torn_line_is_replaced_by_the_next_charge(ledger, path):
    with path.open("ab") as file:
        file.write(b'{"charge":{"delta_dp":0.00001,"fede')
    later = charge(read(path), a_charge(4), 5.0)
    assert read(path) == later
    assert len(later.charges) == 4


def test_what_is_made_durable_is_the_whole_line(ledger, path, monkeypatch):
    """A sync before the line has left this process would sync nothing of it."""
    there = []
    monkeypatch.setattr(os, "fsync", lambda _descriptor: there.append(path.read_bytes()))
    charge(ledger, a_charge(9), 5.0)
    assert there == [path.read_bytes()]


def test_a_retry_makes_the_line_of_a_killed_writer_durable(ledger, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    charge(ledger, a_charge(3), 5.0)
    assert synced


def test_a_disk_that_does_not_keep_the_line_stops_the_work(ledger, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chain.os, "fsync", full)
    with pytest.raises(PrivacyError, match="No space left"):
        charge(ledger, a_charge(4), 5.0)
