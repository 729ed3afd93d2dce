"""`fedround privacy plan`: what it says is what a ledger would charge."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import DpSgd, GaussianCounts
from tests.cli.conftest import Fedround, one_sentence

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
    (("--epsilon", "5", "--rounds", "5", "--unit", "person", "--rows", "9"), "'record' or 'site'"),
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
