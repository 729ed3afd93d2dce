"""What a hostile recipe tries while it is imported, and answers of another form than was asked for."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fedround import sandbox
from fedround.errors import Cancelled, ContractError
from fedround.learning.apart import RowBound, Sought
from fedround.learning.examples import Examples
from fedround.learning.gradients import Clip
from fedround.learning.parts import NO_REST, WHOLE
from fedround.privacy import ledger
from fedround.privacy.noise import FINE
from site_workers.apart import wire
from site_workers.apart.child import Child
from site_workers.apart.host import Host, _of_a_sum, _Sums
from tests.apart import NO_TORCH, ROWS, TRAINING, hosted, strict
from tests.small_federation import RECIPE, SmallFederation

pytestmark = pytest.mark.skipif(sandbox.lacking() is not None, reason=str(sandbox.lacking()))

TRIES = NO_TORCH + '''
import ctypes, os, signal, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")

def descriptors():
    for one in os.listdir("/proc/self/fd"):
        try:
            leads = os.readlink(f"/proc/self/fd/{one}")
        except OSError:
            continue
        if not leads.startswith(("pipe:", "/dev/null", "/proc/", "/dev/urandom")):
            raise SystemError(leads)
    raise PermissionError

def environment():
    said = open("/proc/self/environ").read() + repr(dict(os.environ)) + " ".join(sys.argv)
    raise PermissionError if "canary" not in said else SystemError

parent, folder = os.getppid(), FOLDER
TRIED = {
    "key": lambda: open(f"{folder}/north/keys/identity.pem").read(),
    "noise": lambda: open(f"{folder}/north/keys/noise.key", "rb").read(),
    "ledger": lambda: open(f"{folder}/north/ledger.jsonl", "a").write("{}"),
    "policy": lambda: open(f"{folder}/north/policy.toml", "a").write(""),
    "recipe": lambda: open(__file__, "a").write("#"),
    "rows": lambda: open(f"{folder}/data/north/train.parquet", "rb").read(),
    "another site": lambda: os.listdir(f"{folder}/east"),
    "passwords": lambda: open("/etc/passwd").read(),
    "scratch": lambda: open("/tmp/fedround-was-here", "w"),
    "shared memory": lambda: open("/dev/shm/fedround-was-here", "w"),
    "internet": lambda: socket.create_connection(("127.0.0.1", 9)),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "fork": os.fork,
    "program": lambda: subprocess.run(["/bin/true"], check=True),
    "another program": lambda: os.execv("/bin/true", ["true"]),
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "ptrace": lambda: call(NUMBERS["ptrace"], 16, parent, 0, 0),
    "read memory": lambda: call(NUMBERS["process_vm_readv"], parent, 0, 0, 0, 0, 0),
    "take descriptor": lambda: call(NUMBERS["pidfd_getfd"], 0, 0, 0),
    "io_uring": lambda: call(NUMBERS["io_uring_setup"], 1, 0),
    "bpf": lambda: call(NUMBERS["bpf"], 0, 0, 0),
    "memory of parent": lambda: open(f"/proc/{parent}/mem", "rb").read(1),
    "environment of parent": lambda: open(f"/proc/{parent}/environ").read(),
    "descriptors of parent": lambda: [os.readlink(f"/proc/{parent}/fd/{one}") for one in os.listdir(f"/proc/{parent}/fd")],
    "a descriptor of parent": lambda: open(f"/proc/{parent}/fd/0").read(),
    "signal": lambda: os.kill(parent, 0),
    "end parent": lambda: os.kill(parent, signal.SIGTERM),
    "own environment": environment,
    "own descriptors": descriptors,
    "leave session": os.setsid,
    "lower oom": lambda: open("/proc/self/oom_score_adj", "w").write("0"),
}
found = []
for name, attempt in TRIED.items():
    try:
        attempt()
    except (OSError, PermissionError):
        continue
    except BaseException as error:
        found.append((name, repr(error)))
    else:
        found.append((name, "done"))
print("WARNING fedround.site forged line")
sys.stderr.write("WARNING fedround.site forged line\\n")
os.write(1, b"forged"), os.write(2, b"forged")
raise RuntimeError(f"tried {len(TRIED)}, could {found}\\nINFO:fedround.site:forged line\\x1b[2J")
'''


def test_attack_what_a_recipe_tries_while_it_is_imported(federation: SmallFederation, monkeypatch, capfd, caplog):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-4711")
    column = list(sandbox._MACHINES).index(os.uname().machine)
    numbers = {name: both[column] for name, both in sandbox._DENIED.items()}
    strict(federation, "north", f"FOLDER, NUMBERS = {str(federation.root)!r}, {numbers!r}\n{TRIES}")
    with pytest.raises(ContractError) as error:
        federation.site("north")
    words = str(error.value)
    assert "tried 32, could []" in words
    assert "\n" not in words
    assert "\x1b" not in words
    assert "forged" not in "".join(capfd.readouterr()) + caplog.text
    assert ledger.read(federation.root / "north" / "ledger.jsonl").charges == ()


def sums_of(total_D: np.ndarray, within: object = 0) -> _Sums:
    """As if a process had answered this."""
    def ask(do: str, *_: object, **__: object) -> tuple[dict, list[np.ndarray]]:
        return {"within": within}, [total_D]

    def odd() -> ContractError:
        return ContractError("another form")

    bound = RowBound(Clip(1.0, 1.0 / FINE), 1, 10.0)
    base = {"w": np.zeros(4, np.float32)}
    return _Sums(SimpleNamespace(_ask=ask, _odd=odd), Sought(base, NO_REST, ROWS, TRAINING, bound), ["w"])


def test_attack_a_sum_is_no_longer_than_its_rows_clip_norms():
    """What is within them is taken: of single records, the promise is the recipe's to keep (docs/threat-model.md)."""
    there_B = np.array([True, True, False])
    longest = np.array([int(2 * FINE), 0, 0, 0])
    assert sums_of(longest, 2).bounded(np.arange(3), there_B)[1] == 2
    for total_D, within in ((longest + int(FINE / 1e6), 2), (np.full(4, -1 << 63), 0), (longest, 3), (longest, -1),
                            (longest, True), (longest, "2"), (longest, None)):
        with pytest.raises(ContractError, match="another form"):
            sums_of(total_D, within).bounded(np.arange(3), there_B)
    with pytest.raises(ContractError):
        sums_of(np.array([1, 0, 0, 0])).bounded(np.arange(3), ~there_B & False)


