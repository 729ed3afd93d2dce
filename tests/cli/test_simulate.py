"""fedround simulate, as a person and as a script would use it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from fedround_cli.label_plot import _MARKS, as_svg, as_text
from fedround_cli.main import app
from tests.small_federation import RECIPE, rows
from tests.tasks.test_diverged import DIVERGES

SETTINGS = '''
name = "clinics"
quorum = 2
[training]
local_steps = 3
batch_size = 32
learning_rate = 0.5
[privacy]
unit = "record"
epsilon = 8.0
delta_dp = 1e-5
rounds = 2
[aggregation]
rule = {name = "weighted_mean"}
'''
SPLIT = '''
from tests.small_federation import rows
from fedround_examples.story import Bank, Split, Story
from pathlib import Path
STORY = Story(Path(__file__).parent, lambda: Split(rows(200, 9), tuple(
    Bank(f"clinic-{n}", rows(90, n), rows(40, 50 + n)) for n in range(3))))
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "recipe.py").write_text(RECIPE)
    frame = rows(500, 1)
    clinics = ["lower clinic" if n % 3 == 0 else "Upper Clinic" for n in range(500)]
    frame.assign(clinic=clinics).to_parquet(tmp_path / "rows.parquet")
    return tmp_path


def run(*words: object) -> str:
    done = CliRunner().invoke(app, ["simulate", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


ADDED_UP = SETTINGS.replace("quorum = 2", '''quorum = 4
combine = {name = "secure_sum", threshold = 4, dropouts = 1, colluders = 1}''').replace("[aggregation]", "").replace(
    'rule = {name = "weighted_mean"}', "").replace(
    "local_steps = 3", 'name = "union_step"').replace("batch_size = 32", "batch_size = 900")


def refused(*words: object) -> str:
    done = CliRunner().invoke(app, ["simulate", *map(str, words)])
    assert done.exit_code == 1
    return " ".join(done.output.split())


def dealt(folder: Path, *words: object) -> tuple[object, ...]:
    return folder / "settings.toml", "--recipe", folder / "recipe.py", "--data", folder / "rows.parquet", *words


def test_a_model_that_diverges_is_said_and_ends_no_command(folder: Path):
    """A rate that is too high is the commonest mistake: the other rounds, seeds and rivals are told."""
    (folder / "recipe.py").write_text(DIVERGES)
    said = " ".join(run(*dealt(folder, "--sites", 3, "--compare")).split())
    assert "from round 1 on the public rows: the model says no finite number for" in said
    assert "it has diverged; a smaller learning rate" in said
    assert "all rows in one place: " in said


def test_an_examples_folder_is_enough(folder: Path):
    (folder / "split.py").write_text(SPLIT)
    said = run(folder)
    assert "clinic-0" in said
    assert "clinics: 2 rounds of 3 steps on batches of 32 rows, weighted_mean" in said
    assert "AUC at the sites, on the rows that each holds out" in said


def test_json_for_scripts_repeats_and_says_everything(folder: Path):
    words = dealt(folder, "--sites", 4, "--partition", "dirichlet:0.5", "--seeds", 2, "--json")
    told, again = json.loads(run(*words)), json.loads(run(*words))
    assert told == again
    assert sum(told["sites"].values()) == 400 - sum(count // 4 for count in told["sites"].values())
    first, second = told["campaigns"]
    assert (first["seed"], second["seed"], len(first["rounds"])) == (0, 1, 2)
    assert 0.5 < first["rounds"][-1]["test"]["auc"] <= 1
    assert 7 < first["epsilon"] <= 8
    assert first["rounds"] != second["rounds"]


def test_options_take_the_place_of_settings(folder: Path):
    told = json.loads(run(*dealt(folder, "--epsilon", 2, "--rounds", 3, "--sites", 5, "--share", 0.4, "--exact", "--json")))
    assert (told["settings"]["privacy"]["epsilon"], told["settings"]["privacy"]["rounds"]) == (2, 3)
    assert [one["asked"] for one in told["campaigns"][0]["rounds"]] == [2, 2, 2]
    free = json.loads(run(*dealt(folder, "--epsilon", 0, "--rounds", 3, "--sites", 2, "--json")))
    assert free["settings"]["privacy"] == {"unit": "none"}
    assert len(free["campaigns"][0]["rounds"]) == 3


def test_what_a_run_may_have_instead_is_simulated_by_its_name(folder: Path):
    settings = folder / "settings.toml"
    settings.write_text(SETTINGS + '[choices]\nepsilon = [2.0]\nrule = [{name = "coordinate_median"}]\n')
    found = json.loads(run(*dealt(folder, "--rule", "coordinate_median", "--epsilon", 5, "--rounds", 1, "--sites", 2,
                                  "--json")))
    assert found["settings"]["aggregation"]["rule"]["name"] == "coordinate_median"
    assert found["settings"]["privacy"]["epsilon"] == 5.0
    refused = CliRunner().invoke(app, ["simulate", *map(str, dealt(folder, "--rule", "krum"))])
    assert refused.exit_code == 1
    assert "the rule weighted_mean or coordinate_median" in " ".join(refused.output.split())


def test_sites_whose_rows_pay_apart_take_less_noise_for_the_same_promise(folder: Path):
    together, apart = (json.loads(run(*dealt(folder, "--epsilon", 2, "--sites", 2, "--json", *more)))["campaigns"][0]
                       for more in ((), ("--apart",)))
    assert (together["apart"], apart["apart"]) == (False, True)
    assert 1.5 < apart["epsilon"] <= 2
    for site, mechanism in apart["mechanisms"].items():
        assert mechanism["noise_multiplier"] < together["mechanisms"][site]["noise_multiplier"]
    assert "noise multipliers: smallest" in run(*dealt(folder, "--sites", 2, "--apart"))


def test_a_column_says_who_has_which_rows_and_a_picture_shows_it(folder: Path):
    said = run(*dealt(folder, "--partition", "column:clinic", "--picture", folder / "labels.svg", "--rounds", 1))
    assert "upper-clinic" in said
    assert "lower-clinic" in said
    assert "lower-clinic" in (folder / "labels.svg").read_text()


def test_comparison_with_all_rows_and_with_each_site_alone(folder: Path):
    told = json.loads(run(*dealt(folder, "--sites", 2, "--compare", "--json")))
    assert set(told["compared"]) == {"all rows in one place", "site-1 alone", "site-2 alone"}
    assert told["compared"]["all rows in one place"]["auc"] > 0.7


def test_personal_models_are_judged_beside_the_shared_one(folder: Path):
    (folder / "settings.toml").write_text(SETTINGS + '[personal]\nname = "ditto"\npull = 0.1\n')
    told = json.loads(run(*dealt(folder, "--sites", 3, "--json")))["campaigns"][0]
    assert set(told["personal_at_sites"]) == set(told["at_sites"]) == {"site-1", "site-2", "site-3"}
    assert told["notes"] == []
    assert "personal models' AUC at the sites" in run(*dealt(folder, "--sites", 3))


def test_settings_are_compared_and_a_rate_that_learns_beats_one_that_does_not(folder: Path):
    words = dealt(folder, "--sites", 3, "--rounds", 4, "--try", "training.learning_rate=0.001,0.5,1")
    told = json.loads(run(*words, "--try", "training.local_steps=1,4", "--json"))
    assert told["best"].startswith(("training.learning_rate 0.5", "training.learning_rate 1,"))
    assert len({trial["candidate"] for trial in told["trials"]}) == 6
    assert told["rounds"] == sum(trial["rounds"] for trial in told["trials"])
    assert told["epsilon_if_live"] > 8, "every trial is a campaign"
    assert max(trial["rounds"] for trial in told["trials"]) == 4
    said = run(*words)
    assert "would charge every trial" in said
    assert said.index("learning_rate 0.001") > said.index("learning_rate 0.5")


def test_a_word_a_section_that_is_not_there_yet_and_no_privacy(folder: Path):
    told = json.loads(run(*dealt(folder, "--sites", 2, "--rounds", 2, "--epsilon", 0, "--try", "optimizer.momentum=0,0.5",
                                 "--try", "training.optimizer=sgd,adam", "--json")))
    assert told["epsilon_if_live"] is None
    assert "optimizer.momentum 0, training.optimizer adam" in {trial["candidate"] for trial in told["trials"]}


@pytest.mark.parametrize(("tried", "says"), [
    (["training.learning_rate"], "expected KEY=VALUE,VALUE"),
    (["training.learning_rate=1,,2"], "expected KEY=VALUE,VALUE"),
    (["training.speed=1,2"], "unknown key 'training.speed'"),
    (["training.learning_rate=-1"], "'training.learning_rate'"),
    (["name.of=1"], "'name' holds no settings"),
    (["training.local_steps=1", "training.local_steps=2"], "given twice"),
    (["training.local_steps=" + ",".join(map(str, range(1, 101)))], "100 combinations; at most 81"),
])
def test_what_cannot_be_tried_is_said(folder: Path, tried: list[str], says: str):
    assert says in refused(*dealt(folder, *(word for one in tried for word in ("--try", one))))


def test_an_option_that_a_search_would_ignore_is_refused(folder: Path):
    tried = "--try", "training.local_steps=1,2"
    assert "--share, --compare has no effect with --try" in refused(*dealt(folder, *tried, "--share", 0.5, "--compare"))


def test_what_is_missing_is_said(folder: Path):
    assert "give --recipe FILE" in refused(folder / "settings.toml").replace("Give", "give")
    assert "Give --data FILE" in refused(folder)
    assert "cannot read" in refused(folder / "nothing.toml", "--recipe", folder / "recipe.py")
    assert "expected iid, dirichlet" in refused(*dealt(folder, "--partition", "evenly"))
    assert "no column 'town'" in refused(*dealt(folder, "--partition", "column:town"))
    assert "pays for" not in run(*dealt(folder, "--rounds", 1))


def test_marks_of_labels_are_told_apart_where_the_encoding_has_none_of_them():
    plain = _MARKS.encode("ascii", "plainer").decode()
    assert "?" not in plain
    assert len(set(plain)) == len(_MARKS) == len(plain)


def test_bars_are_as_long_as_sites_have_rows():
    text = as_text(["up to 5", "above 5"], {"north": [30, 10], "south": [0, 20]}, width=8)
    assert text.splitlines()[0].endswith("█ up to 5  ▓ above 5")
    assert text.splitlines()[1].endswith("      40 ██████▓▓")
    assert text.splitlines()[2].endswith("      20 ▓▓▓▓")
    assert "… and 2 more sites" in as_text(["0", "1"], {f"site-{n:02d}": [1, 2] for n in range(22)})
    picture = as_svg(["0", "> 1"], {"a<b": [1, 2]}, "x & y")
    assert "a&lt;b" in picture
    assert "x &amp; y" in picture
    assert "&gt; 1" in picture
    assert as_svg(["0"], {f"site-{n:04d}": [1] for n in range(2000)}, "many").count("<rect") == 2000 + 2


def test_a_campaign_on_one_part_of_the_rows_is_simulated_on_these_alone(folder: Path):
    path = folder / "rows.parquet"
    days = ["2026-11-23" if n % 5 else "2026-11-30" for n in range(500)]
    pd.read_parquet(path).assign(day=days).to_parquet(path)
    assert "do not tell rows apart" in refused(*dealt(folder, "--part", "2026-w48"))
    with (folder / "settings.toml").open("a") as file:
        file.write('\n[partitions]\ncolumn = "day"\n')
    assert "name it with --part" in refused(*dealt(folder))
    assert "no row is in the part '2026-w01'" in refused(*dealt(folder, "--part", "2026-w01"))
    told = json.loads(run(*dealt(folder, "--sites", 2, "--part", "2026-w48", "--json")))
    whole = 400 - 400 // 5
    assert sum(told["sites"].values()) == whole - 2 * (whole // 2 // 5)


def test_members_that_share_noise_are_compared_with_those_that_do_not(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    (folder / "settings.toml").write_text(ADDED_UP)
    asked = (folder / "settings.toml", "--recipe", folder / "recipe.py", "--data", folder / "rows.parquet", "--sites", "5",
             "--share", "0.8", "--compare")
    told = json.loads(run(*asked, "--json"))
    campaign, own = told["campaigns"][0], told["own_noise"]
    assert {one["asked"] for one in campaign["rounds"]} == {4}
    assert campaign["epsilon"] <= 8.0 < campaign["epsilon_alone"]
    assert own["epsilon"] <= 8.0
    assert own["epsilon_alone"] is None
    shown = " ".join(run(*asked).split())
    assert "with each site's own noise" in shown
    assert "if every other site told what it added, it would be" in shown
    assert "3 of 5 members are left" in refused(*asked[:-3], "--share", "0.6")


MEMBERS = SETTINGS.replace("quorum = 2", f'quorum = 2\ncoordinator = "ed25519:{99:064x}"').replace(
    'unit = "record"\nepsilon = 8.0\ndelta_dp = 1e-5\nrounds = 2', 'unit = "none"') + """
