"""The ten lines of docs/models.md serve a model."""

from __future__ import annotations

import json
import os
import re
import threading
import urllib.request
from pathlib import Path

import numpy as np

from fedround import bundle
from fedround.learning.exported import Served
from tests.bundled import Bundled

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_ten_lines_serve_the_model(bundled: Bundled, tmp_path: Path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    bundled.file(tmp_path).rename(tmp_path / "model.zip")
    serving = 'HTTPServer(("127.0.0.1", 8080), Score).serve_forever()\n'
    assert code.endswith(serving)
    assert len(code.splitlines()) == 10
    names: dict[str, object] = {}
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec(code.removesuffix(serving), names)
    finally:
        os.chdir(before)
    server = names["HTTPServer"](("127.0.0.1", 0), names["Score"])       # type: ignore[operator]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rows = [[0.5, -1.0], [2.0, 2.0]]
    try:
        asked = urllib.request.Request(f"http://127.0.0.1:{server.server_port}/", data=json.dumps(rows).encode())
        with urllib.request.urlopen(asked) as answer:
            chances = json.loads(answer.read())
    finally:
        server.shutdown()
        server.server_close()
    served = Served(bundled.bundle.files[bundle.ONNX]).answers({"x": np.array(rows, np.float32)})
    assert np.allclose(chances, served, atol=1e-6)
