"""`fedround privacy plan`: what it says is what a ledger would charge."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from fedround.privacy import ledger
from fedround.privacy.accounting import epsilon
from fedround.privacy.persons import epsilon_of_person
from fedround.privacy.profile import upward
from fedround.privacy.spec import DpSgd, GaussianCounts
from tests import small_federation, small_trees, weekly
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import SmallFederation

SETTINGS = """
name = "banks"
quorum = 9
[training]
local_steps = 4
batch_size = 32
[privacy]
unit = "record"
epsilon = 3.0
delta_dp = 1e-6
rounds = 5
[evaluation]
noise_std = 25.0
"""


def as_json(fedround: Fedround, *arguments: object) -> dict:
    result = fedround("privacy", "plan", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def settings() -> Path:
    return Path("settings.toml")


def test_the_plan_is_what_the_accountant_says_of_the_mechanism_it_names(fedround: Fedround, settings: Path):
    settings.write_text(SETTINGS)
    said = as_json(fedround, settings, "--rows", "north=100", "--rows", "south=1000")
    assert [site["site"] for site in said["sites"]] == ["north", "south"]
    for site in said["sites"]:
        mechanism = DpSgd(**site["mechanism"])
        assert (mechanism.steps, mechanism.sampling_rate) == (4, 32 / site["rows"])
        campaign = [*[mechanism] * 5, *[GaussianCounts(noise_std=25.0)] * 6]
        assert site["course"][-1]["total"] == epsilon(campaign, 1e-6) <= 3.0
        assert site["course"][-1]["evaluation"] == epsilon(campaign[5:], 1e-6)
        assert len(site["course"]) == 5
        assert site["epsilon_across_units"]["site"] is None
    noises = [site["mechanism"]["noise_multiplier"] for site in said["sites"]]
    assert noises[0] > noises[1], "few rows need more noise"


def test_groups_are_paid_within_the_promise_and_the_preview_says_error_and_better_noise(fedround: Fedround, settings: Path):
    settings.write_text(SETTINGS)
    alone = as_json(fedround, settings, "--rows", "north=1000", "--rows", "south=1000")
    settings.write_text(SETTINGS + """
[groups]
threshold = 0.5
watched = [
  {of = {column = "sex", values = ["f", "m"]}, noise_std = 6.0},
  {of = {column = "age", edges = [40.0]}, noise_std = 6.0}]
