"""fedround site rehearse: a round with the federation's present terms, on made-up rows, that costs nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from fedround_cli.folders import SiteFolder
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from flows.rehearsal import Cost, Rehearsed

_NOISED = {"dp_sgd": "noised for each record in every step (DP-SGD)", "dp_ftrl": "noised for each record by a tree (DP-FTRL)",
           "gaussian_update": "noised for the whole site", "gaussian_counts": "noised counts", "none": "without noise"}


@command
def rehearse(folder: SiteFolder, as_json: AsJson = False) -> None:
    """Do a round on made-up rows, by the terms of today: what is asked, decided, charged and sent, and how long it takes.

    Nothing is charged or sent, and nothing is kept. Of your rows it uses how many there are, and how many features each has.
    Exit code 0 if the site would carry the round out, 1 if not.
    """
    from flows.rehearsal import rehearse as rehearsed
    from site_workers.site import open_site

    found = rehearsed(open_site(folder.resolve()))
    if as_json:
        print_json(_as_json(found))
    else:
        _show(found)
    if not found.carried_out:
        raise typer.Exit(1)


def _as_json(found: Rehearsed) -> dict[str, object]:
    return {"asks": found.plan.asks.kind, "is_member": found.is_member, "carried_out": found.carried_out,
            "decision": found.decision,
            "rows": {"train": found.shape.train, "validation": found.shape.validation, "form": str(found.shape.form)},
            "epsilon": {unit: asdict(cost) for unit, cost in found.costs.items()},
            "mechanisms": [mechanism.model_dump(mode="json") for mechanism in found.mechanisms],
            "sends": [{"kind": event.kind, "size_bytes": event.size_bytes} for event in found.sent],
            "reading_s": round(found.reading_s, 3), "working_s": round(found.working_s, 3)}


def _show(found: Rehearsed) -> None:
    training, counted = found.plan.agreed.training, len(found.plan.asks.statistics)
    part = found.plan.asks.partition
    lines = {
        "asks": f"train {training.in_words}"
                + (", and count how good the model is" if counted else "")
                + ("" if part is None else f"; only rows of {part.name}"),
        "rows": f"{found.shape.train:,} to train on, {found.shape.validation:,} held out, {found.shape.form} each; all "
                "made up",
        "decides": found.decision,
        **{f"charges{'' if unit == 'record' else ' (site)'}": _in_words(cost) for unit, cost in found.costs.items()
           if found.carried_out},
        "sends": ", ".join(f"{event.kind} ({event.size_bytes:,} bytes)" for event in found.sent),
        "noise": ", ".join(dict.fromkeys(_NOISED.get(mechanism.kind, mechanism.kind) for mechanism in found.mechanisms))
                 or "none: nothing of the rows would leave",
        "takes": f"{found.working_s:.1f} s, and {found.reading_s:.1f} s to read the rows once"}
    for name, line in lines.items():
        out.say(f"{name:<14} {{}}", line)
    if not found.is_member:
        out.print("This site is no member yet: the coordinator runs [bold]fedround federation add[/] with its public key")
    out.print("A rehearsal: nothing was charged, sent or kept")


def _in_words(cost: Cost) -> str:
    from fedround.privacy.profile import upward

    before, after, spent = (upward(epsilon, 2) for epsilon in (cost.before, cost.after, cost.spent))
    return (f"epsilon {before} before, {after} after, of {cost.most:g}: {spent} for this round, "
            "and the rest is set aside for the other rounds of its campaign")
