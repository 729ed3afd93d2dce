"""A port is free, or the message says which one is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from fedround.errors import SetupError
from infra.stack.ports import GRPC_OFFSET, choose, is_free

NAMES = ("prefect", "s3", "s3-master")


@pytest.fixture
def taken() -> Iterator[int]:
    [port] = choose(("somebody",), {}, {}).values()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield port


def test_chosen_ports_are_free_and_all_different() -> None:
    chosen = choose(NAMES, {}, {})
    used = [*chosen.values(), *(port + GRPC_OFFSET for port in chosen.values())]
    assert len(set(used)) == 2 * len(NAMES)
    assert all(map(is_free, used))


def test_a_wanted_port_is_taken_as_it_is() -> None:
    [port] = choose(("prefect",), {}, {}).values()
    assert choose(NAMES, {"prefect": port}, {})["prefect"] == port


def test_a_wanted_port_in_use_gets_one_clear_sentence(taken: int) -> None:
    with pytest.raises(SetupError) as refusal:
        choose(NAMES, {"s3": taken}, {})
    assert str(refusal.value) == (f"port {taken} for s3 is in use on this machine: stop what listens there, or choose "
                                  "another port")


def test_a_port_in_use_is_not_free(taken: int) -> None:
    assert not is_free(taken)


@pytest.mark.parametrize("port", [0, -1, 65_536, 60_000])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(SetupError, match="from 1 to 55535"):
        choose(NAMES, {"prefect": port}, {})


def test_the_last_ports_are_kept_while_they_are_free(taken: int) -> None:
    before = choose(NAMES, {}, {})
    assert choose(NAMES, {}, before) == before
    again = choose(NAMES, {}, {**before, "s3": taken})
    assert again["s3"] != taken
    assert {**again, "s3": 0} == {**before, "s3": 0}


def test_a_port_is_not_chosen_twice() -> None:
    """The one that the operator wants may be one that another server had before."""
    before = choose(NAMES, {}, {})
    chosen = choose(NAMES, {"s3-master": before["s3"]}, before)
    assert len(set(chosen.values())) == 3
