"""Twelve banks, each with one segment of a car-loan market (synthetic data). Start with README.md."""
