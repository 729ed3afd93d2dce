"""The law of everything that reads foreign bytes: what was changed is not accepted where a signature or a digest stands over
it, nothing outside the error tree is raised, and nothing is written.

Each input of `corpus/` was a fault once; its name says which, and for which parser. Rows are read in `test_rows.py`.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import FedroundError
from fedround.signing import seal, unseal
from fedround.values import parse
from tests.fuzz.apart import apart
from tests.fuzz.effort import examples
from tests.fuzz.mutations import mutations
from tests.fuzz.parsers import KEY, PARSERS
from tests.fuzz.signed_types import instances, signed_types

SIGNED = signed_types()
CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
ROWS = "rows"
SEALED = ("signed", "bundle", "taken")
"""What holds no changed byte."""
TOLERANT = ("terminal", "list", "read again", "no")
"""What refuses nothing: its law is said where it is read."""
MOST_BYTES, MOST_CPU_S = 1 << 30, 5.0


@pytest.fixture(scope="module", autouse=True)
def a_gigabyte_more_and_not_one_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a parser asks for beyond it is refused by the kernel, as MemoryError, which is no error of ours."""
    here = tmp_path_factory.mktemp("nothing")
    before, limits = os.getcwd(), resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MOST_BYTES, limits[1]))
    os.chdir(here)
    yield
    os.chdir(before)
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert list(here.iterdir()) == []


class TooDearError(BaseException):
    """A parser took more processor time than any input may cost. No code that catches what goes wrong catches it."""


@contextmanager
def at_most(cpu_s: float) -> Iterator[None]:
    """Counts this process's own time: a busy machine changes nothing."""
    def over(*_: object) -> None:
        raise TooDearError

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def test_what_takes_too_long_is_found():
    def for_ever() -> None:
        while True:
            pass

    with pytest.raises(TooDearError), at_most(0.05):
        for_ever()


def refused(name: str, data: bytes) -> bool:
    """Whether a parser refuses these bytes, in a sentence."""
    try:
        with at_most(MOST_CPU_S):
            PARSERS[name].read(data)
    except FedroundError as error:
        assert len(str(error)) < 20_000, "a sentence, not the input"
        return True
    return False


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_honest_is_read(name: str):
    assert not refused(name, PARSERS[name].honest)


@pytest.mark.parametrize("name", PARSERS)
@examples(40)
@given(data=st.data())
def test_a_parser_raises_nothing_but_our_errors(name: str, data: st.DataObject):
    other = data.draw(mutations(PARSERS[name].honest))
    assert refused(name, other) or name not in SEALED


@pytest.mark.parametrize("kind", SIGNED)
@examples(25)
@given(data=st.data())
def test_a_changed_document_is_never_accepted(kind: str, data: st.DataObject):
    document = seal(parse(SIGNED[kind], data.draw(instances(SIGNED[kind])), "it"), KEY)
    with pytest.raises(FedroundError):
        unseal(data.draw(mutations(document)), SIGNED[kind], KEY.key, "it")


@pytest.mark.parametrize("name", sorted({path.name.partition("--")[0] for path in CORPUS} - {ROWS}))
def test_what_was_a_fault_once_is_refused(name: str):
    """Unless nothing is refused there; and all of a parser's inputs together take no minute of processor time."""
    paths = [path for path in CORPUS if path.name.partition("--")[0] == name]
    verdicts = apart(lambda path: refused(name, path.read_bytes()), paths)
    assert verdicts == dict.fromkeys((path.name for path in paths), str(name not in TOLERANT))
