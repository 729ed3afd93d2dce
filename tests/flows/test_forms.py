"""What a person reads in the Prefect UI's form: bounds, defaults and the price, as this federation has them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import validate

from fedround.aggregation.rules import CoordinateMedian
from fedround.choices import Choices
from fedround.errors import ContractError
from fedround.privacy.spec import NoPrivacy
from flows.coordinator_worker import FLOWS, _request
from flows.deployment_names import name_of
from flows.federated_join import federated_join
from flows.federated_training import federated_training
from flows.forms import GROUPS, form, grouped, purpose
from infra.asking import DEPLOYMENTS
from tasks.requests import TrainingRequest
from tests.small_federation import SmallFederation

ALL = Choices(sites=True, epsilon=(4.0,), rule=(CoordinateMedian(),))


def boxes(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields of each box of the form; "": those outside, and the boxes."""
    name = schema["properties"]["request"]["$ref"].rpartition("/")[2]
    return {"" if key == name else key: schema["definitions"][key]["properties"] for key in (name, *GROUPS)
            if key in schema["definitions"]}


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_says_what_it_is_for_and_in_which_federation(made: SmallFederation, name: str):
    assert "federation 'small'" in purpose(FLOWS[name][0], made.coordinator.federation)


def test_bounds_defaults_and_the_price_stand_beside_the_fields(made: SmallFederation):
    federation = made.coordinator.federation
    fields = boxes(form(federated_training, federation))
    assert f"The federation file says {federation.quorum}; from 1 to 3" in fields["asked"]["quorum"]["description"]
    assert f"The federation file says {federation.deadline_s}" in fields["asked"]["deadline_s"]["description"]
    assert "From 1 to 10000" in fields[""]["rounds"]["description"]
    assert f"at most epsilon {federation.privacy.epsilon:g}" in fields[""]["rounds"]["description"]
    free = federation.model_copy(update={"privacy": NoPrivacy()})
    assert "without differential privacy" in purpose(federated_training, free)


def test_sites_are_ticked_by_name_where_all_have_agreed_that_they_may_be_chosen(made: SmallFederation):
    federation = made.coordinator.federation
    assert "sites" not in boxes(form(federated_training, federation))["asked"]
    agreed = federation.model_copy(update={"choices": Choices(sites=True)})
    schema = form(federated_training, agreed)
    sites = boxes(schema)["asked"]["sites"]
    assert sites["anyOf"][0]["items"]["enum"] == ["north", "east", "south"]
    assert f"At least {federation.quorum}, unless" in sites["description"]
    asked = {"request": {"run": "spring", "asked": {"sites": ["south", "north"]}}}
    assert validate(asked, schema) == []                                    # as the server does
    assert validate({"request": {**asked["request"], "asked": {"sites": ["nowhere"]}}}, schema) != []
    assert validate({"request": {**asked["request"], "sites": ["north"]}}, schema) != [], "it has its place"
    request = _request(TrainingRequest, asked)
    assert isinstance(request, TrainingRequest)
    assert request.sites == ("south", "north")


def test_target_and_rule_are_picked_where_all_have_agreed_that_a_run_may_have_others(made: SmallFederation):
    federation = made.coordinator.federation
    assert "terms" not in boxes(form(federated_training, federation))
    agreed = federation.model_copy(update={"choices": Choices(epsilon=(4.0,), rule=(CoordinateMedian(),))})
    schema = form(federated_training, agreed)
    terms = boxes(schema)["terms"]
    assert [terms[field]["anyOf"][0]["enum"] for field in ("epsilon", "rule")] == [
        [8.0, 4.0], ["weighted_mean", "coordinate_median"]]
    assert "Costs each record at most epsilon 8 or 4 at delta 1e-05 in a run of 3 rounds" in terms["epsilon"]["description"]
    assert "8 if nothing is said" in terms["epsilon"]["description"]
    assert "weighted_mean if nothing is said" in terms["rule"]["description"]
    asked = {"request": {"run": "spring", "terms": {"epsilon": 4.0, "rule": "coordinate_median"}}}
    assert validate(asked, schema) == []
    for wrong in ({"epsilon": 2.0}, {"rule": "krum"}):
        assert validate({"request": {"run": "spring", "terms": wrong}}, schema) != []
    only = agreed.model_copy(update={"choices": Choices(epsilon=(4.0,))})
    assert [*boxes(form(federated_training, only))["terms"]] == ["epsilon"]


