"""A model as ONNX: from a row's features to its chances, without torch, for any program that can run it.

Two classes: the chance of label 1, (N,). More: the chance of every label, (N, classes).
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.parts import furnish
from fedround.learning.recipe import Recipe, unfilled

if TYPE_CHECKING:
    from torch import nn

INPUT, OUTPUT = "features", "chances"
ROWS = 8192
"""Scored at once."""

Float32 = npt.NDArray[np.float32]


def to_onnx(recipe: Recipe, tensors: Tensors, features: int) -> bytes:
    """The model with these numbers. Deterministic, and without a trace of where it was made.

    features: how many a row has. Raises ContractError for a model that cannot be expressed in ONNX.
    """
    import torch

    model = _chances(recipe, tensors)
    try:
        with _silence():
            program: Any = torch.onnx.export(
                model, (torch.zeros(2, features),), dynamo=True, input_names=[INPUT], output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("rows")},), verbose=False)
    except Exception as error:      # of torch's exporter: it has many kinds
        raise ContractError(f"recipe '{recipe.name}': its model cannot be written as ONNX ({type(error).__name__}): use "
                            "layers that torch.onnx.export knows") from None
    return _without_traces(program.model_proto)


def to_int8(onnx: bytes) -> bytes:
    """The same model with weights of 8 bits: smaller, and off by as much as `fedround models bundle` says."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="fedround-int8-") as folder, _silence():
        whole, small = Path(folder) / "whole.onnx", Path(folder) / "small.onnx"
        whole.write_bytes(onnx)
        quantize_dynamic(whole, small, weight_type=QuantType.QInt8)
        return small.read_bytes()


class Served:
    """An exported model in ONNX Runtime, on one thread."""

    def __init__(self, onnx: bytes):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def chances(self, features_NF: Float32) -> Float32:
        """Of every row, ``ROWS`` at a time."""
        parts = [self._session.run([OUTPUT], {INPUT: features_NF[start:start + ROWS]})[0]
                 for start in range(0, max(len(features_NF), 1), ROWS)]
        return np.concatenate(parts)


def chances(recipe: Recipe, tensors: Tensors, features_NF: Float32) -> Float32:
    """The output of torch for the same rows."""
    import torch

    model = _chances(recipe, tensors)
    with torch.no_grad():
        return np.concatenate([model(torch.from_numpy(features_NF[start:start + ROWS])).numpy()
                               for start in range(0, max(len(features_NF), 1), ROWS)])


def _chances(recipe: Recipe, tensors: Tensors) -> nn.Module:
    import torch

    inner = unfilled(recipe).eval()
    furnish(inner, tensors)
    task = recipe.task

    class Chances(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, features_BF: torch.Tensor) -> torch.Tensor:
            raw = self.inner(features_BF)
            return torch.sigmoid(raw.reshape(-1)) if task.classes == 2 else torch.softmax(raw, dim=1)

    return Chances().eval()


@contextmanager
def _silence() -> Iterator[None]:
    """Suppresses torch's advice for authors of exporters; users of our command line can do nothing with it."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _without_traces(model: Any) -> bytes:
    """Torch notes in every node which line of which file made it, by its path on this machine."""
    graph = model.graph
    del model.metadata_props[:]
    model.ClearField("doc_string")
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("doc_string")
        del part.metadata_props[:]
    written: bytes = model.SerializeToString(deterministic=True)
    return written
