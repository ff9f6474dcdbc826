"""What every `Log` must do: one suite, which the in-memory log and Kafka both pass.

A subclass gives the fixture `bench`: a started log whose topics have four partitions, and how a
member of a group dies without a word.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from agents.errors import Unavailable
from schemas.envelope import Envelope
from streams.log import TP, Commit, Consumer, Log, Placed
from streams.prefix import Prefix

PARTITIONS = 4
A, B = "requests", "signals.heuristics"
PATIENCE_S = 90.0


class Bench(ABC):
    """A log under test."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.members: list[Member] = []
        self.afterwards: list[Callable[[], Awaitable[None]]] = []

    @abstractmethod
    async def crash(self, consumer: Consumer) -> None:
        """Make *consumer* die without a word to its group."""

    @abstractmethod
    async def gap(self, place: TP, count: int) -> None:
        """Use up at least *count* offsets of *place* without a record that anybody may see."""

    def member(self, group: str, instance: str, topics: Sequence[str] = (A, B)) -> Member:
        """Return a member of *group* that reads as the host does."""
        member = Member(self, self.log.consumer(f"{self.log.prefix}.{group}", topics, instance))
        self.members.append(member)
        return member

    async def close(self) -> None:
        """Stop every member, and whatever else, that a failed test left behind."""
        for end in self.afterwards:
            await end()
        for member in self.members:
            if not member.ended:
                await member.stop()

    async def fill(self, place: TP, count: int, start: int = 0) -> list[Placed]:
        """Append numbered records and wait for their acknowledgements."""
        acks = [await self.log.send(place, b"k", b"%d" % n) for n in range(start, start + count)]
        return [await ack for ack in acks]


