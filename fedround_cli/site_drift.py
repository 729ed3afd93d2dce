"""fedround site drift: what has changed in this site's own rows."""

from __future__ import annotations

from dataclasses import asdict

from fedround.spoken import how_many
from fedround_cli.folders import SiteFolder
from fedround_cli.output import AsJson, command, out, print_json


@command
def drift(folder: SiteFolder, as_json: AsJson = False) -> None:
    """Compare the present rows with those of the last round that this site trained in, by Evidently's whole report.

    It is for you alone, and nothing is sent or charged. The page holds exact minima and maxima, and the folder accepted/ the
    rows themselves: treat both as you treat your rows.
    """
    from rich.table import Table

    from infra.settings import SiteSettings, load_toml
    from site_workers import accepted
    from validation.row_drift import report

    folder = folder.resolve()
    data = load_toml(SiteSettings, folder / "site.toml").data
    page = folder / "drift" / "report.html"
    page.parent.mkdir(mode=0o700, exist_ok=True)
    found = report(accepted.files(folder), data.files(folder), page)
    if as_json:
        print_json({"page": str(page), "columns": [{**asdict(one), "drifted": one.drifted} for one in found]})
        return
    table = Table("column", "verdict", "method", title="the rows here, beside those of the last round that trained")
    for name in ("score", "threshold"):
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(one.column, "drifted" if one.drifted else "as before", one.method, f"{one.score:.4g}",
                      f"{one.threshold:g}")
    out.print(table)
    out.say("{} of {} drifted. The whole report, for you alone: {}", sum(one.drifted for one in found),
            how_many(len(found), "column"), page)
