"""Rows that nobody has: drawn from noised tables of one and two columns, for tests of a schema and a first recipe.

All of it is computed from numbers that were noised and paid for, so it costs nothing, however often it is done.
"""
