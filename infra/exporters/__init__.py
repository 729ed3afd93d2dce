"""What other tools are told of committed rounds, after the fact. Each takes what `base` has, adds what it does not have yet,
and decides nothing: whatever goes wrong here, a round is as it is.
"""
