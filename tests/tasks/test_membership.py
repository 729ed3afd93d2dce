"""Who takes part: the federation file stays whole whatever is added to it, and says it in one sentence when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedround.errors import ContractError, SetupError
from fedround.privacy.spec import NoPrivacy
from fedround.signing import Identity, digest
from infra.invitations import Invitation
from infra.settings import CoordinatorSettings, DataSettings, DirectorySettings, S3Settings, load_toml, save_toml
from site_workers.enrol import create_site
from tasks.coordinator import open_coordinator
from tasks.invitations import invite_site
from tasks.membership import add_member, create_coordinator
from tests import small_federation
from tests.small_federation import CONTRACT, NAMES, RECIPE, SmallFederation, rows, settings
from validation.contract import load_contract


def enrol(federation: SmallFederation, name: str, weight: float) -> str:
    """A new member, from the invitation to the federation file; returns its key."""
    data = federation.root / "data" / name
    data.mkdir()
    rows(120, 7).to_parquet(data / "train.parquet")
    rows(60, 8).to_parquet(data / "validation.parquet")
    folder = federation.root / "coordinator"
    key = create_site(
        federation.root / name, invite_site(folder, name, None),
        DataSettings(dataset="people", train=str(data / "train.parquet"), validation=str(data / "validation.parquet")),
        max_epsilon=8.0, delta_dp=1e-5, min_rows=50)
    add_member(folder, name, key, weight)
    return key


def test_a_member_that_was_added_between_two_rounds_takes_part_in_the_next(federation: SmallFederation):
    first = federation.round()
    enrol(federation, "west", 120.0)
    planned = federation.plan()
    assert planned.plan.cohort == (*NAMES, "west")
    for name in (*NAMES, "west"):
        assert federation.answer(name, planned) == "update"
    second = federation.commit(planned).commit
    assert [update.site for update in first.updates] == ["east", "north", "south"]
    assert [(update.site, update.weight) for update in second.updates] == [
        ("east", 200.0), ("north", 300.0), ("south", 150.0), ("west", 120.0)]


def test_a_member_that_was_added_while_a_round_waits_makes_it_a_new_attempt(federation: SmallFederation):
    waiting = federation.plan()
    federation.answer("north", waiting)
    enrol(federation, "west", 120.0)
    again = federation.plan()
    assert (again.plan.round, again.plan.attempt) == (1, 2)
    assert "west" in again.plan.cohort


def test_a_member_that_left_is_not_asked_and_its_history_still_proves(federation: SmallFederation):
    from tasks.verify import verify_run

    federation.round()
    path = federation.root / "coordinator" / "federation.toml"
    head, *members = path.read_text().split("[[sites]]")
    path.write_text(head + "".join(f"[[sites]]{member}" for member in members if '"south"' not in member))
    commit = federation.round(sites=("north", "east"))
    assert commit.missing == ()
    coordinator = federation.coordinator
    assert [proof.round for proof in verify_run(coordinator.store, "spring", coordinator.identity.key)] == [0, 1, 2]


def test_comments_in_the_federation_file_survive_a_new_member(federation: SmallFederation):
    path = federation.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace("deadline_s = 60", "deadline_s = 60   # agreed on the telephone"))
    enrol(federation, "west", 1.0)
    assert "# agreed on the telephone" in path.read_text()


@pytest.mark.parametrize(("name", "weight", "says"), [
    ("north", 1.0, "two sites have the same name"), ("coordinator", 1.0, "the coordinator's own name"),
    ("small-coordinator", 1.0, "the coordinator's own name"), ("a b", 1.0, "'name'"), ("west", 0.0, "'weight'"),
    ("west", -1.0, "'weight'"), ("west", float("nan"), "'weight'"), ("west", float("inf"), "'weight'")])
def test_a_member_that_cannot_be_leaves_the_file_as_it_was(federation: SmallFederation, name: str, weight: float,
                                                           says: str):
    path = federation.root / "coordinator" / "federation.toml"
    before = path.read_bytes()
    with pytest.raises(ContractError, match=says):
        add_member(path.parent, name, Identity.generate().key, weight)
    assert path.read_bytes() == before


def test_the_coordinators_own_key_cannot_be_a_member(federation: SmallFederation):
    """It could answer its own plans."""
    with pytest.raises(ContractError, match="two members have the same key"):
        add_member(federation.root / "coordinator", "west", federation.coordinator.identity.key, 1.0)


@pytest.mark.parametrize(("changes", "says"), [
    ({"quorum": 0}, "'quorum'"),
    ({"aggregation": {"rule": {"name": "trimmed_mean", "f": 1}}},
     "settings: aggregation with quorum 2: trimmed_mean with f=1 needs at least 3 updates"),
    ({"aggregation": {"rule": {"name": "trimmed_mean"}}}, "'aggregation.rule.f' is missing"),
    ({"sights": []}, "unknown key 'sights'"),
    ({"privacy": {"unit": "none", "epsilon": 1.0}}, "unknown key 'privacy.epsilon'"),
    ({"privacy": {"unit": "record", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3, "mechanism": "dp_ftrl",
                  "adaptive": {}}}, "'privacy': adaptive clipping goes with"),
    ({"optimizer": {"name": "fedavg", "momentum": 1.0}}, "'optimizer.momentum'"), ({"name": "Small"}, "'name'")])
def test_settings_that_cannot_be_make_no_folder(tmp_path: Path, changes: dict, says: str):
    with pytest.raises(ContractError, match=says):
        create(tmp_path, **changes)
    assert not (tmp_path / "coordinator").exists()


def test_a_federation_may_be_made_before_it_has_enough_members(tmp_path: Path):
    """And cannot be opened before."""
    create(tmp_path, quorum=2, enough=2)
    add_member(tmp_path / "coordinator", "north", Identity.generate().key, 1.0)
    with pytest.raises(ContractError, match="quorum 2 can never be met by 1 site"):
        open_coordinator(tmp_path / "coordinator")
    add_member(tmp_path / "coordinator", "east", Identity.generate().key, 1.0)
    assert len(open_coordinator(tmp_path / "coordinator").federation.sites) == 2


def test_a_bucket_needs_a_credential_for_every_site(tmp_path: Path):
    create(tmp_path)
    path = tmp_path / "coordinator" / "coordinator.toml"
    changed = load_toml(CoordinatorSettings, path).model_copy(update={
        "store": S3Settings(endpoint="http://127.0.0.1:9", bucket="b")})
    save_toml(changed, path, "test")
    with pytest.raises(ContractError, match="can write only below 'sites/west/'"):
        invite_site(tmp_path / "coordinator", "west", None)


@pytest.mark.parametrize("file", ["recipe.py", "contract.json"])
def test_an_agreed_file_that_was_changed_afterwards_is_noticed(tmp_path: Path, file: str):
    create(tmp_path, quorum=1)
    add_member(tmp_path / "coordinator", "north", Identity.generate().key, 1.0)
    path = tmp_path / "coordinator" / "approved" / file
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ContractError, match=f"{file}|contract"):
        open_coordinator(tmp_path / "coordinator")


def test_an_invitation_holds_no_secret_of_the_coordinator(federation: SmallFederation):
    invitation = invite_site(federation.root / "coordinator", "west", None).model_dump_json()
    assert "PRIVATE" not in invitation
    assert federation.coordinator.identity.key in invitation


def test_a_folder_that_is_in_use_is_left_alone(federation: SmallFederation):
    with pytest.raises(SetupError, match="exists and is not empty"):
        create(federation.root)


def test_a_second_federation_in_the_same_bucket_is_refused_before_it_begins(federation: SmallFederation):
    """Where nothing was deployed yet, the bucket is free; after that, it belongs to who wrote its log."""
    root = federation.root

    def begin(folder: str) -> None:
        create_coordinator(
            root / folder, small_federation.settings(), federation.coordinator.settings, root / "agreed" / "recipe.py",
            root / "agreed" / "contract.json", None, root / "agreed" / "test.parquet")

    store = root / "store"
    (store / "log").mkdir(parents=True)
    (store / "log" / "junk.json").write_bytes(b"a stranger's")
    begin("second")
    federation.plan()
    with pytest.raises(ContractError, match="a federation lives in this bucket already: choose another"):
        begin("third")
    assert not (root / "third").exists()
    assert not list(root.glob(".third*"))


def test_without_noise_is_a_word_of_its_own(tmp_path: Path):
    create(tmp_path, quorum=1, privacy={"unit": "none"})
    add_member(tmp_path / "coordinator", "north", Identity.generate().key, 1.0)
    assert open_coordinator(tmp_path / "coordinator").federation.privacy == NoPrivacy()


def create(root: Path, **changes: object) -> None:
    """A coordinator's folder from the small federation's settings, with changes."""
    (root / "recipe.py").write_text(RECIPE)
    (root / "contract.json").write_text(json.dumps(CONTRACT))
    create_coordinator(
        root / "coordinator", settings(**changes),
        CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json",
                            api_url="http://127.0.0.1:9/api", store=DirectorySettings(path="../store")),
        root / "recipe.py", root / "contract.json", None)


def test_whose_heaviest_members_weigh_half_cannot_bear_that_they_lie(tmp_path: Path):
    """A theorem in weights is checked for the worst quorum, before any round."""
    create(tmp_path, quorum=3, aggregation={"rule": {"name": "weighted_trimmed_mean", "f": 1}})
    for name, weight in (("north", 2.0), ("east", 1.0), ("south", 1.0)):
        add_member(tmp_path / "coordinator", name, Identity.generate().key, weight)
    with pytest.raises(ContractError, match="the 1 heaviest of 3 sites have 50% of the weight"):
        open_coordinator(tmp_path / "coordinator")


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_attack_a_file_with_other_line_ends_is_the_same_file_at_every_member(tmp_path: Path, end: str):
    """Read as text, a recipe with CRLF had one digest at the coordinator and another at the sites: no round ever worked."""
    recipe = RECIPE.replace("\n", end) + f"# å, \\, \"\"\" and '''{end}"
    federation = small_federation.make(tmp_path, recipe=recipe)
    save_toml(invite_site(federation.root / "coordinator", "west", None), tmp_path / "west.toml", "test")
    arrived = load_toml(Invitation, tmp_path / "west.toml")
    assert digest(arrived.recipe.encode()) == federation.coordinator.federation.recipe_digest
    assert arrived.recipe == (federation.root / "agreed" / "recipe.py").read_bytes().decode()
    assert federation.site("north").recipe.digest == federation.coordinator.federation.recipe_digest


def test_settings_may_begin_with_a_byte_order_mark_and_a_contract_may_not(federation: SmallFederation, tmp_path: Path):
    path = federation.root / "coordinator" / "federation.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert federation.coordinator.federation.name == "small"
    enrol(federation, "west", 120.0)
    for body, says in ((b"\xef\xbb\xbf{}", "byte order mark"), ("{}".encode("utf-16"), "UTF-16"), (b"\xe9", "not UTF-8")):
        (tmp_path / "contract.json").write_bytes(body)
        with pytest.raises(ContractError, match=f"contract.json: .*{says}.*save it as UTF-8"):
            load_contract(tmp_path / "contract.json")


FILLS = RECIPE.replace('rows[["x1", "x2"]]', 'rows.reindex(columns=["x1", "x2"]).fillna(0)')
TESTED: dict[str, tuple[str, str]] = {
    "no column": ("frame.drop(columns='x1')", "test.csv has no column 'x1', which the check 'x1_in_range' .* asks for"),
    "no labels": ("frame.drop(columns='y')", "cannot encode a single row"),
    "one label": ("frame.assign(y=1)", "all rows of the test set .*test.csv have the label 1: .* both labels"),
    "labels of more kinds": ("frame.assign(y=frame['y'] * 2)", "labels"),
    "semicolons": ("frame", "semicolons stand between its columns")}


@pytest.mark.parametrize("what", TESTED)
def test_the_test_set_is_examined_where_a_federation_begins(tmp_path: Path, what: str):
    """A recipe that fills gaps with zeros judged every model by zeros."""
    how, says = TESTED[what]
    frame, test_set = rows(60, 9), tmp_path / "test.csv"
    frame = eval(how, {"frame": frame})
    frame.to_csv(test_set, index=False, sep=";" if what == "semicolons" else ",")
    (tmp_path / "recipe.py").write_text(FILLS)
    (tmp_path / "contract.json").write_text(json.dumps(CONTRACT))
    made = CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json", test_set="test_set.csv",
                               api_url="http://127.0.0.1:9/api", store=DirectorySettings(path="../store"))
    with pytest.raises(ContractError, match=says):
        create_coordinator(tmp_path / "coordinator", settings(), made, tmp_path / "recipe.py", tmp_path / "contract.json",
                           None, test_set)
    assert not (tmp_path / "coordinator").exists()
