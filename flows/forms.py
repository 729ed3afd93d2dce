"""The forms that the Prefect UI shows: what they mean in this federation, with its bounds, defaults and prices in words."""

from __future__ import annotations

import copy
from typing import Any

from prefect import Flow
from prefect.utilities.callables import parameter_schema

from fedround.agreement import Federation
from fedround.privacy.spec import NoPrivacy

_PURPOSES = {
    "federated-training": "Train federation '{name}': rounds, until the run has as many as you ask for.",
    "federated-round": "Train federation '{name}' for one more round.",
    "federated-measurement": "Count something at the sites of federation '{name}'. Nothing is trained.",
    "federated-drift": "Count what federation '{name}' watches, and say what has drifted. Nothing is trained.",
    "federated-promotion": "Put a committed model of federation '{name}' into production; a person says yes."}


_TOGETHER = ("run", "rounds", "partition", "after", "sites", "quorum", "deadline_s", "one_run_per_site",
             "one_run_per_partition")
"""How the form shows them: what is trained, on which rows, from which model; who is asked, and how; how Prefect shows it. The
server does not keep the order of a schema's fields, so the form says it."""


def purpose(flow: Flow[Any, Any], federation: Federation) -> str:
    """What a deployment is for, in a person's words, and what it costs."""
    said = _PURPOSES[flow.name].format(name=federation.name)
    price = _price(federation) if flow.name in ("federated-training", "federated-round") else ""
    return "\n\n".join(filter(None, (said, price, flow.description)))


def form(flow: Flow[Any, Any], federation: Federation) -> dict[str, Any]:
    """The JSON schema of the flow's request, with what holds in this federation."""
    schema = copy.deepcopy(parameter_schema(flow).model_dump())
    for definition in schema.get("definitions", {}).values():
        for field in definition.get("properties", {}).keys() & set(_TOGETHER):
            definition["properties"][field]["position"] = _TOGETHER.index(field)
        for field, says in _says(federation).items():
            if (found := definition.get("properties", {}).get(field)) is not None:
                if field == "sites" and not (federation.choices and federation.choices.sites):
                    del definition["properties"][field]
                    continue
                if field == "sites":        # names to tick, not texts to type
                    next(kind for kind in found["anyOf"] if kind.get("type") == "array")["items"] = {
                        "type": "string", "enum": [site.name for site in federation.sites]}
                found["description"] = f"{found.get('description', '').rstrip('.')}. {says}"
    return schema


def _says(federation: Federation) -> dict[str, str]:
    members = len(federation.sites)
    return {"run": "Lower-case letters, digits and inner hyphens, at most 40, for example 'spring'.",
            "quorum": f"The federation file says {federation.quorum}; from 1 to {members}, the number of sites.",
            "deadline_s": f"The federation file says {federation.deadline_s}; from 1 to 604800, a week.",
            "sites": f"At least {federation.quorum}, unless you ask with a smaller quorum.",
            "rounds": f"From 1 to 10000; 10 if nothing is said. {_price(federation)}"}


def _price(federation: Federation) -> str:
    privacy = federation.privacy
    if isinstance(privacy, NoPrivacy):
        return "Costs no epsilon: this federation trains without differential privacy."
    return (f"Costs each {privacy.unit} at most epsilon {privacy.epsilon:g} at delta {privacy.delta_dp:g} in a run of "
            f"{privacy.rounds} rounds, which is the most that a run may have.")
