"""Where steps are computed: the seam, on what every machine has. `python -m benchmarks.device` compares a GPU with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedround.codec import flatten
from fedround.errors import SetupError
from fedround.learning import device
from fedround.learning.batch import Batch
from fedround.learning.device import OnDevice, chosen, described, working_on
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import initial_tensors
from fedround.learning.spec import LocalTraining
from fedround.learning.train import train
from fedround.learning.trial import try_out
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpSgd
from infra.settings import SiteSettings


class Card:
    """A machine with accelerators."""

    def __init__(self, monkeypatch, count: int):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: f"Card {place.index}")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("", (), {"total_memory": 80 * 2**30}))


def test_auto_takes_an_accelerator_if_there_is_one(monkeypatch):
    Card(monkeypatch, 0)
    assert chosen("auto") == chosen("cpu") == torch.device("cpu")
    Card(monkeypatch, 2)
    assert [str(chosen(name)) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda:0", "cuda:0", "cuda:1", "cpu"]
    assert described("cuda:1") == "steps are computed on cuda:1: Card 1, 80 GiB; noise is drawn on the processor"


@pytest.mark.parametrize(("count", "name", "says"), [(0, "cuda", "has none that torch"), (2, "cuda:2", "has 2, counted")])
def test_a_device_that_is_not_there_is_a_sentence_and_comes_before_any_work(monkeypatch, recipe, examples, count, name, says):
    Card(monkeypatch, count)
    with pytest.raises(SetupError, match=says):
        chosen(name)
    with pytest.raises(SetupError, match='device = "auto"'):
        try_out(recipe, examples.form, device=name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "meta", "CPU", ""])
def test_another_word_is_no_device(name):
    with pytest.raises(ValueError, match="device"):
        SiteSettings(name="a", federation="f", coordinator="0" * 64, api_url="x", device=name,
                     store={"kind": "directory", "path": "x"}, data={"dataset": "d", "train": "t", "validation": "v"})


def test_weights_follow_those_in_the_processors_memory_and_are_these_if_they_are_there():
    here = {"w": np.zeros(3, np.float32)}
    same = OnDevice(here, torch.device("cpu")).parameters["w"]
    here["w"] += 1
    assert same.tolist() == [1, 1, 1]
    there = OnDevice(here, torch.device("meta"))
    assert there.parameters["w"].device.type == "meta"
    there.follow()


def test_what_a_model_makes_without_saying_where_is_made_on_the_device_and_generators_come_back():
    before = torch.get_rng_state()
    with working_on(torch.device("meta")):
        assert torch.arange(3).device.type == "meta"
        torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.arange(3).device.type == "cpu"


def test_a_batch_moves_as_a_whole():
    moved = Batch({"x": torch.zeros(2, 3), "mask": torch.ones(2, dtype=torch.bool)}, {"y": torch.zeros(2)}).to(
        torch.device("meta"))
    assert {part.device.type for side in moved for part in side.values()} == {"meta"}
    assert moved.filled(5).inputs["x"].shape == (5, 3)


def test_every_draw_comes_from_the_sites_stream_whatever_the_device(recipe, examples, monkeypatch):
    """A device that is no processor, as far as training knows: the same draws in the same order, and the same change."""
    sgd, found, asked = DpSgd(noise_multiplier=1.0, clip_norm=0.5, sampling_rate=0.5, steps=3), [], []

    class Spy:
        def __init__(self):
            self._stream = stream(bytes(32), b"plan")

        def random(self, size):
            asked[-1].append(("random", size))
            return self._stream.random(size)

        def normal(self, scale, size):
            asked[-1].append(("normal", scale, size))
            return self._stream.normal(scale, size)

        def cells(self, size):
            asked[-1].append(("cells", size))
            return self._stream.cells(size)

    for name in ("cpu", "auto"):
        asked.append([])
        if name == "auto":      # another tensor for every weight, so that they must be copied after each step
            monkeypatch.setattr(device.OnDevice, "__init__", _apart)
        training = LocalTraining(local_steps=3, batch_size=20)
        found.append(flatten(train(recipe, Lesson(initial_tensors(recipe, 0), examples, device=name), training, sgd, Spy(),
                                   UNGUARDED).delta))
    assert asked[0] == asked[1]
    assert len(asked[0]) == 7
    assert np.array_equal(*found)


def _apart(placed, weights, _) -> None:
    placed._here = {name: torch.from_numpy(array) for name, array in weights.items()}
    placed.parameters = {name: part.clone() for name, part in placed._here.items()}
