"""Flower's own package runs its clients in our sandbox: every style of client, and what we lean on of its private parts.

It installs flwr 1.42 into an environment of its own, which shares this one's other libraries; without an index of packages
it is skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedround import sandbox
from fedround.learning.foreign.spec import Foreign, files_of
from infra.settings import ForeignSettings
from site_workers.foreign import host
from tests.small_federation import SmallFederation

pytestmark = pytest.mark.skipif(sandbox.lacking() is not None, reason=str(sandbox.lacking()))

PLAIN = '''
import numpy as np
from flwr.client import NumPyClient

class Client(NumPyClient):
    def fit(self, parameters, config):
        return [array + np.float32(config["by"]) for array in parameters], 10 ** 9, {"accuracy": 1.0}
'''
OF_A_FUNCTION = PLAIN + '''
from flwr.client import ClientApp
from flwr.common import Context

def client_fn(context: Context):
    assert (context.node_config["partition-id"], context.run_config["local-epochs"]) == (2, 5)
    return Client().to_client()

app = ClientApp(client_fn)
'''
OF_MESSAGES = '''
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(msg: Message, context: Context):
    assert (context.node_config["partition-id"], context.run_config["local-epochs"]) == (2, 5)
    layer = torch.nn.Linear(2, 3)
    layer.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += msg.content["config"]["by"]
    content = {"arrays": ArrayRecord(layer.state_dict()), "metrics": MetricRecord({"num-examples": 10 ** 9})}
    return Message(content=RecordDict(content), reply_to=msg)
'''


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has Flower first, and then what this environment has."""
    folder = tmp_path_factory.mktemp("flower")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    found = folder / "bin" / "python"
    done = subprocess.run([sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(found), "flwr==1.42.0"],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"flwr cannot be installed here: {done.stderr[-200:]}")
    (where,) = (folder / "lib").glob("python3*/site-packages")
    (where / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return found


@pytest.mark.parametrize(("code", "client"), [(PLAIN, "client:Client"), (OF_A_FUNCTION, "client:app"),
                                              (OF_MESSAGES, "client:app")], ids=["plain", "function", "messages"])
def test_a_client_of_flower_trains_as_it_is(federation: SmallFederation, python: Path, tmp_path, code, client):
    folder = tmp_path / "flower-client"
    folder.mkdir()
    (folder / "client.py").write_text(code)
    site = federation.site("north")
    settings = site.settings.model_copy(update={"foreign": ForeignSettings(
        python=str(python), folder=str(folder), node={"partition-id": 2, "num-partitions": 3},
        data=(sysconfig.get_path("purelib"),))})
    foreign = Foreign(kind="flower", client=client, files=files_of(folder), config={"by": 0.5},
                      run_config={"local-epochs": 5})
    site = replace(site, settings=settings, recipe=replace(site.recipe, foreign=foreign))
    base = {"weight": np.ones((3, 2), np.float32), "bias": np.zeros(3, np.float32)}
    found = host.trainer(site, 1, ("weight", "bias"), lambda: False, 300)(base)
    assert np.allclose(found["weight"], 1.5)
    assert np.allclose(found["bias"], 0.5)
    assert shutil.which("flwr", path=str(python.parent)) is not None
