"""A model as ONNX: from a row's features to what the model is used for (`Kind.answers`), without torch, for any program that
can run it.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.learning.batch import called, tensors_of
from fedround.learning.examples import INPUT, Arrays, Shape, rows_in
from fedround.learning.parts import furnish
from fedround.learning.recipe import Recipe, unfilled

if TYPE_CHECKING:
    import torch
    from torch import nn

FEATURES, OUTPUT = "features", "answers"
"""The names of the one input that has none of its own, and of the output."""

ROWS = 8192
"""Scored at once."""

Float32 = npt.NDArray[np.float32]


def to_onnx(recipe: Recipe, tensors: Tensors, inputs: Sequence[Shape]) -> bytes:
    """The model with these numbers. Deterministic, and without a trace of where it was made.

    inputs: what a row looks like. Raises ContractError for a model that cannot be expressed in ONNX.
    """
    import torch

    model, rows = _answering(recipe, tensors, [shape.name for shape in inputs]), {0: torch.export.Dim("rows")}
    sample = tuple(tensors_of({one.name: np.zeros((2, *one.shape), one.dtype) for one in inputs}).values())
    try:
        with _silence():
            program: Any = torch.onnx.export(
                model, sample, dynamo=True, input_names=_names(inputs), output_names=[OUTPUT],
                dynamic_shapes=(tuple(rows for _ in sample),), verbose=False)
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

    def answers(self, inputs: Arrays) -> Float32:
        """Of every row, ``ROWS`` at a time: (N,) or (N, columns)."""
        named = {_onnx_name(name): array for name, array in inputs.items()}
        parts = [self._session.run([OUTPUT], {name: array[start:start + ROWS] for name, array in named.items()})[0]
                 for start in range(0, max(rows_in(inputs), 1), ROWS)]
        return np.concatenate(parts)


def answers(recipe: Recipe, tensors: Tensors, inputs: Arrays) -> Float32:
    """The output of torch for the same rows."""
    import torch

    model, parts = _answering(recipe, tensors, list(inputs)), list(tensors_of(inputs).values())
    with torch.no_grad():
        return np.concatenate([model(*(part[start:start + ROWS] for part in parts)).numpy()
                               for start in range(0, max(rows_in(inputs), 1), ROWS)])


def _answering(recipe: Recipe, tensors: Tensors, names: Sequence[str]) -> nn.Module:
    """The model that takes its inputs in the order of their names."""
    import torch

    inner = unfilled(recipe).eval()
    furnish(inner, tensors)
    task = recipe.task

    class Answering(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *arrays: torch.Tensor) -> torch.Tensor:
            raw = called(self.inner, dict(zip(names, arrays, strict=True)))
            return task.answers(task.outputs(raw, arrays[0].shape[0]))

    return Answering().eval()


def _names(inputs: Sequence[Shape]) -> list[str]:
    return [_onnx_name(shape.name) for shape in inputs]


def _onnx_name(name: str) -> str:
    return FEATURES if name == INPUT else name


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
