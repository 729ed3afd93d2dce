"""Approving is reading bytes and saying yes to exactly these; nothing of a file runs before, and nothing else runs after."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError, SetupError
from fedround.learning.recipe import load_recipe
from fedround.signing import digest
from fedround.spoken import in_groups, in_numbers
from infra.settings import SiteSettings, load_toml
from site_workers import approval, audit
from site_workers.policy import SitePolicy, policy_text
from site_workers.site import open_safe, open_site, refreshed
from tests.small_federation import CONTRACT, RECIPE, SmallFederation

NOW = datetime(2026, 3, 4, tzinfo=UTC)
OTHER = RECIPE.replace("2, 4", "2, 5").replace("4, 1", "5, 1")
DIGESTS = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")


def a_file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def approve(folder: Path, path: Path) -> approval.Candidate:
    candidate = approval.read_candidate(path)
    approval.approve(folder, load_toml(SiteSettings, folder / "site.toml"), candidate, NOW)
    return candidate


@pytest.fixture
def north(federation: SmallFederation) -> Path:
    return federation.root / "north"


# -- looking -----------------------------------------------------------------------------------------------------------


def test_looking_at_a_recipe_runs_nothing_of_it_and_tells_what_it_imports(tmp_path: Path):
    proof = tmp_path / "it-ran"
    text = f"open({str(proof)!r}, 'w')\nimport os.path\n{RECIPE}\ndef f():\n    import socket\n    exec('1')\n"
    candidate = approval.read_candidate(a_file(tmp_path, "recipe.py", text))
    assert not proof.exists()
    assert candidate.imports == ("numpy", "os.path", "socket", "torch")
    assert candidate.beware == ("exec", "socket")
    assert (candidate.kind, candidate.name, candidate.digest) == ("recipe", "tiny", digest(text.encode()))


@pytest.mark.parametrize("hidden", [
    "\u202e", "\u2066", "\u200b", "\x1b[2K", "\x08", "\r", "\x0c", "\u2028", "\ufeff", "\x00"], ids=ascii)
def test_attack_text_that_a_screen_shows_otherwise_than_it_runs_is_not_offered(tmp_path: Path, hidden: str):
    """"Trojan Source" (CVE-2021-42574) and terminal escapes: the operator would approve what nobody has read."""
    path = tmp_path / "recipe.py"
    path.write_bytes(RECIPE.replace("import numpy", f"x = 1  # {hidden} y\nimport numpy").encode())
    with pytest.raises(ContractError, match=f"U\\+{ord(hidden[0]):04X}"):
        approval.read_candidate(path)


@pytest.mark.parametrize(("cookie", "line"), [
    ("utf-7", "# nothing here +AAo-open(PROOF, 'w')"), ("unicode_escape", "# nothing here \\nopen(PROOF, 'w')"),
    ("raw_unicode_escape", "# nothing here \\u000aopen(PROOF, 'w')"), ("latin-1", "x = 'ä'"), ("no-such", "pass")])
def test_attack_a_file_that_is_read_in_one_encoding_and_runs_in_another(federation: SmallFederation, north: Path,
                                                                        tmp_path: Path, cookie: str, line: str):
    """Python believes a "coding:" comment, and a comment may then hold code. Not offered; and it would not run, either."""
    proof = tmp_path / "it-ran"
    text = f"# -*- coding: {cookie} -*-\n{line.replace('PROOF', repr(str(proof)))}\n{RECIPE}"
    path = a_file(tmp_path, "recipe.py", text)
    with pytest.raises(ContractError, match="what you read is UTF-8"):
        approval.read_candidate(path)
    load_recipe(path)
    assert not proof.exists()


def test_attack_a_name_that_looks_like_another(tmp_path: Path):
    """A Cyrillic letter in a function's name: which of the two is called cannot be seen (CVE-2021-42694)."""
    path = a_file(tmp_path, "recipe.py", RECIPE + "\ndef \u0435ncode(rows):\n    return rows\n")
    with pytest.raises(ContractError, match=r"line \d+: holds a name with the character U\+0435"):
        approval.read_candidate(path)


