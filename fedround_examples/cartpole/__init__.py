"""Six workshops learn to keep a pole upright, each episode under differential privacy. Start with README.md."""