[selection]
name = "random"
sites = 2
within = 2
""" + "".join(f"""
[[sites]]
name = "{name}"
key = "ed25519:{place + 1:064x}"
weight = {weight}
{more}
""" for place, (name, weight, more) in enumerate((("north", 1.0, ""), ("east", 2.0, ""), (
    "south", 1.0, 'hours = {time_zone = "Europe/Berlin", start = "20:00", end = "06:00"}'))))


def test_a_federation_files_members_are_asked_as_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Names, weights and hours are the file's; who is drawn, and who took part, is told."""
    monkeypatch.setenv("COLUMNS", "200")
    (folder / "federation.toml").write_text(MEMBERS)
    asked = (folder / "federation.toml", *dealt(folder)[1:], "--rounds", 4)
    told = json.loads(run(*asked, "--json"))["campaigns"][0]
    assert told["participation"]["sites"].keys() == {"north", "east", "south"}
    assert told["participation"]["sites"]["east"]["agreed"] == 0.5
    assert [len(one["unasked"]) for one in told["rounds"]] == [1] * 4
    assert all("calendar" in note for note in told["notes"])
    by_day = json.loads(run(*asked, "--seconds", "60,120", "--begins", "2026-12-01T09:00+01:00", "--json"))["campaigns"][0]
    assert [one["unasked"] for one in by_day["rounds"]] == [["south"]] * 4
    assert [one["ended_s"] for one in by_day["rounds"]] == [120.0, 240.0, 360.0, 480.0]     # north takes 120
    shown = " ".join(run(*asked, "--seconds", "60").split())
    assert "Who took part" in shown
    assert "of the weight in the models so far lies with other members" in shown
    assert "the federation file has 3 members, and 2 sites are simulated" in refused(*asked, "--sites", 2)


@pytest.mark.parametrize(("words", "says"), [
    (("--seconds", "60,fast"), "expected numbers above 0"), (("--begins", "2026-12-01T09:00"), "a time with its zone"),
    (("--begins", "2026-12-01T09:00+01:00"), "a calendar needs a clock"), (("--every", 5), "no effect without --begins")])
def test_a_clock_that_cannot_be_read_is_said(folder: Path, words, says):
    assert says in refused(*dealt(folder, "--sites", 2, "--rounds", 1, *words))
