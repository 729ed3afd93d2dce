"""What a schedule asks for."""

from __future__ import annotations

import pytest

from fedround.choices import Choices
from fedround.errors import ContractError
from fedround.federation import Federation
from fedround.statistics.partitions import Recurring
from flows.federated_round import federated_round
from flows.federated_training import federated_training
from flows.schedule import Schedule
from tests.small_federation import SmallFederation

NEVER = "0 0 29 2 *"


def weekly(federation: Federation, **how: object) -> Federation:
    return federation.model_copy(update={"partitions": Recurring(column="day", **how)})


def test_a_schedule_gives_a_run_one_more_round_and_each_week_a_campaign_of_its_own(made: SmallFederation):
    federation = made.coordinator.federation
    single = Schedule(NEVER, "main").asked(federation)
    assert (single.flow, single.request) == (federated_round.name, {"run": "main"})
    campaign = Schedule(NEVER, "weekly").asked(weekly(federation, by="week"))
    assert campaign.flow == federated_training.name
    assert campaign.request == {"run": "weekly", "rounds": 3, "one_run_per_site": False, "one_run_per_partition": True}


def test_what_a_schedule_chooses_is_asked_for_each_time_and_held_against_the_file_at_once(made: SmallFederation):
    agreed = made.coordinator.federation.model_copy(update={"choices": Choices(epsilon=(4.0,))})
    assert Schedule(NEVER, "main", chosen={"epsilon": 4.0}).asked(agreed).request == {"run": "main", "epsilon": 4.0}
    assert Schedule(NEVER, "weekly", chosen={"epsilon": 4.0}).asked(weekly(agreed, by="week")).request["epsilon"] == 4.0
    with pytest.raises(ContractError, match="a run may have epsilon 8 or 4, not 2"):
        Schedule(NEVER, "main", chosen={"epsilon": 2.0}).asked(agreed)


def test_parts_without_an_order_have_no_schedule_and_a_run_needs_a_name(made: SmallFederation):
    federation = made.coordinator.federation
    with pytest.raises(ContractError, match="no schedule can choose one"):
        Schedule(NEVER, "weekly").asked(weekly(federation, by="value"))
    for agreed in (federation, weekly(federation)):
        with pytest.raises(ContractError, match="not the name of a run"):
            Schedule(NEVER, "Weekly!").asked(agreed)
    with pytest.raises(ContractError, match="--cron is not a schedule"):
        Schedule("at noon", "weekly").asked(federation)
    with pytest.raises(ContractError, match="'Mars/Olympus' is not known"):
        Schedule(NEVER, "weekly", "Mars/Olympus").asked(federation)