def test_ordinary_text_of_any_language_is_shown(tmp_path: Path):
    path = tmp_path / "recipe.py"
    path.write_bytes(RECIPE.replace("Two numbers", "Zwei Größen, 二つ; ε ≤ 1").replace("\n", "\r\n").encode())
    assert approval.read_candidate(path).name == "tiny"


def test_an_operator_sees_which_checks_of_a_contract_only_warn(tmp_path: Path):
    checks = [{"id": name, "type": "expect_column_to_exist", "kwargs": {"column": "x1"}, "severity": severity}
              for name, severity in (("strict", "error"), ("mild", "warning"))]
    path = a_file(tmp_path, "contract.json", json.dumps({"name": "some", "checks": checks}))
    assert approval.read_candidate(path).warnings == ("mild",)


@pytest.mark.parametrize(("name", "text", "says"), [
    ("recipe.txt", RECIPE, r"expected a recipe \(\.py\)"), ("recipe.py", "def f(:\n", "line 1: not Python"),
    ("contract.json", "{}", "'name' is missing"), ("contract.json", '{"name": "x", "checks": [], "run": 1}', "unknown key")])
def test_what_is_neither_recipe_nor_contract_is_not_offered(tmp_path: Path, name: str, text: str, says: str):
    with pytest.raises(ContractError, match=says):
        approval.read_candidate(a_file(tmp_path, name, text))
    with pytest.raises(SetupError, match="cannot read"):
        approval.read_candidate(tmp_path / "nowhere.py")


# -- the digest over the telephone ---------------------------------------------------------------------------------------


@given(DIGESTS)
def test_the_numbers_are_the_digest_and_nothing_is_left_out(sha256: str):
    numbers = in_numbers(sha256).split(" ")
    assert [len(number) for number in numbers] == [5] * 16
    assert "".join(f"{int(number):04x}" for number in numbers) == sha256
    assert in_groups(sha256).replace(" ", "") == sha256


@given(DIGESTS, st.integers(0, 63), st.integers(1, 15))
def test_one_digit_that_differs_is_heard(sha256: str, where: int, by: int):
    other = sha256[:where] + f"{(int(sha256[where], 16) + by) % 16:x}" + sha256[where + 1:]
    assert in_numbers(other) != in_numbers(sha256)


@given(DIGESTS, st.integers(approval.MIN_PREFIX, 64))
def test_a_digest_is_named_by_its_beginning_however_it_is_written(sha256: str, length: int):
    assert approval.matches(sha256, sha256[:length])
    assert approval.matches(sha256, in_groups(sha256).upper())
    assert not approval.matches(sha256, f"{(int(sha256[0], 16) + 1) % 16:x}" + sha256[1:length])


def test_a_few_digits_name_nothing():
    with pytest.raises(ContractError, match="at least 16"):
        approval.matches("ab" * 32, "ab" * 7)


# -- saying yes, and no --------------------------------------------------------------------------------------------------


def test_an_approved_file_is_the_one_that_runs_and_the_operators_comments_stay(federation: SmallFederation, north: Path,
                                                                               tmp_path: Path):
    policy = north / "policy.toml"
    policy.write_text(policy.read_text().replace("min_rows = 50", "min_rows = 50    # as the board said"))
    before = policy.read_text()
    old = federation.site("north").recipe.digest
    candidate = approve(north, a_file(tmp_path, "new.py", OTHER))
    assert federation.site("north").recipe.digest == candidate.digest
    added = set(policy.read_text().splitlines()) - set(before.splitlines())
    assert added == {f'    "{candidate.digest}", # \'tiny\', approved 2026-03-04'}
    assert set(before.splitlines()) <= set(policy.read_text().splitlines())
    assert (north / "approved" / "earlier" / f"{old[:16]}.py").read_text() == RECIPE
    assert approval.approvals(north)[:2] == [approval.ApprovedLine("recipe", old, False),
                                             approval.ApprovedLine("recipe", candidate.digest, True)]


