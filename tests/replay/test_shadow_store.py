"""Sets that were observed in shadow only: all of a partition's at hand by request, few of them in memory."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from replay import shadow_store
from replay.shadow_store import ShadowStore
from replay.view import MemoryLog
from schemas.codec import Codec
from schemas.envelope import Envelope
from schemas.identity import Origin
from schemas.signal import SignalSet
from schemas.topics import signals_topic
from tests.replay.logs import LogBuilder

COUNT = 2000
ASKED = {"any": "shadow_signals"}
ROLES = ("embedding", "heuristics")


def id_of(number: int) -> bytes:
    """Return the id of that request."""
    return number.to_bytes(16, "big")


def sets() -> tuple[SignalSet, SignalSet]:
    """Return a set in shadow alone, and the same as decisions demand it."""
    builder = LogBuilder()
    found = next(each for role, each in builder.signals(*builder.request(0))[0] if role == "embedding")
    return replace(found, shadow=("embedding:maths",), shadow_rate=(0.5,)), found


class Long(MemoryLog):
    """A log of which the records are made as they are read: two roles, of each request, some twice."""

    def __init__(self, count: int = COUNT, policies: Mapping[str, str] = ASKED) -> None:
        super().__init__((), policies)
        self._count = count
        self._alone, self._demanded = sets()

    def topics(self) -> Mapping[str, int]:
        """Return the topics of both roles."""
        return {signals_topic(role): 2 for role in ROLES}

    def read(self, topic: str, partition: int | None = None) -> Iterator[Envelope]:
        """Yield a set a request, of which every third is demanded and every fifth comes twice."""
        codec = Codec()
        assert partition == 1
        yield Envelope(topic, 1, 0, 0, None, b"not ours")
        for number in range(self._count):
            model = self._alone if number % 3 else self._demanded
            value = codec.encode(replace(model, request_id=id_of(number), origin=Origin(1, number)))
            for again in range(1 + (number % 5 == 0)):
                yield Envelope(topic, 1, 10 * number + again + 1, 0, None, value)


@pytest.mark.parametrize("cache", [16, 16 * 1024])
def test_each_request_gets_the_first_set_of_each_role(monkeypatch: pytest.MonkeyPatch, cache: int) -> None:
    """Of those in shadow alone, whether they are in memory or in the file; nobody gets another's."""
    monkeypatch.setattr(shadow_store, "_CACHE_KIB", cache)
    with ShadowStore(Long(), Codec(), 1) as store:
        for number in (*range(0, COUNT, 7), 1, 5, COUNT - 1, COUNT):
            found = store.about(number, id_of(number))
            there = number % 3 != 0 and number < COUNT
            assert [at for at, _ in found] == ([10 * number + 1] * 2 if there else [])
            assert {seen.request_id for _, seen in found} == ({id_of(number)} if there else set())
        assert store.about(1, id_of(2)) == ()


def test_memory_does_not_grow_with_the_log() -> None:
    """Two thousand sets are joined in what two hundred of them would take."""
    view, codec = Long(1500), Codec()
    tracemalloc.start()
    with ShadowStore(view, codec, 1) as store:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert store.about(1, id_of(1)) != ()

    assert peak < 512 * 1024


def test_a_log_whose_policies_ask_for_nothing_in_shadow_is_not_read() -> None:
    """There is nothing to join, and no file."""
    with ShadowStore(Long(policies={"any": "no such"}), Codec(), 0) as store:
        assert store.about(1, id_of(1)) == ()


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what it is: an error of the temporary file."""

    def small() -> sqlite3.Connection:
        found = database()
        found.execute("PRAGMA max_page_count = 10")
        return found

    database = shadow_store._database
    monkeypatch.setattr(shadow_store, "_database", small)

    with pytest.raises(OSError, match=r"in a temporary file: database or disk is full"):
        ShadowStore(Long(400), Codec(), 1)
