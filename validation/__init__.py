"""Judgements that touch nothing: on rows, and on what a site sent."""