def in_order(fields: dict[str, Any]) -> list[str]:
    """By `position`: the server's database does not keep the order of a schema's fields."""
    assert sorted(field["position"] for field in fields.values()) == list(range(len(fields)))
    return sorted(fields, key=lambda name: fields[name]["position"])


def test_fields_that_belong_together_stand_in_one_box(made: SmallFederation):
    agreed = made.coordinator.federation.model_copy(update={"choices": ALL})
    assert {box: in_order(fields) for box, fields in boxes(form(federated_training, agreed)).items()} == {
        "": ["run", "rounds", "patience", "rows", "terms", "asked", "shown"], "rows": ["partition", "after"],
        "terms": ["epsilon", "rule"], "asked": ["sites", "quorum", "deadline_s"],
        "shown": ["one_run_per_site", "one_run_per_partition"]}


@pytest.mark.parametrize("name", FLOWS)
def test_whatever_is_asked_for_comes_back_from_its_boxes(made: SmallFederation, name: str):
    flow, request = FLOWS[name]
    says = {"run": "spring", "quorum": 2, "deadline_s": 9, "sites": ["north", "east"], "partition": "2026-w48", "rounds": 3,
            "after": "winter", "one_run_per_site": True, "one_run_per_partition": True, "round": 4, "asker": "ann",
            "patience": 3, "epsilon": 4.0, "rule": "coordinate_median", "labels": "north", "features": "south",
            "purpose": "credit-risk", "label_epsilon": 1.5,
            "statistics": [{"kind": "histogram", "column": "x1", "edges": [0.0, 1.0], "noise_std": 5.0}]}
    asked = {field: value for field, value in says.items() if field in request.model_fields}
    if name == "federated-measurement":
        del asked["partition"]          # there it is more than a name
    agreed = made.coordinator.federation.model_copy(update={"choices": ALL})
    assert validate({"request": grouped(asked)}, form(flow, agreed)) == []
    parsed = _request(request, {"request": grouped(asked)})
    assert parsed == request.model_validate_json(json.dumps(asked))
    assert parsed.model_fields_set == set(asked)


@pytest.mark.parametrize("wrong", [{"asked": "x"}, {"asked": None}, {"asked": {"command": "x"}}, {"rows": []}, 3, None,
                                   [["run", 1]]])
def test_what_no_form_makes_is_a_sentence(wrong: Any):
    said = {"run": "spring", **wrong} if isinstance(wrong, dict) else wrong
    with pytest.raises(ContractError, match="nothing was run"):
        _request(TrainingRequest, {"request": said})


def test_names_tell_deployments_apart_and_those_that_people_need_come_first(made: SmallFederation):
    sites = [name.format(site=site) for site in ("1st", "aarhus", "north") for name in DEPLOYMENTS.values()]
    ours = [name_of(flow, "small") for flow in FLOWS]
    assert sorted(ours) == ours
    assert len({*sites, *ours}) == len(sites) + len(ours)
    assert sorted([*sites[2:], *ours])[:len(ours)] == ours


def test_members_of_an_exchange_are_picked_by_name_and_its_bounds_are_said(made: SmallFederation):
    """A name that nobody has was refused only when the run had begun."""
    schema = form(federated_join, made.coordinator.federation)
    fields = boxes(schema)[""]
    assert fields["labels"]["enum"] == fields["features"]["enum"] == ["north", "east", "south"]
    asked = {"run": "spring", "labels": "north", "features": "south", "purpose": "credit-risk"}
    assert validate({"request": asked}, schema) == []
    assert validate({"request": {**asked, "features": "nowhere"}}, schema) != []
    assert "From 0.01 to 20; 2 if nothing" in fields["label_epsilon"]["description"]
    assert "From 2 to 256; 64 if nothing" in fields["levels"]["description"]
