"""A recipe runs in a process that has nothing but encoded rows: what it computes is the same, and what a hostile one tries
ends in words.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from fedround import layout, sandbox
from fedround.errors import Cancelled, ContractError, SetupError
from fedround.learning.evaluate import scored_rows
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.parts import WHOLE
from fedround.learning.recipe import initial, initial_tensors, load_recipe, order_of, schemas
from fedround.learning.train import train
from fedround.learning.trial import made_up, try_out
from fedround.privacy import ledger
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpSgd, GaussianUpdate
from fedround.records import Reason
from site_workers import outbox, rows
from site_workers.apart import opening
from site_workers.apart.host import Host
from tests.apart import LIMITS, NO_TORCH, ROWS, TRAINING, hosted, strict
from tests.small_federation import RECIPE, SmallFederation, make
from validation import encoding

pytestmark = pytest.mark.skipif(sandbox.lacking() is not None, reason=str(sandbox.lacking()))

SGD = DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=0.25, steps=3)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = hosted(tmp_path_factory.mktemp("honest"), RECIPE)
    yield host
    host.rest()


# -- the same ----------------------------------------------------------------------------------------------------------


def test_a_round_is_the_same_to_the_last_bit(federation: SmallFederation, tmp_path):
    planned, other = federation.plan(), federation.copy(tmp_path / "other")
    strict(other, "north")
    site = other.site("north")
    assert site.recipe.apart is not None
    assert (federation.answer("north", planned), other.answer("north", planned, site)) == ("update", "update")
    for key in (layout.delta("north", "spring", 1, 1), layout.answer("north", "spring", 1, 1, "train")):
        one, two = ((found.root / "store" / key).read_bytes() for found in (federation, other))
        if key.endswith(".json"):
            one, two = ([json.loads(body)["body"][part] for part in ("releases", "update")] for body in (one, two))
        assert one == two
    site.recipe.apart.rest()


@pytest.mark.parametrize("mechanism", [SGD, GaussianUpdate(noise_multiplier=1.0, clip_norm=1.0)])
def test_training_and_scores_are_the_same(honest: Host, mechanism):
    apart, here = honest.recipe(), load_recipe(honest._file)
    assert (apart.task, apart.name, apart.declared, apart.digest) == (here.task, here.name, here.declared, here.digest)
    base = {}
    for recipe in (here, apart):
        tensors, rest = initial(recipe, 3)
        base[recipe.apart is None] = tensors
        assert rest.whole == {}
    assert all(np.array_equal(base[True][name], base[False][name]) for name in base[True])
    assert schemas(apart, WHOLE) == schemas(here, WHOLE)
    assert order_of(apart) == order_of(here)
    assert try_out(apart, ROWS.form) == try_out(here, ROWS.form) == ()
    assert made_up(apart, 5, ROWS.form).digest == made_up(here, 5, ROWS.form).digest
    found = [train(recipe, Lesson(base[True], ROWS), TRAINING, mechanism, stream(bytes(32), b"x"), UNGUARDED)
             for recipe in (here, apart)]
    assert all(np.array_equal(found[0].delta[name], found[1].delta[name]) for name in base[True])
    (one, there), (two, also) = (scored_rows(recipe, base[True], ROWS) for recipe in (here, apart))
    assert (there == also).all()
    assert all(np.array_equal(one[name], two[name]) for name in one.numbers)


def test_site_toml_says_where(federation: SmallFederation, tmp_path, monkeypatch):
    assert federation.site("north").recipe.apart is None        # tests share a process (`run_here`)
    monkeypatch.setattr(opening, "_HERE", [False])
    site = federation.site("north")
    assert site.recipe.apart is not None
    site.recipe.apart.rest()
    path = site.folder / "site.toml"
    path.write_text(path.read_text().replace('sandbox = "auto"', 'sandbox = "off"'))
    assert federation.site("north").recipe.apart is None
    monkeypatch.setattr(sandbox, "lacking", lambda: "no kernel")
    path.write_text(path.read_text().replace('sandbox = "off"', 'sandbox = "strict"'))
    with pytest.raises(SetupError, match="no kernel"):
        federation.site("north")
    path.write_text(path.read_text().replace('sandbox = "strict"', 'sandbox = "auto"'))
    assert federation.site("north").recipe.apart is None


# -- a hostile recipe that does not end --------------------------------------------------------------------------------


NOT_DONE = "did not end in 4 s"
FLOODS = """
import os, time
for one in range(3, 40):
    try: os.write(one, b'\\xff' * 4096)
    except OSError: pass
