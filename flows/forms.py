"""The forms that the Prefect UI shows: what they mean in this federation, with its bounds, defaults and prices in words."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from prefect import Flow
from prefect.utilities.callables import parameter_schema

from fedround.choices import Choices
from fedround.federation import Federation
from fedround.privacy.spec import NoPrivacy

_PURPOSES = {
    "federated-training": "Train federation '{name}': rounds, until the run has as many as you ask for.",
    "federated-round": "Train federation '{name}' for one more round.",
    "federated-measurement": "Count something at the sites of federation '{name}'. Nothing is trained.",
    "federated-drift": "Count what federation '{name}' watches, and say what has drifted. Nothing is trained.",
    "federated-promotion": "Put a committed model of federation '{name}' into production; a person says yes.",
    "federated-join": "Let two members of federation '{name}' learn from columns of the same customers."}


GROUPS = {
    "rows": ("Rows and model", "On whose rows, and from which model a new run begins.", ("partition", "after")),
    "terms": ("Privacy and rule", "Of a new run: what all have agreed that it may have.", ("epsilon", "rule")),
    "asked": ("Who is asked", "Which sites, how many must answer, and until when.", ("sites", "quorum", "deadline_s")),
    "shown": ("Flow runs", "How many there are.", ("one_run_per_site", "one_run_per_partition"))}
"""Fields that belong together stand in a box of their own: its key, its title, what it is about, and they."""


_CHOSEN: dict[str, Callable[[Federation], Iterable[float | str]]] = {
    "sites": lambda federation: (site.name for site in federation.sites),
    "epsilon": lambda federation: federation.offer.epsilons,
    "rule": lambda federation: federation.offer.rules}
"""Fields that are there only where the federation file lets them be chosen, and among what."""

_MEMBERS = ("labels", "features")
"""Fields of a request that name one member each."""


def purpose(flow: Flow[Any, Any], federation: Federation) -> str:
    """What a deployment is for, in a person's words, and what it costs."""
    said = _PURPOSES[flow.name].format(name=federation.name)
    price = _price(federation) if flow.name in ("federated-training", "federated-round") else ""
    return "\n\n".join(filter(None, (said, price, flow.description)))


def form(flow: Flow[Any, Any], federation: Federation) -> dict[str, Any]:
    """The JSON schema of the flow's request, with what holds in this federation."""
    schema, choices = copy.deepcopy(parameter_schema(flow).model_dump()), federation.choices or Choices()
    for definition in schema.get("definitions", {}).values():
        fields = definition.get("properties", {})
        for field, says in _says(federation).items():
            if (found := fields.get(field)) is not None:
                if field in _CHOSEN and not getattr(choices, field):
                    del fields[field]
                    continue
                if field in _CHOSEN:        # names to tick, not texts to type
                    said = next(kind for kind in found["anyOf"] if kind.get("type") != "null")
                    (said["items"] if field == "sites" else said)["enum"] = list(_CHOSEN[field](federation))
                found["description"] = f"{found.get('description', '').rstrip('.')}. {says}"
    request = schema["properties"]["request"]
    request["title"] = "Request"
    name = request["$ref"].rpartition("/")[2]
    for field in schema["definitions"][name]["properties"].keys() & set(_MEMBERS):
        schema["definitions"][name]["properties"][field]["enum"] = [site.name for site in federation.sites]
    _put_together(schema["definitions"], name)
    return schema


def grouped(request: dict[str, Any]) -> dict[str, Any]:
    """A request as the form's parameters have it."""
    groups = {key: {field: request[field] for field in fields if field in request} for key, (_, _, fields) in GROUPS.items()}
    inside = {field for group in groups.values() for field in group}
    return {field: value for field, value in request.items() if field not in inside} | {
        key: group for key, group in groups.items() if group}


def ungrouped(parameters: Any) -> Any:
    """The request from the form's parameters. What is no group stays as it is: its own type says what it may be."""
    if not isinstance(parameters, dict):
        return parameters
    groups = {key: value for key, value in parameters.items() if key in GROUPS and isinstance(value, dict)}
    return {key: value for key, value in parameters.items() if key not in groups} | {
        field: value for group in groups.values() for field, value in group.items()}


def _put_together(definitions: dict[str, Any], name: str) -> None:
    """Put the request's fields into their groups. The server does not keep the order of fields, so each says its place."""
    fields = definitions[name]["properties"]
    for key, (title, about, members) in GROUPS.items():
        inside = {field: fields.pop(field) for field in members if field in fields}
        if inside:
            definitions[key] = {"type": "object", "title": title, "additionalProperties": False, "properties": {
                field: {**found, "position": place} for place, (field, found) in enumerate(inside.items())}}
            fields[key] = {"allOf": [{"$ref": f"#/definitions/{key}"}], "title": title, "description": about}
    for place, field in enumerate(sorted(fields, key=lambda field: (field in GROUPS, field != "run"))):
        fields[field]["position"] = place


def _says(federation: Federation) -> dict[str, str]:
    members, offer = len(federation.sites), federation.offer
    return {"run": "Lower-case letters, digits and inner hyphens, at most 40, for example 'spring'.",
            "quorum": f"The federation file says {federation.quorum}; from 1 to {members}, the number of sites.",
            "deadline_s": f"The federation file says {federation.deadline_s}; from 1 to 604800, a week.",
            "sites": f"At least {federation.quorum}, unless you ask with a smaller quorum.",
            "epsilon": f"{_price(federation)} {''.join(f'{one:g}' for one in offer.epsilons[:1])} if nothing is said.",
            "rule": f"{next(iter(offer.rules))} if nothing is said. An f says how many liars a rule bears.",
            "rounds": f"From 1 to 10000; 10 if nothing is said. {_price(federation)}"}


def _price(federation: Federation) -> str:
    privacy = federation.privacy
    if isinstance(privacy, NoPrivacy):
        return "Costs no epsilon: this federation trains without differential privacy."
    return (f"Costs each {privacy.unit} at most {federation.offer.targets} at delta {privacy.delta_dp:g} in a run of "
            f"{privacy.rounds} rounds, which is the most that a run may have.")
