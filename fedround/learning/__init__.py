"""What happens to a model inside a site's walls: recipes, local training, evaluation.

torch is imported inside functions only, and no torch object leaves this package: numpy in, numpy out.
"""
