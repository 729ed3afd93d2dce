"""Federations that run out of the box."""
