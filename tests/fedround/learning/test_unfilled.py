"""A model whose numbers are all brought along needs none of its own."""

import numpy as np
import torch
from torch import nn

from fedround.learning.recipe import Recipe, unfilled


class Shifted(nn.Module):
    """Layers that torch fills in every way, a buffer, and a parameter that the recipe fills itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(2, 4), nn.MultiheadAttention(4, 2))
        self.register_buffer("places", torch.arange(4.0))
        self.own = nn.Parameter(torch.full((4,), 7.0))
        nn.init.normal_(self.own)


def test_nothing_is_drawn_and_all_that_is_not_a_parameter_is_as_it_was() -> None:
    recipe = Recipe("shifted", "0" * 64, Shifted, lambda _: None)
    before = torch.random.get_rng_state()
    model = unfilled(recipe)
    assert torch.equal(torch.random.get_rng_state(), before)
    whole = Shifted()
    assert [(name, tuple(p.shape)) for name, p in model.named_parameters()] == [
        (name, tuple(p.shape)) for name, p in whole.named_parameters()]
    assert np.array_equal(model.places, whole.places)
    assert model.own.requires_grad
