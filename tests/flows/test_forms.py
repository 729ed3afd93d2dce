"""What a person reads in the Prefect UI's form: bounds, defaults and the price, as this federation has them."""

from __future__ import annotations

import pytest
from prefect.utilities.schema_tools.validation import validate

from fedround.agreement import Choices
from fedround.privacy.spec import NoPrivacy
from flows.coordinator_worker import FLOWS, _request
from flows.federated_training import federated_training
from flows.forms import form, purpose
from tasks.plan import TrainingRequest
from tests.small_federation import SmallFederation


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_says_what_it_is_for_and_in_which_federation(made: SmallFederation, name: str):
    assert "federation 'small'" in purpose(FLOWS[name][0], made.coordinator.federation)


def test_bounds_defaults_and_the_price_stand_beside_the_fields(made: SmallFederation):
    federation = made.coordinator.federation
    fields = form(federated_training, federation)["definitions"]["TrainingRequest"]["properties"]
    assert f"The federation file says {federation.quorum}; from 1 to 3" in fields["quorum"]["description"]
    assert f"The federation file says {federation.deadline_s}" in fields["deadline_s"]["description"]
    assert "From 1 to 10000" in fields["rounds"]["description"]
    assert f"at most epsilon {federation.privacy.epsilon:g}" in fields["rounds"]["description"]
    free = federation.model_copy(update={"privacy": NoPrivacy()})
    assert "without differential privacy" in purpose(federated_training, free)


def test_sites_are_ticked_by_name_where_all_have_agreed_that_they_may_be_chosen(made: SmallFederation):
    federation = made.coordinator.federation
    assert "sites" not in form(federated_training, federation)["definitions"]["TrainingRequest"]["properties"]
    agreed = federation.model_copy(update={"choices": Choices(sites=True)})
    schema = form(federated_training, agreed)
    sites = schema["definitions"]["TrainingRequest"]["properties"]["sites"]
    assert sites["anyOf"][0]["items"]["enum"] == ["north", "east", "south"]
    assert f"At least {federation.quorum}, unless" in sites["description"]
    asked = {"request": {"run": "spring", "sites": ["south", "north"]}}
    assert validate(asked, schema) == []                                    # as the server does
    assert validate({"request": {**asked["request"], "sites": ["nowhere"]}}, schema) != []
    request = _request(TrainingRequest, asked)
    assert isinstance(request, TrainingRequest)
    assert request.sites == ("south", "north")


def test_fields_that_belong_together_stand_together(made: SmallFederation):
    """By `position`: the server's database does not keep the order of a schema's fields."""
    agreed = made.coordinator.federation.model_copy(update={"choices": Choices(sites=True)})
    fields = form(federated_training, agreed)["definitions"]["TrainingRequest"]["properties"]
    assert sorted(fields, key=lambda name: fields[name]["position"]) == [
        "run", "rounds", "partition", "after", "sites", "quorum", "deadline_s", "one_run_per_site", "one_run_per_partition"]