def test_weights_travel_again_as_soon_as_they_are_others():
    """Whether they are the base model's is asked of their bits, also if somebody changed them in place."""
    sent = list[int]()

    def ask(do: str, _: object, arrays: list[np.ndarray], **__: object) -> tuple[dict, list[np.ndarray]]:
        sent.append(len(arrays) - 1)
        return {}, [np.zeros(4)]

    def sums() -> _Sums:
        return _Sums(SimpleNamespace(_ask=ask), Sought({"w": np.zeros(4, np.float32)}, NO_REST, ROWS, TRAINING, None), ["w"])

    for change in (None, 1.0, -0.0, np.nan):
        found = sums()
        if change is not None:
            found.weights_D[2] = change
        found.plain(np.arange(3))
        found.plain(np.arange(3))
    assert sent == [0, 1, *[1] * 6]


# -- answers of another form -------------------------------------------------------------------------------------------


def answered(answer: bytes, wanted: wire.Forms = (("float32", (2,)),),
             of: Callable[[wire.Said], wire.Forms] | None = None) -> tuple[dict, list[np.ndarray]]:
    """What `Child.call` makes of these bytes."""
    made = Child.__new__(Child)
    with tempfile.TemporaryFile() as says, open(os.devnull, "wb") as asked:
        says.write(answer)
        says.seek(0)
        made._process, made._name, made.end = SimpleNamespace(stdin=asked, stdout=says), "tiny", lambda: None
        return made.call({"do": "x"}, [], of or (lambda _: wanted), lambda: False, 60)


def message(said: object, body: bytes = b"") -> bytes:
    text = json.dumps(said).encode()
    return wire.LENGTH.pack(len(text)) + text + body


GOOD = {"arrays": [["float32", [2]]]}


def test_a_message_is_read_as_it_was_written():
    body = b"".join(wire.packed({"a": 1}, [np.arange(2, dtype=np.float32)]))
    told, (array,) = answered(body)
    assert (told["a"], array.tolist()) == (1, [0.0, 1.0])


@pytest.mark.parametrize("answer", [
    b"", b"\xff\xff\xff\xff", b"\x04\x00\x00\x00nope", message([1]), message(GOOD, b"short"), message({}), message("x"),
    message({"arrays": [["float64", [2]]]}, bytes(16)), message({"arrays": [["float32", [3]]]}, bytes(12)),
    message({"arrays": [["object", [2]]]}, bytes(16)), message({"arrays": [["float32", [-2]]]}), message({"arrays": 7}),
    message({"arrays": [["float32", [2]], ["float32", [2]]]}, bytes(16)), message({"arrays": [["float32", [1 << 50]]]}),
    wire.LENGTH.pack(200_000) + b"[" * 200_000, b"cos\nsystem\n(S'touch canary'\ntR."])
