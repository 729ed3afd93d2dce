"""A model's card: all that a bundle knows, for people. Model hubs read its head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints

from fedround.bundle import FORMS, Input, Manifest
from fedround.learning.examples import Shape
from fedround.learning.examples import in_words as rows_in_words
from fedround.learning.triggers import Trigger
from fedround.privacy.profile import upward
from fedround.privacy.spec import NoPrivacy, Privacy
from fedround.promotion import NOT_MEASURED, ModelEvidence
from fedround.values import Value
from tasks.reporting.groups import render_groups
from tasks.reporting.page import template

if TYPE_CHECKING:
    from tasks.certificate import Certificate

Text = Annotated[str, StringConstraints(min_length=1, max_length=5000)]
NOT_STATED = "not stated"


class Facts(Value):
    """card.toml in the coordinator's folder: what only people know of a model."""

    data: Text = NOT_STATED
    """Whose records these are, and how they were collected."""
    licence: Annotated[str, Field(max_length=200)] = NOT_STATED
    """Of the data."""
    intended_use: Text = NOT_STATED
    limits: Text = NOT_STATED
    """Uses that are not allowed, and known weaknesses."""


def render_card(manifest: Manifest, evidence: ModelEvidence, certificate: Certificate, facts: Facts) -> str:
    """Markdown. What was not measured says so."""
    from markupsafe import Markup

    head = Markup(_head(manifest, evidence, facts))  # noqa: S704 - lines of JSON, no HTML
    return template("card.md.j2").render(
        head=head, manifest=manifest, inputs=inputs_in_words(manifest.inputs), evidence=evidence,
        certificate=certificate, facts=facts, privacy=in_words(evidence.privacy, evidence.epsilon, certificate.epsilon_alone),
        forms=[(form, name, evidence.of(form)) for form, name in FORMS.items()],
        fairness=NOT_MEASURED if evidence.fairness is None else Markup(render_groups(evidence.fairness)),  # noqa: S704 - foreign words are code
        drift=evidence.drift or NOT_MEASURED, trigger=_trigger_in_words(evidence.trigger), not_measured=NOT_MEASURED)


def inputs_in_words(inputs: Sequence[Input]) -> str:
    """What a model takes of a row."""
    return rows_in_words(tuple(Shape(one.name, one.dtype, one.shape) for one in inputs))


def in_words(privacy: Privacy, epsilon: float | None, alone: float | None = None) -> str:
    """Epsilon, with everything that is needed to read it. alone: if nobody else's noise counts, where noise is shared."""
    if isinstance(privacy, NoPrivacy):
        return "none: updates left the sites without noise."
    unit = {"record": "one record of one site, or nothing in its place",
            "person": "all rows of one person at one site, or nothing in their places",
            "site": "all that a site contributes, or nothing"}[privacy.unit]
    spent = "not known" if epsilon is None else upward(epsilon, 3)
    shared = "" if alone is None else f", and {upward(alone, 3)} if nobody else had added noise"
    return (f"unit: {unit}. Agreed: epsilon at most {privacy.epsilon:g} at delta {privacy.delta_dp:g} over {privacy.rounds} "
            f"rounds; the most that a site had spent on this run: {spent}{shared}. PLD accountant, rounded up.")


def _trigger_in_words(found: Trigger | None) -> str:
    if found is None:
        return NOT_MEASURED
    numbers = ", ".join(map(str, found.features)) or "none"
    return (f"The strongest mark of {len(found.features)} features that was found on {found.rows} public rows (features "
            f"{numbers}, counted from 0) turns {found.share:.0%} of those that had another label to label {found.label}. "
            "Marks of more features were not looked for.")


def _head(manifest: Manifest, evidence: ModelEvidence, facts: Facts) -> str:
    """YAML with every value as JSON, which is valid YAML."""
    public = evidence.float32.public
    results: list[dict[str, Any]] = [] if public is None else [{
        "task": {"type": manifest.task.hub}, "dataset": {"name": "public test set", "type": "tabular"},
        "metrics": [{"type": name, "value": value} for name, value in public.known().items()]}]
    known: dict[str, Any] = {
        "library_name": "onnx", "pipeline_tag": manifest.task.hub, "tags": ["federated-learning", "fedround"],
        "license": "other", "license_name": facts.licence,
        "model-index": [{"name": f"{manifest.federation}-{manifest.run}-{manifest.round}", "results": results}]}
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in known.items())