class Member:
    """A consumer with a pump: what it was assigned, what it was given and what is paused."""

    def __init__(self, bench: Bench, consumer: Consumer) -> None:
        self.consumer = consumer
        self.assigned: frozenset[TP] = frozenset()
        self.assignments = 0
        self.paused: frozenset[TP] = frozenset()
        self.rounds = 0
        self.got: list[Envelope] = []
        self.slow_s = 0.0
        self.seeks: dict[TP, int] = {}
        self.early = 0
        self.ended = False
        self._taking_over = True
        self._bench = bench
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Member:
        """Join, and read from then on."""
        await self.consumer.start(self._on_assigned, self._on_revoked)
        self._task = asyncio.create_task(self._pump())
        return self

    async def _on_assigned(self, partitions: frozenset[TP]) -> None:
        await asyncio.sleep(self.slow_s)
        if self.seeks:
            self.consumer.seek({tp: at for tp, at in self.seeks.items() if tp in partitions})
        self.assigned = partitions
        self.assignments += 1
        self._taking_over = False

    async def _on_revoked(self, _partitions: frozenset[TP]) -> None:
        self.assigned = frozenset()
        self._taking_over = True

    async def _pump(self) -> None:
        while True:
            self.consumer.pause(self.paused)
            self.rounds += 1
            found = await self.consumer.poll(0.1)
            self.early += self._taking_over and bool(found)
            self.got += [envelope for records in found.values() for envelope in records]

    async def pause(self, partitions: frozenset[TP]) -> None:
        """Read nothing of *partitions* from when this returns."""
        self.paused = partitions
        await self.told_pauses()

    async def told_pauses(self) -> None:
        """Wait until the consumer was told what is paused once more, and no poll of before is under way."""
        seen = self.rounds
        await until(lambda: self.rounds > seen)

    def offsets(self, place: TP) -> list[int]:
        """Return the offsets that were given out of *place*, in order."""
        return [e.offset for e in self.got if (e.topic, e.partition) == place]

    async def stop(self) -> None:
        """Leave in good order."""
        await self._end()
        await self.consumer.stop()

    async def crash(self) -> None:
        """Die without a word."""
        await self._end()
        await self._bench.crash(self.consumer)

    async def _end(self) -> None:
        self.ended = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def until(happened: Callable[[], bool]) -> None:
    """Wait until *happened*; raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not happened():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


def shares(members: Sequence[Member]) -> list[list[int]]:
    """Return the partitions of A that each member has; raises AssertionError if B is shared otherwise."""
    for member in members:
        of_a, of_b = ({p for t, p in member.assigned if t == topic} for topic in (A, B))
        assert of_a == of_b
    return [sorted(p for t, p in member.assigned if t == A) for member in members]


class LogSuite:
    """The suite; see the module."""

    async def test_what_is_sent_is_read_as_it_was(self, bench: Bench) -> None:
        """Acknowledgements tell offsets and the log's own timestamps; nothing of a record is lost."""
        headers = [("traceparent", b"00-1"), ("ce_id", b"")]
        first = await (await bench.log.send((A, 1), b"key", b"value", headers))
        second = await (await bench.log.send((A, 1), b"key", None))
        other = await (await bench.log.send((A, 3), b"", b""))
        read = [e async for e in bench.log.read({(A, p): 0 for p in range(PARTITIONS)})]

        assert [first.offset, second.offset, other.offset] == [0, 1, 0]
        assert first.timestamp <= second.timestamp
        assert sorted(read, key=lambda e: (e.partition, e.offset)) == [
            Envelope(A, 1, 0, first.timestamp, b"key", b"value", tuple(headers)),
            Envelope(A, 1, 1, second.timestamp, b"key", None),
            Envelope(A, 3, 0, other.timestamp, b"", b""),
        ]

    async def test_sends_keep_their_order(self, bench: Bench) -> None:
        """Many sends that nobody waits for in between arrive in order and once."""
        placed = await bench.fill((A, 0), 2_000)
        values = [e.value async for e in bench.log.read({(A, 0): 0})]

        assert [p.offset for p in placed] == list(range(2_000))
        assert values == [b"%d" % n for n in range(2_000)]

    async def test_a_topic_that_does_not_exist_is_not_made_up(self, bench: Bench) -> None:
        """It has no partitions, is not listed, and a partition beyond the last refuses records."""
        assert await bench.log.partitions("misspelt") == 0
        assert await bench.log.partitions(A) == PARTITIONS
        assert {A, B} <= set(await bench.log.topics())
        assert "misspelt" not in await bench.log.topics()
        with pytest.raises(Unavailable):
            await (await bench.log.send((A, PARTITIONS), b"k", b"v"))

    async def test_begins_and_ends(self, bench: Bench) -> None:
        """An end is one past the last record; asking for none gives none."""
        await bench.fill((A, 0), 3)

        assert dict(await bench.log.begins([(A, 0), (A, 1)])) == {(A, 0): 0, (A, 1): 0}
        assert dict(await bench.log.ends([(A, 0), (A, 1)])) == {(A, 0): 3, (A, 1): 0}
        assert dict(await bench.log.ends([])) == {}

    async def test_reading_ends_at_the_ends(self, bench: Bench) -> None:
        """Empty partitions and positions at the end hold nobody up; a start in the middle is kept."""
        await bench.fill((A, 0), 5)
        await bench.fill((A, 1), 2)
        read = [e async for e in bench.log.read({(A, 0): 3, (A, 1): 2, (A, 2): 0, (B, 0): 0})]

        assert [(e.topic, e.partition, e.offset) for e in read] == [(A, 0, 3), (A, 0, 4)]
        assert [e async for e in bench.log.read({(A, 2): 0})] == []
        assert [e async for e in bench.log.read({})] == []

    async def test_following_goes_on(self, bench: Bench) -> None:
        """A reader that follows gets what is there and what comes."""
        await bench.fill((A, 0), 2)
        seen: list[int] = []

        async def follow() -> None:
            reader: Any = bench.log.read({(A, 0): 1, (A, 1): 0}, follow=True)
            async with aclosing(reader):
                async for envelope in reader:
                    seen.append(10 * envelope.partition + envelope.offset)  # noqa: PERF401 - seen meanwhile

        task = asyncio.create_task(follow())
        await until(lambda: seen == [1])
        await bench.fill((A, 1), 1)
        await bench.fill((A, 0), 1)
        await until(lambda: sorted(seen) == [1, 2, 10])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def test_members_share_by_range_and_inputs_stay_together(self, bench: Bench) -> None:
        """One member has all; two and three share by range, the same partitions of each topic."""
        members = [await bench.member("g", "m1").start()]
        await until(lambda: shares(members) == [[0, 1, 2, 3]])
        members.append(await bench.member("g", "m2").start())
        await until(lambda: shares(members) == [[0, 1], [2, 3]])
        members.append(await bench.member("g", "m3").start())
        await until(lambda: shares(members) == [[0, 1], [2], [3]])
        for p in range(PARTITIONS):
            await bench.fill((A, p), 3)
        await until(lambda: sum(len(m.got) for m in members) == 3 * PARTITIONS)

        assert [sorted({e.partition for e in m.got}) for m in members] == [[0, 1], [2], [3]]
        for member in members:
            await member.stop()

    async def test_commits_carry_text_and_are_read_back(self, bench: Bench) -> None:
        """Offset and metadata come back, also to another member; what was not committed is left out."""
        member = await bench.member("g", "m1").start()
        await until(lambda: bool(member.assigned))
        text = '{"back": {"decisions": 17}}'
        await member.consumer.commit({(A, 0): Commit(3, text), (B, 0): Commit(1)})
        await member.consumer.commit({(A, 0): Commit(5, text)})
        found = await member.consumer.committed([(A, 0), (B, 0), (A, 1)])

        assert dict(found) == {(A, 0): Commit(5, text), (B, 0): Commit(1)}
        await member.stop()
        other = bench.log.consumer(f"{bench.log.prefix}.g", (A, B), "m2")
        assert dict(await other.committed([(A, 0)])) == {(A, 0): Commit(5, text)}
        await other.stop()

    async def test_a_paused_partition_gives_nothing(self, bench: Bench) -> None:
        """While paused others go on; resumed, it goes on where it was."""
        member = await bench.member("g", "m1").start()
        await until(lambda: bool(member.assigned))
        await bench.fill((A, 0), 10)
        await until(lambda: len(member.got) == 10)
        await member.pause(frozenset({(A, 0)}))
        await bench.fill((A, 0), 10)
        await bench.fill((A, 1), 10)
        await until(lambda: len(member.offsets((A, 1))) == 10)
        await asyncio.sleep(0.5)

        assert member.offsets((A, 0)) == list(range(10))
        member.paused = frozenset()
        await until(lambda: len(member.offsets((A, 0))) >= 20)
        assert member.offsets((A, 0)) == list(range(20))
        await member.stop()

    async def test_a_pause_given_anew_holds_after_a_rebalance(self, bench: Bench) -> None:
        """The client forgets pauses at an assignment; the next call restores them."""
        first = await bench.member("g", "m1").start()
        await until(lambda: bool(first.assigned))
        await first.pause(frozenset({(A, 0)}))
        second = await bench.member("g", "m2").start()
        await until(lambda: shares([first, second]) == [[0, 1], [2, 3]])
        await first.told_pauses()
        await bench.fill((A, 0), 5)
        await bench.fill((A, 1), 5)
        await until(lambda: len(first.offsets((A, 1))) == 5)
        await asyncio.sleep(0.5)

        assert first.offsets((A, 0)) == []
        first.paused = frozenset()
        await until(lambda: first.offsets((A, 0)) == list(range(5)))
        await first.stop()
        await second.stop()

    async def test_nothing_is_given_out_before_the_listener_is_done(self, bench: Bench) -> None:
        """A listener that takes its time to take over is waited for, at first and at a rebalance."""
        for p in range(PARTITIONS):
            await bench.fill((A, p), 50)
        first = bench.member("g", "m1")
        first.slow_s = 0.7
        await first.start()
        await until(lambda: len(first.got) == 50 * PARTITIONS)
        await first.consumer.commit({(A, p): Commit(25) for p in range(PARTITIONS)})
        second = bench.member("g", "m2")
        second.slow_s = 0.7
        first.got.clear()
        await second.start()
        await until(lambda: len(first.got) >= 50 and len(second.got) >= 50)

        assert (first.early, second.early) == (0, 0)
        for p in range(PARTITIONS):
            owner = first if p < 2 else second
            assert owner.offsets((A, p)) == list(range(25, 50))
        await first.stop()
        await second.stop()

    async def test_a_member_may_read_from_elsewhere_than_its_commit(self, bench: Bench) -> None:
        """Where a listener seeks, before the commit or behind it, reading begins; others keep theirs."""
        for partition in (0, 1, 2):
            await bench.fill((A, partition), 6)
        first = await bench.member("g", "m").start()
        await until(lambda: len(first.got) == 18)
        await first.consumer.commit({(A, p): Commit(3) for p in (0, 1, 2)})
        await first.stop()
        second = bench.member("g", "m")
        second.seeks, second.slow_s = {(A, 0): 1, (A, 1): 5}, 1.0
        await second.start()
        await until(lambda: len(second.got) >= 9)
        await asyncio.sleep(0.3)

        assert second.offsets((A, 0)) == [1, 2, 3, 4, 5]
        assert second.offsets((A, 1)) == [5]
        assert second.offsets((A, 2)) == [3, 4, 5]
        assert second.consumer.reached()[A, 1] == 6
        await second.stop()

    async def test_a_crash_delivers_again_from_the_commit(self, bench: Bench) -> None:
        """What was given out and not committed comes again, to the same member restarted."""
        await bench.fill((A, 0), 10)
        first = await bench.member("g", "m1").start()
        await until(lambda: len(first.got) == 10)
        await first.consumer.commit({(A, 0): Commit(4)})
        await first.crash()
        again = await bench.member("g", "m1").start()
        await until(lambda: len(again.got) >= 6)

        assert again.offsets((A, 0)) == list(range(4, 10))
        await again.stop()

    async def test_a_slow_first_record_holds_the_commit_of_a_fresh_group(self, bench: Bench) -> None:
        """The completed prefix never passes an unfinished record, not even the very first."""
        await bench.fill((A, 0), 5)
        first = await bench.member("g", "m1").start()
        await until(lambda: len(first.got) == 5)
        prefix = Prefix(0)
        segments = [prefix.begin(e.offset, e.offset + 1, 0) for e in first.got]
        for segment in segments[1:]:
            segment.done = True
        assert prefix.advance() is None
        await first.crash()
        again = await bench.member("g", "m1").start()
        await until(lambda: len(again.got) >= 5)
        assert again.offsets((A, 0)) == list(range(5))

        segments[0].done = True
        end = prefix.advance()
        assert end == 5
        await again.consumer.commit({(A, 0): Commit(end)})
        assert (await again.consumer.committed([(A, 0)]))[A, 0].offset == 5
        await again.stop()

    async def test_a_restarted_member_keeps_its_partitions(self, bench: Bench) -> None:
        """Under its own name it gets back what it had, and the other members keep theirs."""
        members = [await bench.member("g", name).start() for name in ("m1", "m2")]
        await until(lambda: shares(members) == [[0, 1], [2, 3]])
        await members[0].crash()
        members[0] = await bench.member("g", "m1").start()
        await until(lambda: shares(members) == [[0, 1], [2, 3]])
        await bench.fill((A, 0), 3)
        await bench.fill((A, 3), 3)
        await until(lambda: members[0].offsets((A, 0)) == members[1].offsets((A, 3)) == [0, 1, 2])
        for member in members:
            await member.stop()

    async def test_a_member_that_was_replaced_cannot_commit(self, bench: Bench) -> None:
        """Another process under the same name fences the old one: its commits are refused."""
        old = await bench.member("g", "m1").start()
        await until(lambda: bool(old.assigned))
        new = await bench.member("g", "m1").start()
        await until(lambda: bool(new.assigned))

        with pytest.raises(Unavailable):
            await old.consumer.commit({(A, 0): Commit(1)})
        assert dict(await new.consumer.committed([(A, 0)])) == {}
        await old.crash()
        await new.stop()
