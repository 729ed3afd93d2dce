"""How several coordinators come into a federation, and out of it: by commands, and never by half."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedround.errors import ContractError, SetupError
from fedround.regions.spec import Region
from fedround.secure_sums.spec import SecureSum
from fedround.signing import Identity
from fedround_cli.federation import warn_of_regions_that_stop_sums
from fedround_cli.main import app
from infra.invitations import CoordinatorInvitation
from infra.settings import load_federation, load_toml
from tasks.coordinator import open_coordinator
from tasks.coordinators import add_coordinators, create_other, remove_coordinators, take_file
from tests import small_federation
from tests.small_federation import SmallFederation

OTHERS = ("two", "three")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallFederation:
    return small_federation.make(tmp_path_factory.mktemp("alone"))


@pytest.fixture
def alone(made: SmallFederation, tmp_path: Path) -> SmallFederation:
    return made.copy(tmp_path / "copy")


def typed(federation: SmallFederation, *words: object, fails: str = "") -> str:
    done = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "300"})
    assert done.exit_code == (1 if fails else 0), done.output
    assert fails in done.output
    return done.output


def founder(federation: SmallFederation) -> tuple[str, Path]:
    return "--coordinator", federation.root / "coordinator"


def joined(federation: SmallFederation) -> list[str]:
    """Two more folders; what their operators send."""
    for name in OTHERS:
        file = federation.root / f"{name}.toml"
        typed(federation, "coordinator", "invite", name, *founder(federation), "--output", file)
        typed(federation, "coordinator", "init", federation.root / name, "--invitation", file, "--test-set",
              federation.root / "coordinator" / "test.parquet")
    return [f"{name}={Identity.load(federation.root / name / 'keys' / 'identity.pem').key}" for name in OTHERS]


def test_three_come_in_by_commands_and_have_the_file_that_is_in_force(alone: SmallFederation):
    typed(alone, "coordinator", "add", *joined(alone), "--founder", "one", "--silence", 9, *founder(alone))
    alone.coordinator.publish_federation()
    for name in OTHERS:
        said = typed(alone, "coordinator", "update", "--coordinator", alone.root / name)
        assert "3 coordinators take turns, 2 must sign, 1 may be away" in said
        other = open_coordinator(alone.root / name)
        assert other.federation == alone.coordinator.federation
        assert (other.name, other.is_founder, other.federation.silence_s) == (name, False, 9)
        assert other.publish_federation() == alone.coordinator.publish_federation()
    shown = typed(alone, "coordinator", "list", *founder(alone))
    assert all(one in shown for one in ("one", *OTHERS))
    assert "3 coordinators take turns" in typed(alone, "federation", "check", *founder(alone))
    assert "(founder)" in typed(alone, "federation", "show", *founder(alone))
    (alone.root / "two" / "approved" / "recipe.py").write_text("# another\n")
    typed(alone, "coordinator", "update", "--coordinator", alone.root / "two", fails="not the file that is agreed on")


def test_a_folder_takes_no_file_that_does_not_name_its_key(alone: SmallFederation):
    joined(alone)
    with pytest.raises(SetupError, match="no federation file is in force"):
        take_file(alone.root / "two")
    alone.coordinator.publish_federation()
    with pytest.raises(ContractError, match="does not name this folder's key"):
        take_file(alone.root / "two")
    with pytest.raises(ContractError, match="is the founder's folder"):
        take_file(alone.root / "coordinator")


@pytest.mark.parametrize(("keys", "named", "says"), [
    ({"two": "new"}, None, "name at least 3"),
    ({"two": "new"}, "one", "name at least 3"),
    ({"two": "new", "three": "same"}, "one", "two have the same name or key"),
    ({"two": "new", "three": "north"}, "one", "has the key of a member"),
    ({"Two": "new", "three": "new"}, "one", "not a coordinator's name"),
])
def test_what_is_no_set_of_coordinators_changes_nothing(alone: SmallFederation, keys, named, says: str):
    path = alone.root / "coordinator" / "federation.toml"
    before, north = path.read_bytes(), alone.coordinator.federation.site("north").key
    same = Identity.generate().key
    given = {name: {"new": Identity.generate().key, "same": same, "north": north}[what] for name, what in keys.items()}
    if "same" in keys.values():
        given["two"] = same
    with pytest.raises(ContractError, match=says):
        add_coordinators(path.parent, given, named)
    assert path.read_bytes() == before


def test_they_go_out_again_but_never_down_to_two(alone: SmallFederation):
    folder = alone.root / "coordinator"
    keys = {name: Identity.generate().key for name in (*OTHERS, "four")}
    add_coordinators(folder, keys, "one")
    assert remove_coordinators(folder, ["four"], revoke=True).revoked == (keys["four"],)
    with pytest.raises(ContractError, match="was revoked"):
        add_coordinators(folder, {"four": keys["four"]})
    with pytest.raises(ContractError, match="name at least 3"):
        remove_coordinators(folder, ["three"])
    with pytest.raises(ContractError, match="none of the coordinators"):
        remove_coordinators(folder, ["nobody"])
    with pytest.raises(ContractError, match="founder's key signs"):
        remove_coordinators(folder, ["one", *OTHERS], revoke=True)
    remove_coordinators(folder, ["one", *OTHERS])
    assert load_federation(folder / "federation.toml").coordinators == ()
    assert add_coordinators(folder, {**keys, "four": Identity.generate().key}).majority == 2


def test_who_is_given_another_test_set_than_the_founder_has_is_told(alone: SmallFederation, tmp_path: Path):
    file = tmp_path / "two.toml"
    typed(alone, "coordinator", "invite", "two", *founder(alone), "--output", file)
    asked = load_toml(CoordinatorInvitation, file)
    with pytest.raises(SetupError, match=r"the founder has a test set \(--test-set\)"):
        create_other(tmp_path / "two", asked)
    with pytest.raises(SetupError, match="has no checkpoint to begin with"):
        create_other(tmp_path / "two", asked, alone.root / "coordinator" / "test.parquet", file)
    assert not (tmp_path / "two").exists()


def test_who_checks_the_file_is_told_of_a_region_without_which_no_round_goes_on(made: SmallFederation,
                                                                              capsys: pytest.CaptureFixture[str]):
    coast = Region(name="coast", key=Identity.generate().key, members=("east", "north"))
    for dropouts in (2, 1):
        how = SecureSum(threshold=2, dropouts=dropouts, colluders=0)
        warn_of_regions_that_stop_sums(made.coordinator.federation.model_copy(update={"combine": how, "regions": (coast,)}))
        told = " ".join(capsys.readouterr().out.split())
        assert told.startswith("" if dropouts == 2 else "! region 'coast' has 2 members, and 1 may be missing in a sum")
        assert (told == "") == (dropouts == 2)
