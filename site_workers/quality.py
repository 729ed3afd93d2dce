"""How good this site's rows are: far-out values and doubtful labels, for the operator of the site and for nobody else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from site_workers.rows import read_site_rows
from site_workers.site import Site
from validation import quality
from validation.row_parts import row_files


@dataclass(frozen=True)
class Quality:
    """Exact numbers about the rows. They stay here."""

    columns: tuple[quality.Outliers, ...]
    """Of both files, as they are; the worst column first."""
    labels: quality.Labels | None
    """Of the training rows that count; None if what is learnt is no label."""


def label_counts(site: Site) -> list[int] | None:
    """How many training rows that count each label has; None if what is learnt is no label."""
    train, task = read_site_rows(site).train, site.recipe.task
    if task.labels is None:
        return None
    return [int(count) for count in np.bincount(task.groups(train.at(train.counts_N).targets)[1], minlength=task.labels)]


def look(site: Site) -> Quality:
    """Look at the site's rows. Raises SetupError or ContractError, as `read_site_rows`."""
    train, task = read_site_rows(site).train, site.recipe.task
    rows = train.at(train.counts_N)
    return Quality(tuple(quality.outliers(part for path in site.row_files for part in row_files(path).parts())),
                   None if task.labels is None else quality.labels(rows.table_NF, task.groups(rows.targets)[1], task.labels))
