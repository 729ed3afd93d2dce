"""The process in which a foreign client trains. Another interpreter runs this file, so it imports nothing of this product.

From standard input come one line of JSON and a safetensors file of the base model; to the file descriptor that it names goes
a safetensors file of the trained one, and nothing else. What the client prints goes where standard output does.

Nothing here is trusted: this process is the client's own. What comes back is checked by `host`.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import struct
import sys
import types

import numpy as np


def main() -> None:
    """Read the task, let the client train, write the answer."""
    asked = json.loads(sys.stdin.buffer.readline())
    base = _read(sys.stdin.buffer.read(), asked["order"])
    sys.path.insert(0, asked["folder"])
    os.chdir(asked["scratch"])
    trained = _KINDS[asked["kind"]](asked, base)
    with os.fdopen(asked["answer"], "wb") as answer:
        answer.write(_written(trained))


# -- each product's interface ------------------------------------------------------------------------------------------


def _function(asked, base):
    trained = _named(asked["client"])(base, dict(asked["config"]))
    return {name: np.asarray(trained[name]) for name in base}


def _flower(asked, base):
    client = _named(asked["client"])
    from flwr.client import NumPyClient

    if isinstance(client, type) and issubclass(client, NumPyClient):
        client = client()
    if isinstance(client, NumPyClient):
        fitted, _, _ = client.fit(list(base.values()), dict(asked["config"]))
        return dict(zip(base, map(np.asarray, fitted), strict=True))
    return _client_app(client, asked, base)


def _client_app(app, asked, base):
    """Let a ClientApp train. Three of Flower's private parts are leaned on: who a message is from (`TaskIdentity`), that an
    app of the older style keeps its function as `_call`, and how such an app's numbers lie in a message.
    """
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    context = Context(run_id=1, node_id=1, node_config=dict(asked["node"]), state=RecordDict(),
                      run_config=dict(asked["run_config"]))
    config = {**dict(asked["config"]), "server-round": asked["round"]}
    if app._call is not None:
        return _older_app(app, Message, context, config, base)
    content = RecordDict({"arrays": ArrayRecord({name: Array(array) for name, array in base.items()}),
                          "config": ConfigRecord(config)})
    reply = app(Message(content=content, dst_node_id=1, message_type="train"), context)
    arrays = next(iter(reply.content.array_records.values()))
    return {name: arrays[name].numpy() for name in base}


def _older_app(app, message, context, config, base):
    """An app that was made from a `client_fn`."""
    from flwr.common import FitIns, ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.compat.common.recorddict_compat import fitins_to_recorddict, recorddict_to_fitres

    asks = fitins_to_recorddict(FitIns(ndarrays_to_parameters(list(base.values())), config), keep_input=True)
    reply = app(message(content=asks, dst_node_id=1, message_type="train"), context)
    fitted = parameters_to_ndarrays(recorddict_to_fitres(reply.content, keep_input=True).parameters)
    return dict(zip(base, fitted, strict=True))


def _nvflare(asked, base):
    sent = _as_nvflare(asked, base)
    sys.argv = [asked["client"], *asked["arguments"]]
    runpy.run_path(os.path.join(asked["folder"], asked["client"]), run_name="__main__")
    if not sent:
        raise RuntimeError("the script sent no model")
    return {name: _array_of(sent[0][name]) for name in base}


def _as_nvflare(asked, base):
    """Put modules in place that have the client API's names; returns where the model that the script sends will be."""
    sent, client, tracking = [], types.ModuleType("nvflare.client"), types.ModuleType("nvflare.client.tracking")

    class FLModel:
        def __init__(self, params_type=None, params=None, optimizer_params=None, metrics=None, start_round=0,
                     current_round=None, total_rounds=None, meta=None):
            self.params_type, self.params, self.metrics = params_type, params, metrics
            self.start_round, self.current_round, self.total_rounds = start_round, current_round, total_rounds
            self.optimizer_params, self.meta = optimizer_params, dict(meta or {})

    class ParamsType:
        FULL, DIFF = "FULL", "DIFF"

    class Writer:
        def __init__(self, *_, **__):
            pass

        def __getattr__(self, name):
            return lambda *_, **__: None        # numbers that are shown while it trains stay here

    def receive(timeout=None):
        return FLModel(params_type=ParamsType.FULL, params=_as_torch(base), current_round=asked["round"],
                       total_rounds=asked["round"] + 1)

    def send(model, clear_cache=True):
        if model.params is None:
            return
        whole = {name: _array_of(model.params[name]) for name in base}
        if model.params_type == ParamsType.DIFF:
            whole = {name: base[name] + array for name, array in whole.items()}
        sent.append(whole)

    about = {"site_name": asked["site"], "job_id": "fedround", "total_rounds": asked["round"] + 1}
    for name, value in {
            "init": lambda *_, **__: None, "receive": receive, "send": send, "is_running": lambda: not sent,
            "is_train": lambda: True, "is_evaluate": lambda: False, "is_submit_model": lambda: False,
            "system_info": lambda: dict(about), "get_site_name": lambda: asked["site"], "get_job_id": lambda: "fedround",
            "get_config": dict, "params_diff": None, "shutdown": lambda *_, **__: None, "log": lambda *_, **__: None,
            "FLModel": FLModel, "ParamsType": ParamsType, "tracking": tracking}.items():
        setattr(client, name, value)
    tracking.SummaryWriter = tracking.MLflowWriter = tracking.WandBWriter = Writer
    package = types.ModuleType("nvflare")
    package.client, package.__path__, client.__path__ = client, [], []
    sys.modules |= {"nvflare": package, "nvflare.client": client, "nvflare.client.tracking": tracking}
    return sent


def _as_torch(base):
    """Torch's tensors where torch is: scripts load them into a model. Elsewhere numpy's arrays."""
    try:
        import torch
    except ImportError:
        return base
    return {name: torch.from_numpy(array.copy()) for name, array in base.items()}


def _array_of(found):
    return np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)


_KINDS = {"function": _function, "flower": _flower, "nvflare": _nvflare}


def _named(client):
    module, _, name = client.partition(":")
    return getattr(importlib.import_module(module), name)


# -- tensors -----------------------------------------------------------------------------------------------------------


def _read(body, order):
    """Float32 arrays from a safetensors file, in the order in which the client's model has them."""
    size, = struct.unpack("<Q", body[:8])
    header, data = json.loads(body[8:8 + size]), memoryview(body)[8 + size:]
    return {name: np.frombuffer(data[slice(*header[name]["data_offsets"])], np.float32).reshape(header[name]["shape"]).copy()
            for name in order}


def _written(tensors):
    header, offset = {}, 0
    arrays = {name: np.ascontiguousarray(tensors[name], np.float32) for name in sorted(tensors)}
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(array.tobytes() for array in arrays.values())])


if __name__ == "__main__":
    main()