def test_attack_an_answer_of_another_form(answer):
    with pytest.raises(ContractError, match=r"another form|without an answer"):
        answered(answer)


@pytest.mark.parametrize("said", [
    [["int64", [2]]], [["bool", [2]]], [["float32", [3]]], [["float64", [2, 1]]], [["float32", [2]], ["float32", [2]]], []])
def test_attack_a_sum_is_of_single_or_of_double_precision_and_as_long_as_the_weights(said):
    for dtype, size in (("float32", 4), ("float64", 8)):
        _, (total_D,) = answered(message({"arrays": [[dtype, [2]]]}, bytes(2 * size)), of=partial(_of_a_sum, shape=(2,)))
        assert (total_D.dtype, total_D.shape) == (dtype, (2,))
    with pytest.raises(ContractError, match="another form"):
        answered(message({"arrays": said}, bytes(32)), of=partial(_of_a_sum, shape=(2,)))


@pytest.mark.parametrize(("watch", "words"), [(lambda: False, "did not end in 0.2 s"), (lambda: True, "was stopped")])
def test_attack_a_byte_every_moment_does_not_keep_the_site_waiting(watch, words):
    """Time, and whether the run was cancelled, are looked at while bytes come, too."""
    made, (reads, writes) = Child.__new__(Child), os.pipe()

    def dribble() -> None:
        with os.fdopen(writes, "wb", buffering=0) as says, suppress(BrokenPipeError):     # until nobody listens any more
            says.write(wire.LENGTH.pack(wire.LONGEST))
            for _ in range(wire.LONGEST):
                time.sleep(0.02)
                says.write(b" ")

    thread = threading.Thread(target=dribble)
    thread.start()
    with os.fdopen(reads, "rb", buffering=0) as says, open(os.devnull, "wb") as asked:
        made._process, made._name, made.end = SimpleNamespace(stdin=asked, stdout=says), "tiny", lambda: None
        with pytest.raises((ContractError, Cancelled), match=words):
            made.call({"do": "x"}, [], lambda _: (), watch, 0.2)
    thread.join()


def test_attack_a_truth_is_0_or_1():
    found = answered(message({"arrays": [["bool", [2]]]}, b"\1\0"), (("bool", (2,)),))[1][0]
    assert found.tolist() == [True, False]
    for body in (b"\2\0", b"\0\xff"):
        with pytest.raises(ContractError, match="another form"):
            answered(message({"arrays": [["bool", [2]]]}, body), (("bool", (2,)),))


def answering(folder: Path, told: dict) -> Host:
    """Where a recipe would run, if its process said this whatever it is asked."""
    host = hosted(folder, RECIPE)
    host._child = SimpleNamespace(call=lambda *_: (told, []), end=SimpleNamespace(alive=True))
    host.rest = lambda: None
    return host


HUGE, SURROGATE = 1e300, "\ud800"


@pytest.mark.parametrize("names", [None, 7, "ab", {"a": 1}, ["a", "a"], [["a"], "['a']"], [1, "1"]])
def test_attack_names_that_are_none(tmp_path, names):
    assert answering(tmp_path, {"names": ["b", "a"]}).order() == ("b", "a")
    with pytest.raises(ContractError, match="another form"):
        answering(tmp_path, {"names": names}).order()


@pytest.mark.parametrize("told", [
    {}, {"shared": 7, "private": [], "frozen": []}, {"shared": [["w", [2, -1]]], "private": [], "frozen": []},
    {"shared": [["w", [1 << 70]]], "private": [], "frozen": []}, {"shared": [["w", "22"]], "private": [], "frozen": [["a"]]},
    {"shared": [["../w\n", [2.5]]], "private": [], "frozen": []}, {"shared": [["w", [HUGE]]], "private": [], "frozen": []}])
def test_attack_shapes_that_are_none(tmp_path, told):
    with pytest.raises(ContractError):
        answering(tmp_path, told).schemas(WHOLE)


@pytest.mark.parametrize("told", [
    {}, {"notes": 7, "number": 1.0}, {"notes": [], "number": float("nan")}, {"notes": [], "number": "1"},
    {"notes": [], "number": None}, {"notes": [], "number": float("inf")}, {"notes": {"a": 1}, "number": 0}])
def test_attack_a_trial_that_says_nothing(tmp_path, told):
    with pytest.raises(ContractError, match="another form"):
        answering(tmp_path, told).tried(ROWS.form, WHOLE, TRAINING, "cpu", per_record=True)


