"""Drift over a federation: noised histograms of agreed columns, and whether they differ by more than noise and chance.

::

    spec       what a federation watches, how often, with which noise, and how often a false alarm may be
    law        distances of noised tables, and what noise and chance alone would make of them
    judge      measurements in, a `Drift` out: which column, at which sites, since when

Pure: numbers in, numbers out. The sites' noised counts are all that it ever sees, so it costs no privacy.
"""
