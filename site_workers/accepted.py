"""The rows of the last batch on which this site trained, so that its operator can see what has changed since.

::

    accepted/train.parquet, validation.parquet      as the row files were, with their endings; mode 0600
    accepted/train/…                                 of a folder or a pattern: its parts, by their names
    accepted/digest                                  of both

None of it is sent, and nothing that is sent depends on it. Files above `LARGEST_BYTES` are not kept.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from fedround.errors import FedroundError, SetupError
from fedround.files import make_folders, write_whole
from site_workers.site import Site
from validation import row_files

log = logging.getLogger("fedround.site")

LARGEST_BYTES = 1 << 30
SIDES = ("train", "validation")


def keep(site: Site, digest: bytes) -> None:
    """Keep the present rows, if they are others than those that are kept. It stops no round.

    digest: of the rows that an answer was about.
    """
    home = site.folder / "accepted"
    mark = home / "digest"
    try:
        if mark.exists() and mark.read_text() == digest.hex():
            return
        if (size := sum(map(row_files.size_of, site.row_files))) > LARGEST_BYTES:
            log.warning("the rows have %d bytes: 'fedround site drift' will have nothing to compare with", size)
            return
        make_folders(home, mode=0o700)
        for side, path in zip(SIDES, site.row_files, strict=True):
            parts = row_files.parts_of(path)
            new = home / f".{side}{'' if parts[0].name else row_files.ending_of(path)}"
            _remove(new)
            for part in parts:
                make_folders((new / part.name).parent, mode=0o700)
                shutil.copyfile(part.path, new / part.name)
                (new / part.name).chmod(0o600)
            for old in home.glob(f"{side}*"):
                _remove(old)
            new.rename(home / new.name[1:])
        write_whole(mark, digest.hex().encode(), durable=False, mode=0o600)
    except (OSError, FedroundError) as error:
        log.warning("the rows of this round could not be kept for 'fedround site drift': %s",
                    error.strerror if isinstance(error, OSError) else error)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def files(folder: Path) -> tuple[Path, Path]:
    """What was kept. Raises SetupError if there is nothing."""
    found = [next(iter(sorted((folder / "accepted").glob(f"{side}*"))), None) for side in SIDES]
    if found[0] is None or found[1] is None:
        raise SetupError(f"{folder / 'accepted'} has no earlier rows: they are kept when the site has trained on them")
    return found[0], found[1]
