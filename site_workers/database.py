"""Rows that come from a database: what its answer to the site's queries was, when a run asked for it.

`train = "train.sql"` in site.toml names a file with one SELECT; keys/database.toml (mode 0600) holds the database's URL, and
may hold a password. What the database answers is kept in the site's folder and never leaves:

    snapshot/train.parquet, validation.parquet
    snapshot/run                        for which run the database was asked

The rounds of a run that follow each other see the same rows. A plan of another run asks anew, so a weekly one sees the new
week.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fedround.errors import SetupError
from fedround.files import make_folders, sync_file, take_place, write_whole
from infra.settings import DatabaseSettings, DataSettings, load_toml, save_toml
from site_workers.site import Site
from validation import query

VARIABLE = "FEDROUND_DATABASE_URL"


def of_run(site: Site, run: str) -> None:
    """Ask the database, if rows come from one and it was not asked for this run. Raises as `query.ask_in_subprocess`."""
    asked = site.folder / "snapshot" / "run"
    if site.settings.data.queries(site.folder) and not (asked.exists() and asked.read_text() == run):
        asked.unlink(missing_ok=True)
        ask(site.folder, site.settings.data, site.policy.limits.seconds)
        write_whole(asked, run.encode(), durable=False)


def ask(folder: Path, data: DataSettings, timeout_s: float) -> None:
    """Ask the database now, if rows come from one; the answers take the place of the last ones together.

    Raises as `query.ask_in_subprocess` does, and SetupError if keys/database.toml cannot be used.
    """
    queries = data.queries(folder)
    if not queries:
        return
    home = folder / "snapshot"
    make_folders(home, mode=0o700)
    with tempfile.TemporaryDirectory(dir=home, prefix=".asked-") as fresh:
        answers = {one: Path(fresh) / into.name for one, into in queries.items()}
        query.ask_in_subprocess(answers, _url(folder), timeout_s)
        for one, into in queries.items():
            sync_file(answers[one])
            take_place(answers[one], into)


def keep_url(folder: Path, data: DataSettings, environment: Mapping[str, str] = os.environ) -> None:
    """Write keys/database.toml of a new site, if rows come from a database. Raises SetupError if nobody names its URL."""
    if not data.queries(folder):
        return
    if not (url := environment.get(VARIABLE, "")):
        raise SetupError(f"rows come from a database: say its URL in the variable {VARIABLE}, as "
                         "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE; it is kept in keys/database.toml")
    save_toml(DatabaseSettings(url=url), folder / "keys" / "database.toml", "Where this site's rows come from. Secret.",
              secret=True)


def _url(folder: Path) -> str:
    path = folder / "keys" / "database.toml"
    if path.exists() and path.stat().st_mode & 0o077:
        raise SetupError(f"{path} can be read by other users: run 'chmod 600 {path}'")
    return load_toml(DatabaseSettings, path).url
