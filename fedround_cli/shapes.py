"""fedround models shapes: the whole of a model whose trees ask about one feature each, as curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import AsJson, command, out, print_json
from fedround_cli.promotion import Tag, parsed


@command
def shapes(
    tag: Tag,
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    picture: Annotated[Path | None, typer.Option(help="Draw the shapes into this SVG file, with what noise does in 95 of 100 "
                                                      "repeats.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what each feature adds to a row's score, if the recipe's trees have features_per_tree = 1: all of the model.

    No site is asked, and no privacy is spent.
    """
    import numpy as np
    from rich.table import Table

    from fedround.files import write_whole
    from flows.service import enter
    from tasks.reporting.shape_plot import render_shapes
    from tasks.shapes import shapes_of

    found = shapes_of(enter(folder), *parsed(tag))
    if picture is not None:
        write_whole(picture, render_shapes(found).encode(), durable=True)
    if as_json:
        print_json([{"feature": one.name, "edges": one.shape.edge_P.tolist(), "values": one.shape.value_QK.tolist(),
                     "std": None if one.shape.std_QK is None else one.shape.std_QK.tolist()} for one in found])
        return
    table = Table("feature", "lowest", "highest", "moves by", "± noise", title="shapes")
    for one in sorted(found, key=lambda one: -float(np.ptp(one.shape.value_QK, axis=0).max())):
        value_QK, std_QK = one.shape.value_QK, one.shape.std_QK
        noise = "" if std_QK is None else f"{1.96 * float(np.median(std_QK)):.3f}"
        table.add_row(one.name, f"{value_QK.min():.3f}", f"{value_QK.max():.3f}",
                      f"{float(np.ptp(value_QK, axis=0).max()):.3f}", noise)
    out.print(table)
    drawn = "" if picture is None else f"; the curves are in {picture}"
    out.say("a row's score is the sum of what its features add{}", drawn)
