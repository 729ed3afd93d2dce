"""Updates that are smaller on the wire.

Compression works only on data that may leave anyway: noised deltas, and what was left of earlier ones. It is
post-processing, and costs no privacy. How long a file is follows from the plan alone, never from the numbers; so its length
tells nothing, and it is checked before anything is read.
"""
