"""Years to death, of which some are only known in part: a recipe that learns hazards."""