time.sleep(3600)"""
OF_NO_KIND = """
from fedround.learning.tasks.base import Kind
class Mine(Kind):
    kind: str = 'mine'
TASK = Mine()"""


@pytest.mark.parametrize(("code", "words"), [
    ("import time; time.sleep(3600)", NOT_DONE),
    ("import re; re.match('(a+)+$', 'a' * 64 + 'b')", NOT_DONE),          # in C code, which takes no signal
    ("import os; os._exit(0)", "ended without an answer"),
    ("import ctypes; ctypes.string_at(0)", "ended without an answer"),
    ("import sys; sys.exit('bye')", "does not run"),
    (FLOODS, "another form"),
    ("NAME = 'x\\n' * 9", "must define NAME"),
    (OF_NO_KIND, "task|labels"),
    ("import threading, time\nthreading.Thread(target=lambda: time.sleep(3600)).start()\nraise ValueError", "does not run")])
def test_attack_a_recipe_that_does_not_end_or_answers_otherwise(tmp_path, code, words):
    host = hosted(tmp_path, NO_TORCH + "\n" + code, LIMITS.model_copy(update={"seconds": 4 if words == NOT_DONE else 3600}))
    with pytest.raises(ContractError, match=words):
        host.recipe()
    host.rest()


def test_attack_a_recipe_that_wants_ten_gigabytes(tmp_path):
    host = hosted(tmp_path, NO_TORCH + "\nmuch = [bytearray(1 << 30) for _ in range(10)]",
                  LIMITS.model_copy(update={"memory_mb": 1024}))
    with pytest.raises(ContractError, match="memory|MemoryError"):
        host.recipe()


def test_a_cancelled_run_ends_it_in_the_middle(tmp_path):
    host = hosted(tmp_path, NO_TORCH + "\nimport time; time.sleep(3600)")
    with host.watched(lambda: True), pytest.raises(Cancelled):
        host.recipe()
    assert host._child is not None
    assert not host._child.end.alive


def test_its_process_ends_with_the_sites(tmp_path):
    """Whoever kills the site's process leaves nothing behind."""
    (tmp_path / "recipe.py").write_text(NO_TORCH + "\nimport time; time.sleep(3600)")
    code = f"""
from pathlib import Path
from site_workers.apart.host import Host
from site_workers.policy import Limits
import hashlib
file = Path({str(tmp_path / "recipe.py")!r})
host = Host(file, hashlib.sha256(file.read_bytes()).hexdigest(), Limits(), "cpu")
host._running()
print(host._child._process.pid, flush=True)
host.recipe()
"""
    site = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(site.stdout.readline())
    assert psutil.pid_exists(pid)
    process = psutil.Process(pid)
    site.send_signal(signal.SIGKILL)
    site.wait()
    assert process.wait(60) is not False
    site.stdout.close()


# -- what it tries while it computes -----------------------------------------------------------------------------------


def model(body: str) -> str:
    """The recipe, whose model is built by this; not in the tests' own process."""
    told = textwrap.indent(textwrap.dedent(body), "    ")
    there = textwrap.indent("import sys\nif getattr(sys.modules['__main__'].__spec__, 'name', '') == "
                            f"'site_workers.apart.guest':\n{told}", "    ")
    return RECIPE.replace("    return nn.Sequential", f"{there}\n    return nn.Sequential")


UNCLIPPED = model('''    import numpy as np
    from fedround.learning import gradients, sums
    def unclipped(of_rows, parameters, batch, clip, **_):
        size = sum(part.numel() for part in parameters.values())
        return np.full(size, BY * int(clip.norm / clip.cell), np.int64), batch.rows
    gradients.clipped_sum = sums.clipped_sum = unclipped''')


