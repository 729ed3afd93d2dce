"""Clients that were written for other products, as a learner: they train, and everything else is done outside of them."""
