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
    labels: quality.Labels
    """Of the training rows that count."""


def label_counts(site: Site) -> list[int]:
    """How many training rows that count each label has."""
    train = read_site_rows(site).train
    return [int(count) for count in np.bincount(train.labels_N[train.counts_N], minlength=site.recipe.task.classes)]


def look(site: Site) -> Quality:
    """Look at the site's rows. Raises SetupError or ContractError, as `read_site_rows`."""
    train, classes = read_site_rows(site).train, site.recipe.task.classes
    features_NF, label_N = train.features_NF[train.counts_N], train.labels_N[train.counts_N]
    return Quality(tuple(quality.outliers(part for path in site.row_files for part in row_files(path).parts())),
                   quality.labels(features_NF, label_N, classes))