def test_a_site_that_is_made_says_what_it_approves_in_the_form_in_which_later_files_are_added(north: Path, tmp_path: Path):
    first = approval.read_candidate(a_file(tmp_path, "recipe.py", OTHER))
    policy = load_toml(SitePolicy, north / "policy.toml").model_copy(update={"recipes": (), "contracts": ()})
    (north / "policy.toml").write_text(policy_text(policy))
    approve(north, tmp_path / "recipe.py")
    approve(north, a_file(tmp_path, "contract.json", json.dumps(CONTRACT)))
    later = load_toml(SitePolicy, north / "policy.toml")
    assert later.recipes == (first.digest,)
    said = {first.digest: first.said(NOW), later.contracts[0]: f"'{CONTRACT['name']}', approved 2026-03-04"}
    assert policy_text(later, said) == (north / "policy.toml").read_text()


def test_a_contract_is_approved_alike(federation: SmallFederation, north: Path, tmp_path: Path):
    candidate = approve(north, a_file(tmp_path, "new.json", json.dumps(CONTRACT | {"name": "stricter"})))
    assert federation.site("north").contract.digest == candidate.digest


def test_approving_twice_changes_nothing(north: Path, tmp_path: Path):
    path = a_file(tmp_path, "new.py", OTHER)
    approve(north, path)
    once = (north / "policy.toml").read_text()
    approve(north, path)
    assert (north / "policy.toml").read_text() == once


def test_what_is_withdrawn_does_not_run_and_what_it_replaced_can_be_approved_again(federation: SmallFederation, north: Path,
                                                                                   tmp_path: Path):
    old = federation.site("north").recipe.digest
    candidate = approve(north, a_file(tmp_path, "new.py", OTHER))
    assert approval.withdraw(north, candidate.digest[:16], NOW) == approval.ApprovedLine("recipe", candidate.digest, True)
    with pytest.raises(ContractError, match="not approved by policy.toml"):
        open_site(north)
    approve(north, north / "approved" / "earlier" / f"{old[:16]}.py")
    assert federation.site("north").recipe.digest == old
    with pytest.raises(ContractError, match="names no approved files"):
        approval.withdraw(north, candidate.digest, NOW)
    assert [event.what for event in audit.verify(open_safe(north))][2:] == ["approved", "withdrawn", "approved"]


def test_a_process_that_runs_hears_of_it_at_the_next_plan(north: Path, tmp_path: Path):
    site = open_site(north)
    assert refreshed(site) is site
    candidate = approve(north, a_file(tmp_path, "new.py", OTHER))
    site = refreshed(site)
    assert site.recipe.digest == candidate.digest
    approval.withdraw(north, candidate.digest, NOW)
    with pytest.raises(ContractError, match="not approved"):
        refreshed(site)


def test_killed_anywhere_an_approval_can_be_repeated_and_never_runs_what_is_not_listed(north: Path, tmp_path: Path,
                                                                                       monkeypatch):
    path, real = a_file(tmp_path, "new.py", OTHER), approval._write
    writes = iter([False, True, False, True, False])        # the policy; then the displaced file; then the file itself

    def dying(place: Path, body: bytes) -> None:
        if not next(writes):
            raise KeyboardInterrupt
        real(place, body)

    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(approval, "_write", dying)
            with pytest.raises(KeyboardInterrupt):
                approve(north, path)
        assert open_site(north).recipe.digest in load_toml(SitePolicy, north / "policy.toml").recipes
    approve(north, path)
    assert open_site(north).recipe.digest == digest(OTHER.encode())


def test_many_approvals_and_withdrawals_in_any_order_leave_a_file_that_reads(north: Path, tmp_path: Path):
    generator, listed = random.Random(7), set(load_toml(SitePolicy, north / "policy.toml").recipes)
    for number in range(30):
        if len(listed) > 1 and generator.random() < 0.5:
            gone = generator.choice(sorted(listed))
            approval.withdraw(north, gone, NOW)
            listed.discard(gone)
        else:
            listed.add(approve(north, a_file(tmp_path, "new.py", f"{RECIPE}\n# {number}\n")).digest)
        assert set(load_toml(SitePolicy, north / "policy.toml").recipes) == listed
