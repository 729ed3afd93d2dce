"""Measurements, side by side with peers where there is one; ratios of one run."""