""")
    public = Path("public.csv")
    public.write_text("sex,age\n" + "f,30\nm,50\n" * 50 + "f,30\n" * 80)
    said = as_json(fedround, settings, "--rows", "north=1000", "--rows", "south=1000", "--groups-from", public)
    noise, before = (told["sites"][0]["mechanism"]["noise_multiplier"] for told in (said, alone))
    assert noise > before, "training is noised more for it"
    assert said["sites"][0]["course"][-1]["total"] <= 3.0
    assert said["groups"]["epsilon"] == epsilon([GaussianCounts(noise_std=6.0)] * 2, 1e-6)
    sex, age = said["groups"]["lines"]
    assert (sex["attribute"], age["attribute"]) == ("sex", "age")
    assert sex["recall"] > sex["selection"] > 0
    assert sum(1 / one["better_noise_std"] ** 2 for one in (sex, age)) == pytest.approx(2 / 36, rel=0.01)
    shown = fedround("privacy", "plan", settings, "--rows", "north=1000").stdout
    assert "set aside" in " ".join(shown.split())


def test_options_win_over_the_file(fedround: Fedround, settings: Path):
    settings.write_text(SETTINGS)
    said = as_json(fedround, settings, "--rows", "north=100", "--epsilon", "1", "--rounds", "2", "--steps", "1",
                   "--batch", "9")
    assert (said["privacy"]["epsilon"], said["privacy"]["rounds"]) == (1.0, 2)
    assert (said["training"]["local_steps"], said["training"]["batch_size"]) == (1, 9)
    assert said["privacy"]["delta_dp"] == 1e-6


def test_the_unit_site_says_what_it_costs_a_record(fedround: Fedround):
    said = as_json(fedround, "--epsilon", "5", "--rounds", "20", "--unit", "site", "--rows", "north=100")
    site = said["sites"][0]
    assert site["mechanism"] == {"kind": "gaussian_update", "noise_multiplier": 3.989, "clip_norm": 1.0}
    assert site["epsilon_across_units"]["site"] <= 5 < site["epsilon_across_units"]["record"]
    shown = fedround("privacy", "plan", "--epsilon", "5", "--rounds", "20", "--unit", "site", "--rows", "north=100").stdout
    assert "leave" in shown             # narrow terminals wrap cells
    assert "record" in shown


def test_it_shows_a_table_and_a_plot_and_writes_a_picture(fedround: Fedround, settings: Path):
    settings.write_text(SETTINGS)
    result = fedround("privacy", "plan", settings, "--rows", "no<rth=100", "--picture", "out.svg")
    assert result.exit_code == 0, result.output
    for part in ("no<rth", "0.3200", "multiplier", "evaluations alone", "●", "budget 3"):
        assert part in result.stdout
    picture = ET.fromstring(Path("out.svg").read_text())
    lines = picture.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3                      # the budget, the evaluations, the site
    course = [tuple(map(float, point.split(","))) for point in lines[2].get("points").split()]
    assert len(course) == 5
    assert all(one[0] < two[0] and one[1] > two[1] for one, two in itertools.pairwise(course))


def test_the_promise_in_other_words_is_the_accountants(fedround: Fedround, settings: Path):
    """Epsilon at several deltas, and the person: as computed here from the mechanism that it names."""
    settings.write_text(SETTINGS)
    words = (settings, "--rows", "north=900", "--rows-per-person", "3")
    (site,) = as_json(fedround, *words)["sites"]
    campaign = [*[DpSgd(**site["mechanism"])] * 5, *[GaussianCounts(noise_std=25.0)] * 6]
    assert site["profile"]["epsilons"] == {f"{delta:g}": epsilon(campaign, delta) for delta in (1e-4, 1e-5, 1e-6, 1e-8)}
    assert site["delta_rows"] == 900 * 1e-6
    assert site["person"] == {"rows": 3, "epsilon": epsilon_of_person([(one, 3) for one in campaign], 1e-6)}
    powers = [site["profile"]["rightly"][rate] for rate in ("0.001", "0.01", "0.05", "0.1")]
    assert powers == sorted(powers)
    assert 0.01 < powers[1] < 1
    shown = fedround("privacy", "plan", *words).stdout
    assert f"a person with 3 rows: ε {upward(site['person']['epsilon'], 2)}" in shown
    assert f"Gaussian μ {upward(site['profile']['mu'], 3)}" in shown
    assert fedround("privacy", "plan", *words[:-1], "51").exit_code == 2


def test_a_long_campaign_is_drawn_at_a_few_rounds_with_the_first_and_the_last(fedround: Fedround):
    said = as_json(fedround, "--epsilon", "8", "--rounds", "300", "--steps", "1", "--rows", "north=5000",
                   "--evaluation-noise", "100")
    rounds = [spent["round"] for spent in said["sites"][0]["course"]]
    assert len(rounds) == 40
    assert (rounds[0], rounds[-1]) == (1, 300)


@pytest.mark.parametrize(("arguments", "says"), [
    ((), "Usage"),
    (("--rows", "a=10"), "--epsilon and --rounds"),
    (("--epsilon", "5", "--rounds", "5"), "--rows NAME=N"),
    (("--epsilon", "5", "--rounds", "5", "--rows", "a=b"), "NAME=N"),
    (("--epsilon", "5", "--rounds", "5", "--rows", "a=0"), "NAME=N"),
    (("--epsilon", "5", "--rounds", "5", "--unit", "people", "--rows", "9"), "'record', 'person' or 'site'"),
    (("--epsilon", "5", "--rounds", "5", "--unit", "person", "--rows", "9"), "rows_per_person"),
    (("--epsilon", "-1", "--rounds", "5", "--rows", "9"), "epsilon"),
    (("--epsilon", "0.5", "--rounds", "2000", "--rows", "a=900"), "site 'a' with 900 rows"),
    (("nowhere.toml", "--rows", "9"), "nowhere.toml"),
    (("--epsilon", "5", "--rounds", "5", "--site", "nowhere"), "nowhere"),
])
def test_mistakes_are_one_sentence(fedround: Fedround, arguments, says):
    result = fedround("privacy", "plan", *arguments)
    if says == "Usage":
        one_sentence(result, "--epsilon and --rounds")
    else:
        one_sentence(result, says)


def test_a_settings_file_with_an_unknown_key_or_without_noise_says_so(fedround: Fedround, settings: Path):
    settings.write_text(SETTINGS.replace("epsilon = 3.0", "epsilom = 3.0"))
    one_sentence(fedround("privacy", "plan", settings, "--rows", "9"), "epsilom")
    settings.write_text('[privacy]\nunit = "none"\n')
    one_sentence(fedround("privacy", "plan", settings, "--rows", "9"), "without noise there is nothing to cost")
    settings.write_text("[privacy")
    one_sentence(fedround("privacy", "plan", settings, "--rows", "9"), "not valid TOML")


def test_a_promise_that_means_nothing_is_warned_of(fedround: Fedround):
    """Epsilon is nearly zero at this delta, and three in a hundred records may be published outright."""
    asked = ("--epsilon", "1", "--rounds", "5", "--steps", "10", "--batch", "64", "--rows", "all=1800")
    assert "published outright" in fedround("privacy", "plan", *asked, "--delta-dp", "0.05").stdout
    assert as_json(fedround, *asked)["sites"][0]["warnings"] == []


def test_where_rows_pay_apart_the_plan_has_the_noise_and_the_price_of_the_live_sites(
        fedround: Fedround, tmp_path: Path, rows_are_judged_here: None):
    """The same numbers from rows alone, at the site before, and in the ledger of the round that ran."""
    federation = small_federation.make(tmp_path, names=("north",), quorum=1, apart=True, max_epsilon=2.0, drift={
        "every": 2, "noise_std": 40.0, "columns": [{"column": "x1", "edges": [0.0]}]}, privacy={
        "unit": "record", "epsilon": 2.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3},
        evaluation={"bins": 10, "noise_std": 5.0})
    agreed, folder = federation.root / "coordinator" / "federation.toml", federation.root / "north"
    (named,) = as_json(fedround, agreed, "--rows", "north=300", "--apart")["sites"]
    (own,) = as_json(fedround, agreed, "--site", folder)["sites"]
    assert {key: own[key] for key in ("mechanism", "course", "apart")} == {
        key: named[key] for key in ("mechanism", "course", "apart")}
    assert own["refused_in_round"] is None
    federation.round()
    book = ledger.read(federation.site("north").ledger)
    assert named["mechanism"] == book.charges[0].mechanisms[0].model_dump(mode="json")
    assert named["course"][-1]["total"] == ledger.held(book, 1e-5) <= 2.0
    (together,) = as_json(fedround, agreed, "--rows", "north=300")["sites"]
    assert together["mechanism"]["noise_multiplier"] > 1.2 * named["mechanism"]["noise_multiplier"]
    assert "pay apart" in fedround("privacy", "plan", agreed, "--rows", "north=300", "--apart").stdout


def test_a_row_on_both_sides_ends_it(fedround: Fedround, tmp_path: Path, rows_are_judged_here: None):
    """The registry has seen one: the plan at the site is the dearer one again."""
    federation = small_federation.make(tmp_path, names=("north",), quorum=1, apart=True)
    agreed, data = federation.root / "coordinator" / "federation.toml", federation.root / "data" / "north"
    held_out = pd.read_parquet(data / "validation.parquet")
    pd.concat([held_out, pd.read_parquet(data / "train.parquet").head(1)]).to_parquet(data / "validation.parquet")
    federation.round()
    (own,) = as_json(fedround, agreed, "--site", federation.root / "north")["sites"]
    (together,) = as_json(fedround, agreed, "--rows", "north=300")["sites"]
    assert not own["apart"]
    assert own["mechanism"] == together["mechanism"]


# -- at a site ---------------------------------------------------------------------------------------------------------


def test_at_a_site_its_rows_its_ledger_and_its_policy_count(fedround: Fedround, federation: SmallFederation):
    """What the plan says of the ledger is what the ledger does: a campaign is set aside whole, and another finds no room."""
    agreed = federation.root / "coordinator" / "federation.toml"
    before = as_json(fedround, agreed, "--site", federation.root / "north")["sites"][0]
    assert (before["site"], before["rows"], before["spent_before"], before["refused_in_round"]) == ("north", 300, 0.0, None)
    commit = federation.round()
    book = ledger.read(federation.site("north").ledger)
    assert before["mechanism"] == book.charges[0].mechanisms[0].model_dump(mode="json")
    after = as_json(fedround, agreed, "--site", federation.root / "north", "--site", federation.root / "east")["sites"]
    assert [site["rows"] for site in after] == [300, 200]
    assert after[0]["spent_before"] == ledger.held(book, 1e-5) == before["course"][-1]["total"]
    assert (len(commit.updates), after[0]["refused_in_round"]) == (3, 1)
    shown = fedround("privacy", "plan", agreed, "--site", federation.root / "north").stdout
    assert "refuses" in shown
    assert "spent" in shown


def test_at_a_site_each_week_has_room_for_a_campaign_of_its_own(fedround: Fedround, tmp_path: Path,
                                                                rows_are_judged_here: None):
    federation = weekly.make(tmp_path, 2, names=("north",), quorum=1)
    agreed, site = federation.root / "coordinator" / "federation.toml", federation.root / "north"
    federation.answer("north", federation.plan("one", partition=weekly.name(1)))
    spent, fresh = (as_json(fedround, agreed, "--site", site, "--partition", weekly.name(week))["sites"][0]
                    for week in (1, 2))
    assert [told["rows"] for told in (spent, fresh)] == [80, 80]
    assert [told["refused_in_round"] for told in (spent, fresh)] == [1, None]
    mechanism = ledger.read(federation.site("north").ledger).charges[0].mechanisms[0]
    assert fresh["mechanism"] == mechanism.model_dump(mode="json")
    assert "told apart by the week in column 'day'" in " ".join(
        fedround("federation", "show", "-c", federation.root / "coordinator").stdout.split())
    none = fedround("privacy", "plan", agreed, "--site", site, "--partition", "2020-w01")
    assert none.exit_code == 1
    assert "0 rows" in one_sentence(none)


def test_at_a_site_of_the_other_unit_both_budgets_can_be_what_is_short(fedround: Fedround, tmp_path: Path,
                                                                     rows_are_judged_here: None):
    privacy = {"unit": "site", "epsilon": 4.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 5}
    told = []
    for name, budgets in (("ample", (20.0, 4.0)), ("site", (20.0, 2.0)), ("record", (5.0, 4.0))):
        federation = small_federation.make(tmp_path / name, names=("north",), quorum=1, privacy=privacy, units=("site",),
                                           max_epsilon=budgets[0], max_epsilon_site=budgets[1])
        site = as_json(fedround, federation.root / "coordinator" / "federation.toml", "--site", federation.root / "north")
        told.append(site["sites"][0]["refused_in_round"])
    assert told[0] is None
    assert told[1:] == [1, 1]


def test_a_preflight_shows_the_budget_of_every_unit_that_is_promised_something(fedround: Fedround, tmp_path: Path,
                                                                             rows_are_judged_here: None):
    federation = small_federation.make(
        tmp_path, names=("north",), quorum=1, units=("site",), max_epsilon=20.0, max_epsilon_site=4.0, privacy={
            "unit": "site", "epsilon": 4.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 2})

    def found(check: str) -> dict:
        return next(one for one in json.loads(fedround("site", "check", federation.root / "north", "--json").stdout)
                    if one["check"] == check)

    assert "epsilon up to 20, 4 for the whole site at delta 1e-05" in found("policy")["detail"]
    assert found("ledger")["detail"].endswith("epsilon 0.00 of 20 spent, epsilon 0.00 of 4 spent for the whole site")
    federation.round()
    federation.round()
    path = federation.root / "north" / "policy.toml"
    path.write_text(path.read_text().replace("max_epsilon_site = 4.0", "max_epsilon_site = 3.0"))
    assert not found("ledger")["ok"]
    assert "of 3 spent for the whole site; this site will refuse" in found("ledger")["detail"]


def test_what_is_counted_for_drift_is_part_of_the_price(fedround: Fedround, tmp_path: Path):
    """The campaign still keeps its promise, and takes more noise for it."""
    plain, watched = tmp_path / "plain.toml", tmp_path / "watched.toml"
    plain.write_text(SETTINGS)
    watched.write_text(SETTINGS + "[drift]\nevery = 2\nnoise_std = 25.0\ncolumns = [{column = 'age', edges = [30, 40]}]\n")
    (one,), (other,) = (as_json(fedround, path, "--rows", "north=900")["sites"] for path in (plain, watched))
    assert other["mechanism"]["noise_multiplier"] > one["mechanism"]["noise_multiplier"]
    assert other["course"][-1]["drift"] == pytest.approx(epsilon([GaussianCounts(noise_std=25.0)] * 2, 1e-6))
    assert other["course"][-1]["total"] <= 3.0
    shown = fedround("privacy", "plan", watched, "--rows", "north=900")
    assert "drift" in shown.output


def test_trees_tell_how_loud_the_noise_in_a_leaf_is(fedround: Fedround, tmp_path):
    """sqrt(trees in a round, times the sites' noise squared): by the site's own noise multiplier, in rows."""
    settings = tmp_path / "settings.toml"
    settings.write_text('[privacy]\nunit = "record"\nepsilon = 5.0\ndelta_dp = 1e-5\nrounds = 4\n')
    recipe = tmp_path / "recipe.py"
    recipe.write_text(small_trees.RECIPE.replace("rounds=3", "rounds=4"))
    asked = ("privacy", "plan", settings, "--recipe", recipe, "--rows", "a=2000", "--rows", "b=880")
    noise = [site["mechanism"]["noise_multiplier"] for site in json.loads(fedround(*asked, "--json").stdout)["sites"]]
    told = fedround(*asked)
    assert "all rows" in told.stdout
    assert f"as loud as {math.sqrt(4 * sum(one ** 2 for one in noise)):.1f} rows" in told.stdout
    assert "a leaf has 360.0" in told.stdout
    assert "larger l2" not in told.stdout
    few = fedround("privacy", "plan", settings, "--recipe", recipe, "--epsilon", "0.5", "--rows", "a=30",
                   "--evaluation-noise", "500")
    assert "larger l2" in few.stdout
    settings.write_text('[privacy]\nunit = "record"\nclip_norm = 2.0\nepsilon = 5.0\ndelta_dp = 1e-5\nrounds = 4\n')
    one_sentence(fedround(*asked), "nothing is clipped")
    settings.write_text('[privacy]\nunit = "record"\nepsilon = 5.0\ndelta_dp = 1e-5\nrounds = 5\n')
    one_sentence(fedround(*asked), "make both the same")


def test_members_who_share_noise_have_one_price_together_and_one_alone(fedround: Fedround, settings: Path, tmp_path: Path):
    path = tmp_path / "sums.toml"
    union = SETTINGS.replace("local_steps = 4", 'name = "union_step"').replace("batch_size = 32", "batch_size = 9999")
    path.write_text(union)
    members = [word for name in "abcde" for word in ("--rows", f"{name}=200")]
    (told,) = as_json(fedround, path, *members, "--secure", "4,1,1")["sites"]
    assert (told["site"], told["rows"]) == ("each of 5", 1000)
    assert told["delta_rows"] == pytest.approx(200 * 1e-6)       # a site judges what delta_dp means by its own rows
    mechanism = DpSgd(**told["mechanism"])
    assert (mechanism.sampling_rate, mechanism.steps) == (1.0, 1)
    assert told["course"][-1]["total"] == epsilon([mechanism] * 5 + [GaussianCounts(noise_std=25.0)] * 6, 1e-6) <= 3.0
    alone = mechanism.model_copy(update={"noise_multiplier": mechanism.noise_multiplier / math.sqrt(3)})
    assert told["epsilon_alone"] == pytest.approx(
        epsilon([alone] * 5 + [GaussianCounts(noise_std=25.0 / math.sqrt(3))] * 6, 1e-6), rel=1e-5)
    combine = 'combine = {name = "secure_sum", threshold = 4, dropouts = 1, colluders = 1}'
    path.write_text(union.replace("[training]", f"{combine}\n[training]"))
    shown = " ".join(fedround("privacy", "plan", path, *members).stdout.split())
    assert "nobody" in shown
    one_sentence(fedround("privacy", "plan", path, *members[:6]), "combine", "3 members")
    path.write_text(union)
    one_sentence(fedround("privacy", "plan", path, *members, "--secure", "3,2,0"), "3 honest ones out")
    (told,) = as_json(fedround, path, *members, "--secure", "3,2,0,signed")["sites"]
    assert told["site"] == "each of 5"


@pytest.mark.parametrize(("options", "words"), [
    (("--secure", "4,1"), "three whole numbers"), (("--secure", "4,1,x"), "three whole numbers"),
    (("--secure", "4,1,1"), "union_step"), (("--secure", "4,1,1,sealed"), "9,3,1,signed")])
def test_a_sum_that_cannot_be_meant_is_one_sentence(fedround: Fedround, tmp_path: Path, options: tuple, words: str):
    path = tmp_path / "steps.toml"
    path.write_text(SETTINGS)
    one_sentence(fedround("privacy", "plan", path, "--rows", "a=100", *options), words)


def test_with_a_pace_rounds_are_updates_of_one_site(fedround: Fedround, tmp_path: Path):
    path = tmp_path / "settings.toml"
    path.write_text(SETTINGS + "[pace]\nmax_age = 4\n")
    words = " ".join(fedround("privacy", "plan", path, "--rows", "north=2000").output.split())
    assert "with [pace], 'rounds' counts the updates that one site gives, 5 at most" in words
