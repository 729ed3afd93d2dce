"""Twelve banks learn who will default on a credit card, and share no client. Start with README.md."""
