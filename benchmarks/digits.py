"""A small federation that trains fast: scikit-learn's digits, a multilayer perceptron 64-32-10, many runs in lockstep.

Legend: R runs, S seeds, N sites, E examples of a batch, D = 2,410 parameters. Runs that share a seed share shards, initial
model, batches and noise, so that a difference between two runs is a difference between their rules or attacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

INPUTS, HIDDEN, CLASSES = 64, 32, 10
COORDINATES = INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES
ROOT_EXAMPLES = 60          # kept by the coordinator; only FLTrust looks at them
FEWEST_EXAMPLES = 10        # shards are drawn again until every site has as many


@dataclass(frozen=True, eq=False)
class Digits:
    """Shards of the training images for every seed, the coordinator's root set, and the test images."""

    images: Numbers                                 # (examples, 64), in [-0.3, 0.7]
    labels: Labels
    shards: tuple[tuple[Labels, ...], ...]          # [seed][site] -> indices into images; the last "site" is the root set
    test_images: Numbers
    test_labels: Labels

    @property
    def sites(self) -> int:
        """How many sites there are, the root set not among them."""
        return len(self.shards[0]) - 1


def load(seeds: tuple[int, ...], sites: int = 12, concentration: float = 0.5) -> Digits:
    """Digits dealt to the sites by a Dirichlet distribution over sites for each class: small is uneven, 0.5 is usual."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    split = train_test_split((images / 16 - 0.3).astype(np.float32), labels.astype(np.int64), test_size=0.25,
                             random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = split
    root = np.arange(ROOT_EXAMPLES)
    shards = tuple((*_shards(train_labels, sites, concentration, np.random.default_rng(seed)), root) for seed in seeds)
    return Digits(train_images, train_labels, shards, test_images, test_labels)


def _shards(labels: Labels, sites: int, concentration: float, generator: np.random.Generator) -> list[Labels]:
    while True:
        parts: list[list[Labels]] = [[] for _ in range(sites)]
        for label in range(CLASSES):
            indices = generator.permutation(ROOT_EXAMPLES + np.flatnonzero(labels[ROOT_EXAMPLES:] == label))
            shares = generator.dirichlet([concentration] * sites)
            cuts = (np.cumsum(shares)[:-1] * len(indices)).astype(int)
            for part, piece in zip(parts, np.split(indices, cuts), strict=True):
                part.append(piece)
        shards = [np.concatenate(part) for part in parts]
        if min(map(len, shards)) >= FEWEST_EXAMPLES:
            return shards


def initial_models(seeds: tuple[int, ...]) -> Numbers:
    """(S, D)."""
    models = np.zeros((len(seeds), COORDINATES), np.float32)
    for model_D, seed in zip(models, seeds, strict=True):
        generator = np.random.default_rng(seed)
        hidden, _, output, _ = layers(model_D)
        hidden[:] = 0.12 * generator.standard_normal(hidden.shape)
        output[:] = 0.18 * generator.standard_normal(output.shape)
    return models


def local_updates(models_RSD: Numbers, digits: Digits, liars_flip_R: npt.NDArray[np.bool_], liars: int, *, steps: int,
                  batch: int, learning_rate: float, generators: list[np.random.Generator]) -> Numbers:
    """What every site of every run learns in a round: model after `steps` steps of SGD minus model before, (R, S, N+1, D).

    In the runs that `liars_flip_R` marks, the first `liars` sites train on labels 9 - y. The last row is the root set's.
    """
    rows = digits.sites + 1
    start = np.repeat(models_RSD[:, :, None], rows, axis=2)
    model = start.copy()
    for _ in range(steps):
        chosen_SNE = np.array([[generator.choice(shard, batch) for shard in shards]
                               for shards, generator in zip(digits.shards, generators, strict=True)])
        labels = np.repeat(digits.labels[chosen_SNE][None], len(models_RSD), axis=0)
        labels[liars_flip_R, :, :liars] = CLASSES - 1 - labels[liars_flip_R, :, :liars]
        model -= learning_rate * gradient(model, digits.images[chosen_SNE], labels)
    return model - start


def gradient(models: Numbers, images: Numbers, labels: Labels) -> Numbers:
    """Of the mean cross-entropy. models (..., D), images (..., E, 64), labels (..., E); leading axes broadcast."""
    hidden_weights, hidden_bias, output_weights, output_bias = layers(models)
    hidden = np.maximum(images @ hidden_weights + hidden_bias[..., None, :], 0)
    logits = hidden @ output_weights + output_bias[..., None, :]
    slope = np.exp(logits - logits.max(axis=-1, keepdims=True))
    slope /= slope.sum(axis=-1, keepdims=True)
    slope -= labels[..., None] == np.arange(CLASSES)
    slope /= images.shape[-2]
    slope_hidden = slope @ output_weights.swapaxes(-1, -2)
    slope_hidden *= hidden > 0
    result = np.empty_like(models)
    d_hidden_weights, d_hidden_bias, d_output_weights, d_output_bias = layers(result)
    d_hidden_weights[:] = images.swapaxes(-1, -2) @ slope_hidden
    d_hidden_bias[:] = slope_hidden.sum(axis=-2)
    d_output_weights[:] = hidden.swapaxes(-1, -2) @ slope
    d_output_bias[:] = slope.sum(axis=-2)
    return result


def accuracy(models_RSD: Numbers, digits: Digits) -> npt.NDArray[np.float64]:
    """The share of test images that each model names rightly, (R, S)."""
    hidden_weights, hidden_bias, output_weights, output_bias = layers(models_RSD)
    hidden = np.maximum(digits.test_images @ hidden_weights + hidden_bias[..., None, :], 0)
    logits = hidden @ output_weights + output_bias[..., None, :]
    right: npt.NDArray[np.float64] = (logits.argmax(axis=-1) == digits.test_labels).mean(axis=-1)
    return right


def layers(models: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Views of (..., D): hidden weights (64, 32) and bias, output weights (32, 10) and bias."""
    first, second, third = np.cumsum([INPUTS * HIDDEN, HIDDEN, HIDDEN * CLASSES])
    lead = models.shape[:-1]
    return (models[..., :first].reshape(*lead, INPUTS, HIDDEN), models[..., first:second],
            models[..., second:third].reshape(*lead, HIDDEN, CLASSES), models[..., third:])
