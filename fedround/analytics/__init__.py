"""What releases say: counts, means, quantiles, tables, regressions and survival curves, each with an interval.

All of it is computed from numbers that were noised and paid for, so it costs nothing, however often it is done.
"""
