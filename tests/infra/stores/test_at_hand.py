"""What was seen is not fetched again, within a bound; everything else asks the store behind."""

from pathlib import Path

from infra.stores import AtHand, MemoryStore


class Counting(MemoryStore):
    """Says what was fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.compared: list[bool] = []

    def get(self, key: str, *, max_bytes: int | None = None, compare: bool = True) -> bytes:
        self.fetched.append(key)
        self.compared.append(compare)
        return super().get(key, max_bytes=max_bytes, compare=compare)


def test_what_this_process_put_or_got_is_not_fetched_again() -> None:
    behind = Counting()
    behind.put_once("models/old", b"old")
    store = AtHand(behind, "models/", 100)
    assert store.put_once("models/new", b"new")
    for _ in range(2):
        assert (store.get("models/new"), store.get("models/old")) == (b"new", b"old")
    assert behind.fetched == ["models/old"]


def test_what_is_kept_was_compared_also_if_its_first_reader_compares_it() -> None:
    """The next one may not."""
    behind = Counting()
    store = AtHand(behind, "models/", 100)
    for key in ("models/a", "runs/a"):
        behind.put_once(key, b"a")
        assert store.get(key, compare=False) == b"a"
    assert behind.compared == [True, False]


def test_what_another_one_put_first_is_what_comes_back() -> None:
    behind = Counting()
    behind.put_once("models/a", b"theirs")
    store = AtHand(behind, "models/", 100)
    assert not store.put_once("models/a", b"ours")
    assert store.get("models/a") == b"theirs"


def test_memory_is_bounded_and_the_oldest_goes_first(tmp_path: Path) -> None:
    behind = Counting()
    store = AtHand(behind, "models/", 10)
    for key, body in (("models/a", b"aaaa"), ("models/b", b"bbbb"), ("models/c", b"cccc"), ("models/large", b"l" * 11),
                      ("runs/d", b"d")):
        assert store.put_once(key, body)
    for key in ("models/c", "models/b", "models/a", "models/large", "runs/d"):
        store.get(key)
    assert behind.fetched == ["models/a", "models/large", "runs/d"]
