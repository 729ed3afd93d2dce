"""What other tools are told of committed rounds, after the fact.

Each exporter takes what `base` has, adds what its tool does not have yet, and decides nothing. An error here changes no
round.
"""
