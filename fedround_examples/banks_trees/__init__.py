"""The same twelve banks, with boosted trees instead of a neural network. Start with README.md."""
