"""One step of gradient descent on the rows of all sites, as if they lay in one place: each site sends a sum over its rows,
and nobody sees any sum but that of all of them (`fedround.secure_sums`).
"""
