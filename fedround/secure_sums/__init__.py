"""Sums of which nobody sees the parts: masks that cancel, and shares of keys for what is missing (Bonawitz et al. 2017,
doi 10.1145/3133956.3133982). Arithmetic and keys alone: nothing here reads, writes or waits. The proof: docs/secure-sums.md.
"""
