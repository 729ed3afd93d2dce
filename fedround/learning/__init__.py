"""What happens to a model inside a site's walls: recipes, local training, evaluation.

torch is imported inside functions only (but by `lora`, which recipes alone import), and no torch object leaves this package:
numpy in, numpy out.
"""
