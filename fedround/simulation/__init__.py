"""Whole campaigns in one process, for choosing settings: the same plan values, recipe, rule, privacy and server optimizer as
a live federation, and the same functions where these are computed. No Prefect, no keys, no store; and no protection.
"""
