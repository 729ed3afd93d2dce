"""Whole campaigns in one process, for choosing settings: the same plan values, recipe, rule, privacy and server optimizer as
a live federation, computed by the same functions. There is no Prefect, no key and no store, and also no protection.
"""
