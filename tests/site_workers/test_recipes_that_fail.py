"""A recipe that does not work costs nothing, and what it raises stays at the site."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from fedround import layout
from fedround.errors import ContractError
from fedround.privacy import ledger
from infra.settings import SiteSettings, load_toml
from site_workers import approval, preflight
from site_workers import round as site_round
from site_workers.site import open_site
from site_workers.tried import try_candidate
from tests import small_federation
from tests.small_federation import RECIPE, SmallFederation

pytestmark = pytest.mark.usefixtures("rows_are_judged_here")

LSTM = RECIPE.replace("def build_model", '''class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTM(1, 3, batch_first=True), nn.Linear(3, 1)

    def forward(self, x):
        return self.out(self.cell(x[:, :, None])[0][:, -1])


def build_model''').replace("return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))", "return Recurrent()")
BRANCHES = LSTM.replace("return self.out(", "x = x if float(x.sum()) > 5 else 2 * x\n        return self.out(")
WRONG = RECIPE.replace("nn.Linear(4, 1)", "nn.Linear(4, 2)")


def refusal(federation: SmallFederation) -> dict:
    folder = (federation.root / "store" / layout.refusals("north", "spring", 1, 1, "train")).parent
    path = sorted(folder.glob("refusal-*"))[-1]
    return json.loads(path.read_bytes())["body"]


@pytest.mark.parametrize("recipe", ["lstm", "branches"])
def test_attack_a_model_that_torch_cannot_map_over_rows_trains_nevertheless(tmp_path, caplog, recipe):
    """Everything was green, two campaigns charged 1.97 of 3, and the site was reported as "no answer"."""
    federation = small_federation.make(tmp_path, recipe={"lstm": LSTM, "branches": BRANCHES}[recipe])
    assert len(federation.round().updates) == 3
    assert ("row by row, which is slow" in caplog.text) == (recipe == "branches")


def test_a_recipe_that_cannot_be_trained_is_refused_where_a_federation_begins(tmp_path):
    with pytest.raises(ContractError, match="must give one logit"):
        small_federation.make(tmp_path, recipe=WRONG)


def test_at_a_site_it_is_a_signed_refusal_that_costs_nothing(federation: SmallFederation, monkeypatch, caplog):
    planned, site = federation.plan(), federation.site("north")
    file = site.folder / site.settings.recipe
    monkeypatch.setattr(site_round, "try_out", lambda *_, **__: (_ for _ in ()).throw(ContractError("secret words")))
    assert federation.answer("north", planned) == "refusal"
    assert refusal(federation)["reason"] == "failed"
    assert "secret words" in caplog.text
    assert "secret" not in json.dumps(refusal(federation))
    assert ledger.read(site.ledger).charges == ()
    assert file.exists()


@pytest.mark.parametrize("error", [ValueError, SystemExit, IndexError])
def test_attack_an_unexpected_error_is_a_signed_refusal_and_its_words_stay(
        federation: SmallFederation, monkeypatch, error, caplog):
    planned = federation.plan()
    monkeypatch.setattr(site_round, "work", lambda *_: (_ for _ in ()).throw(error("Ada's income")))
    assert federation.answer("north", planned) == "refusal"
    assert (refusal(federation)["reason"], refusal(federation)["detail"]) == (
        "failed", "the work failed; the site's operator sees why")
    assert "Ada's income" in caplog.text
    assert federation.collect(planned).refused.keys() == {"north"}


def test_site_check_and_site_approve_try_it_first(tmp_path):
    federation = small_federation.make(tmp_path)
    site = federation.site("north")
    found = {finding.check: finding for finding in preflight.preflight(site.folder)}
    assert found["recipe"].ok
    settings = load_toml(SiteSettings, site.folder / "site.toml")
    pools = RECIPE.replace("to_numpy(np.float32)", "rank().to_numpy(np.float32)")
    for source, says in [(WRONG, "must give one logit"), (pools, "otherwise beside other rows")]:
        candidate = approval.examine("recipe", source.encode(), "it")
        with pytest.raises(ContractError, match=says):
            try_candidate(site.folder, settings, candidate)
    (note,) = try_candidate(site.folder, settings, approval.examine("recipe", BRANCHES.encode(), "it"))
    assert "row by row" in note
    assert open_site(site.folder).recipe.digest == site.recipe.digest


def test_attack_one_gap_in_300_rows_is_no_refusal(federation: SmallFederation):
    """With `statistics = ()` it was one: it told, charged nothing, that the row is there."""
    path = federation.root / "data" / "north" / "train.parquet"
    rows = pd.read_parquet(path)
    rows.loc[5, "x2"] = float("nan")
    rows.to_parquet(path)
    assert federation.answer("north", federation.plan()) == "update"
