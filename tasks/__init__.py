"""The coordinator's steps, as plain functions."""
