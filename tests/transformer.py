"""A transformer that fits into a test: two layers, thirty-two dimensions, sentences of eight words."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fedround.learning.examples import Examples
from fedround.learning.lora import adapt

WORDS, LENGTH, WIDTH = 20, 8, 32
ADAPTED = ["*.query", "*.value"]


class Block(nn.Module):
    """Attention with two heads, and a layer of its own for every word."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        h = self.first(x)
        q, k, v = (part(h).unflatten(-1, (2, WIDTH // 2)).transpose(1, 2) for part in (self.query, self.key, self.value))
        weights = torch.softmax(q @ k.transpose(-1, -2) / (WIDTH // 2) ** 0.5, dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return x + self.outer(torch.relu(self.inner(self.second(x))))


class Transformer(nn.Module):
    """One logit for each sentence; a row is its words' numbers."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, rows_BF):
        x = self.words(rows_BF.long()) + self.places(torch.arange(LENGTH))
        return self.head(self.blocks(x).mean(dim=1))


def build_adapted() -> nn.Module:
    """With adapters of rank two on queries and values, and a head that trains."""
    return adapt(Transformer(), ADAPTED, rank=2, also=["head.*"])


def sentences(count: int, seed: int) -> Examples:
    """Is the word 7 more frequent than the word 3?"""
    generator = np.random.default_rng(seed)
    words = generator.choice([3, 7, 11, 13], size=(count, LENGTH))
    more = (words == 7).sum(axis=1) - (words == 3).sum(axis=1)
    return Examples(words.astype(np.float32), (more > 0).astype(np.int64))