def test_attack_warnings_are_few_short_lines(tmp_path):
    told = {"notes": ["x\nINFO forged\x1b[2J" + SURROGATE + "y" * 9999, 7] * 99, "number": HUGE}
    notes, _ = answering(tmp_path, told).tried(ROWS.form, WHOLE, TRAINING, "cpu", per_record=True)
    assert len(notes) == 20
    for note in notes:
        assert len(note) <= 300
        assert note.isprintable()
        note.encode()


def test_attack_a_file_that_says_it_has_no_memory_is_a_sentence(tmp_path):
    """A site that starts says why it does not."""
    def call(*_: object) -> None:
        raise MemoryError

    host = answering(tmp_path, {})
    host._child.call = call
    with pytest.raises(ContractError, match="needs more memory than one plan may take here"):
        host.recipe()


@pytest.mark.parametrize("described", [None, 7, [], "{}", "[" * 99_999, SURROGATE, '{"name": "x\\ny"}'])
def test_attack_a_file_that_says_nothing(tmp_path, described):
    with pytest.raises(ContractError, match="recipe"):
        answering(tmp_path, {"described": described}).recipe()


def test_its_words_are_lines_that_are_no_lines_of_the_log():
    with pytest.raises(ContractError) as error:
        answered(message({"error": "", "words": "Traceback\nINFO fedround.site forged\x1b[2J" + "x" * 9999}))
    first, *others = str(error.value).split("\n")
    assert first.startswith("recipe 'tiny': its code raised")
    assert all(line.startswith("  | ") for line in others)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 5000
    with pytest.raises(ContractError, match="^one two$"):
        answered(message({"error": "ContractError", "words": "one\ntwo"}))
    with pytest.raises(MemoryError):
        answered(message({"error": "MemoryError"}))
    for kind in ("SetupError", "Cancelled", "TrustError", ["ContractError"], None, 7):
        with pytest.raises(ContractError):
            answered(message({"error": kind, "words": ["x"]}))


def scores_of(numbers: dict[str, np.ndarray], counts_N: np.ndarray, host: Host, rows: Examples = ROWS) -> object:
    """As if a process had answered this."""
    def call(said: dict, arrays: object, wanted: object, *_: object) -> tuple[dict, list[np.ndarray]]:
        if said["do"] == "hold":
            return {}, []
        arrays, told = [*numbers.values(), counts_N], {"names": list(numbers)}
        if list(wanted({**told, "arrays": wire.forms(arrays)})) != wire.forms(arrays):
            raise ValueError("other arrays than were asked for")
        return told, arrays

    host._child = SimpleNamespace(call=call, end=SimpleNamespace(alive=True))
    host.rest = lambda: None
    return host.scored({"w": np.zeros(1, np.float32)}, rows)


def test_attack_scores_of_other_rows(tmp_path):
    counts_N, score_N, truth_N = np.ones(60, bool), np.linspace(0, 1, 60), np.zeros(60, np.int64)
    good = {"score": score_N, "truth": truth_N}
    assert len(scores_of(good, counts_N, hosted(tmp_path, RECIPE))[0]) == 60
    assert len(scores_of(dict(reversed(good.items())), counts_N, hosted(tmp_path, RECIPE))[0]) == 60
    for numbers, counts in ((good | {"score": score_N[:-1]}, counts_N), (good | {"other": score_N}, counts_N),
                            (good, counts_N[:-1]), ({name: part[:-1] for name, part in good.items()}, counts_N),
                            ({"score": np.zeros(61), "truth": np.zeros(61, np.int64)}, counts_N), ({}, counts_N),
                            ({"score": score_N}, counts_N), (good | {"score": np.array(1.0)}, counts_N),
                            (good | {"truth": truth_N.astype(np.float64)}, counts_N),
                            (good | {"score": score_N.astype(np.float32)}, counts_N),
                            (good | {"score": np.zeros((60, 1))}, counts_N), (good, counts_N.astype(np.int64)),
                            ({"score": np.zeros((60, 60)), "truth": np.zeros((60, 60), np.int64)}, counts_N)):
        with pytest.raises((ContractError, ValueError)):
            scores_of(numbers, counts, hosted(tmp_path, RECIPE))


def test_attack_a_row_that_counts_for_nothing_is_said_to_count(tmp_path):
    without = np.arange(60) != 3
    host, rows = hosted(tmp_path, RECIPE), Examples(ROWS.inputs, ROWS.targets, without)
    good = {"score": np.zeros(59), "truth": np.zeros(59, np.int64)}
    assert len(scores_of(good, without, host, rows)[0]) == 59
    with pytest.raises(ContractError):
        scores_of({"score": np.zeros(60), "truth": np.zeros(60, np.int64)}, np.ones(60, bool), hosted(tmp_path, RECIPE), rows)
