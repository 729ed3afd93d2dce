"""Gradient inversion: a picture comes out of a plain update, and none out of a noised one."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.inversion import _compare, invert_update, knowing_nothing, some_pictures


def test_one_picture_is_read_from_its_update_and_not_at_epsilon_ten():
    torch.set_num_threads(1)
    rows = some_pictures(1, seed=0)
    nothing = knowing_nothing(rows).psnr_db
    assert invert_update(rows, None, restarts=1, seed=0).psnr_db > nothing + 10
    assert invert_update(rows, 10.0, restarts=1, seed=0).psnr_db < nothing


def test_the_order_of_the_pictures_does_not_count():
    rows = some_pictures(4, seed=0)
    found = _compare(rows.inputs["x"][[2, 0, 3, 1]].astype(np.float64), rows)
    assert found.mse == 0
    assert np.array_equal(found.pictures, rows.inputs["x"])