def test_attack_a_recipe_that_takes_the_clip_off_is_refused(tmp_path, rows_are_judged_here, caplog):
    """It replaces the function that clips: a sum longer than all rows' clip norms together is not taken."""
    federation = make(tmp_path, recipe=UNCLIPPED.replace("BY", "1000"))
    planned = federation.plan()
    strict(federation, "north")
    site = federation.site("north")
    assert federation.answer("north", planned, site) == "refusal"
    assert "another form" in caplog.text
    folder = (federation.root / "store" / layout.refusals("north", "spring", 1, 1, "train")).parent
    path = sorted(folder.glob("refusal-*"))[-1]
    assert json.loads(path.read_bytes())["body"]["reason"] == "failed"
    site.recipe.apart.rest()


FEWER = RECIPE + """
from fedround.learning import encoding
HONEST = encoding.encode
encoding.encode = lambda *arguments: HONEST(*arguments).at(slice(0, 100))
"""


def test_attack_a_recipe_that_says_another_number_of_rows_is_refused(tmp_path, monkeypatch, rows_are_judged_here):
    """How many rows there are is told without noise: it would be a channel for anything else."""
    federation = make(tmp_path)
    planned = federation.plan()
    strict(federation, "north")
    site = federation.site("north")
    (tmp_path / "fewer.py").write_text(FEWER)
    digest = hashlib.sha256(FEWER.encode()).hexdigest()
    encoded = encoding.encode_in_subprocess
    monkeypatch.setattr(encoding, "encode_in_subprocess",
                        lambda paths, recipe, _, *more: encoded(paths, tmp_path / "fewer.py", digest, *more))
    monkeypatch.setattr(rows, "_encoded", lambda paths, recipe, file, named, seconds: rows.Rows(
        *encoding.encoded(paths, recipe, file, seconds), named))        # the same rows were encoded before, by an honest one
    assert federation.answer("north", planned, site) == "refusal"
    assert outbox.refusals(site.safe, frozenset({Reason.DATA})) == 1
    assert ledger.read(site.ledger).charges == ()
    site.recipe.apart.rest()


UNREADY = model('''    import traceback
    from fedround.errors import SetupError
    if not any(frame.name == "tried" for frame in traceback.extract_stack()):
        raise SetupError("this machine has no such device")''')


def test_attack_a_recipe_that_says_the_machine_is_not_ready_is_refused_and_counted(tmp_path, rows_are_judged_here):
    """An error that is mended and asked again would tell a bit of a row each time, and nothing would count them."""
    federation = make(tmp_path, recipe=UNREADY)
    planned = federation.plan()
    strict(federation, "north")
    site = federation.site("north")
    assert federation.answer("north", planned, site) == "refusal"
    assert outbox.refusals(site.safe, frozenset({Reason.FAILED})) == 1
    site.recipe.apart.rest()


def test_attack_under_the_unit_site_nothing_that_it_does_moves_what_leaves_by_more_than_the_clip_norm(tmp_path):
    """A recipe that gives back a gradient of its choice: 1e30, or no number at all."""
    for by in ("1e30", "float('nan')"):
        host = hosted(tmp_path, model(f'''    import numpy as np
    from fedround.learning import gradients, sums
    sums.gradient_sum = lambda *_: np.full(17, {by})'''))
        recipe, noise = host.recipe(), GaussianUpdate(noise_multiplier=0.1, clip_norm=1.0)
        base = initial_tensors(load_recipe(host._file), 0)
        delta = train(recipe, Lesson(base, ROWS), TRAINING, noise, stream(bytes(32), b"x"), UNGUARDED).delta
        assert np.linalg.norm([np.linalg.norm(part) for part in delta.values()]) <= 1.0 + 8 * 0.1 * np.sqrt(17)
        host.rest()


@pytest.mark.parametrize(("body", "words"), [
    ("    import time; time.sleep(3600)", "did not end"),
    ("    raise ValueError('Ada\\nINFO:fedround: forged')", "cannot be built"),
    ("    return nn.Linear(2, 2)", "must give one logit")])
def test_attack_a_model_that_hangs_or_raises(tmp_path, body, words):
    host = hosted(tmp_path, model(body))
    recipe = host.recipe()
    host._limits = LIMITS.model_copy(update={"seconds": 4 if "sleep" in body else 3600})
    with pytest.raises(ContractError, match=words) as error:
        try_out(recipe, ROWS.form)
    assert "\n" not in str(error.value)
    host.rest()
