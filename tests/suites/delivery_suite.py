"""What hosting a stage promises over any `Log`: nothing lost, dead letters first, limits, suspects alone.

A subclass gives the fixture `bench`. The stage under test reads `requests` and only notes what it did.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from agents.errors import Fenced
from agents.testing import policy_of, request_of
from schemas.codec import Codec
from schemas.control import Paused, Resumed
from schemas.envelope import Envelope
from schemas.request import Request
from schemas.topics import CONTROL_EVENTS, DEAD_LETTERS, REQUESTS
from streams.commits import Commits
from streams.letters import LetterLimits, LetterUnwritable
from streams.log import Commit
from streams.pauses import STAGE, tell
from tests.suites.delivery_scene import GROUP, YAML, Scene, nothing
from tests.suites.log_suite import PARTITIONS, PATIENCE_S, Bench, until


class DeliverySuite:
    """The suite; see the module."""

    async def test_scar_02_a_slow_first_record_of_a_fresh_group_comes_again(self, bench: Bench) -> None:
        """Whatever finished behind it, it holds the commit: after a kill the next life does it."""
        release = asyncio.Event()

        async def step(envelope: Envelope) -> None:
            if envelope.offset == 0 and len(scene.lives) == 1:
                await release.wait()

        scene = Scene(bench, step)
        await bench.fill((REQUESTS, 0), 10)
        first = await scene.life()
        await until(lambda: len(first.done) == 9)
        await asyncio.sleep(1.2)  # two rounds of commits
        assert (await scene.committed()).get(0, 0) == 0
        await first.kill()
        second = await scene.life()
        await until(lambda: (0, 0) in second.done and len(second.done) == 10)
        await second.stop()

        assert (await scene.committed())[0] == 10

    async def test_scar_03_a_step_that_raises_makes_a_dead_letter(self, bench: Bench) -> None:
        """Its bytes are kept, its successors are processed, and it is counted once."""

        async def step(envelope: Envelope) -> None:
            if envelope.value == b"3":
                raise ValueError(envelope.value)

        scene = Scene(bench, step, chunk=4)
        headers = [("traceparent", b"00-1"), ("x", b"\xff")]
        for n in range(8):
            await (await bench.log.send((REQUESTS, 1), b"key %d" % n, b"%d" % n, headers))
        life = await scene.life()
        await until(lambda: len(life.done) >= 7 and (1, 7) in life.done)
        await life.stop()
        (letter,) = await scene.letters()

        assert (letter.key, letter.value) == (b"key 3", b"3")
        assert [(h.key, h.value) for h in letter.headers] == headers
        assert (letter.stage, letter.error_class, letter.attempts) == (GROUP, "ValueError", 1)
        assert (letter.topic, letter.partition, letter.offset) == (REQUESTS, 1, 3)
        assert "3" not in letter.reason.replace("line", "").split(" at ")[0]
        assert {offset for _, offset in life.done} == {0, 1, 2, 4, 5, 6, 7}
        assert (
            life.telemetry.registry.get_sample_value(
                "signalbox_dead_letters_total", {"stage": GROUP, "error": "ValueError"}
            )
            == 1
        )
        assert (await scene.committed())[1] == 8

    async def test_scar_04_what_cannot_be_decoded_is_a_dead_letter(self, bench: Bench) -> None:
        """Wrong first byte, unknown schema, cut off, bytes left over, another kind, no value, too large."""
        codec = Codec()
        good = codec.encode(request_of(policy_of(YAML), "r", "hello", now=1))
        other = codec.encode(Paused(STAGE, "x", "ada", "", 1))
        bad: list[bytes | None] = [
            b"\x01" + good[1:], b"\x00\x00\x00\xff\xff" + good[5:], good[:-3], good[:20], good + b"\x00",
            other, None, b"", b"not ours", good + bytes(70_000),
        ]  # fmt: skip
        scene = Scene(bench, nothing, chunk=3)
        scene.accepts = Request
        for value in [good, *bad, good]:
            await (await bench.log.send((REQUESTS, 0), b"k", value))
        life = await scene.life(limits=LetterLimits(record_bytes=65_536))
        await until(lambda: len(life.done) == 2)
        await life.stop()
        letters = sorted(await scene.letters(), key=lambda letter: letter.offset)

        assert life.done == [(0, 0), (0, len(bad) + 1)]
        assert [letter.value for letter in letters] == bad
        assert {letter.error_class for letter in letters} == {"UndecodableError"}
        assert "65536" in letters[-1].reason
        assert (await scene.committed())[0] == len(bad) + 2

    async def test_scar_05_without_its_dead_letter_a_record_is_not_acknowledged(self, bench: Bench) -> None:
        """While the letter cannot be written the commit stays; once it can, things go on."""

        async def step(envelope: Envelope) -> None:
            if envelope.offset == 2:
                raise ValueError

        scene = Scene(bench, step)
        await bench.fill((REQUESTS, 0), 5)
        life = await scene.life()
        life.log.failing[DEAD_LETTERS] = 1_000_000
        await until(lambda: len(life.done) == 4)
        await scene.until_committed(0, 2)
        await asyncio.sleep(1.2)  # two rounds of commits
        assert ((await scene.committed())[0], await scene.letters()) == (2, [])
        life.log.failing[DEAD_LETTERS] = 0
        await until(
            lambda: (
                life.telemetry.registry.get_sample_value(
                    "signalbox_dead_letters_total", {"stage": GROUP, "error": "ValueError"}
                )
                == 1
            )
        )
        await life.stop()

        assert ((await scene.committed())[0], len(await scene.letters()), life.failures) == (5, 1, [])

    async def test_scar_05_a_letter_that_never_can_be_written_ends_the_worker(self, bench: Bench) -> None:
        """After its budget the worker gives up and says what to do; the record comes again."""

        async def step(envelope: Envelope) -> None:
            if envelope.offset == 2:
                raise ValueError

        scene = Scene(bench, step)
        await bench.fill((REQUESTS, 0), 5)
        life = await scene.life(limits=LetterLimits(budget_s=0.3))
        life.log.failing[DEAD_LETTERS] = 1_000_000
        await until(lambda: bool(life.failures))
        await life.stop()
        assert isinstance(life.failures[0], LetterUnwritable)
        assert "not acknowledged" in str(life.failures[0])
        assert (await scene.committed()).get(0, 0) <= 2
        again = await scene.life()
        await until(lambda: (0, 4) in again.done)
        await again.stop()

        assert [letter.offset for letter in await scene.letters()] == [2]

    async def test_no_commit_passes_an_unfinished_record(self, bench: Bench) -> None:
        """Three members come, go and die while records take random times: every commit is honest."""
        rng = random.Random(7)
        claims: list[str] = []
        looks: list[int] = []
        over = asyncio.Event()

        async def step(_: Envelope) -> None:
            await asyncio.sleep(rng.random() * 0.02)

        scene = Scene(bench, step, concurrency=8)

        async def watch() -> None:
            while not over.is_set():
                for p, offset in (await scene.committed()).items():
                    claims.extend(f"{p}/{n}" for n in range(offset) if (p, n) not in scene.done)
                    looks.append(offset)
                await asyncio.sleep(0.3)

        async def end() -> None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

        watcher = asyncio.create_task(watch())
        bench.afterwards.append(end)
        lives = [await scene.life(f"m{n}") for n in (1, 2)]
        for p in range(PARTITIONS):
            await bench.fill((REQUESTS, p), 60)
        lives.append(await scene.life("m3"))
        await asyncio.sleep(0.4)
        await lives[1].kill()
        lives.append(await scene.life("m2"))
        for p in range(PARTITIONS):
            await bench.fill((REQUESTS, p), 60, 60)
        await lives[0].stop()
        lives.append(await scene.life("m1"))
        await until(lambda: len(scene.done) == 120 * PARTITIONS)
        over.set()
        await watcher
        await scene.close()

        assert claims == []
        assert any(looks)
        assert await scene.committed() == dict.fromkeys(range(PARTITIONS), 120)
        assert [life.failures for life in scene.lives] == [[]] * 5

    async def test_the_commit_goes_over_gaps(self, bench: Bench) -> None:
        """Offsets that hold no record, at the start, between and at the end, leave no lag behind."""
        scene = Scene(bench, nothing)
        await bench.gap((REQUESTS, 0), 3)
        await bench.fill((REQUESTS, 0), 2)
        await bench.gap((REQUESTS, 0), 4)
        await bench.fill((REQUESTS, 0), 2)
        await bench.gap((REQUESTS, 0), 5)
        end = (await bench.log.ends([(REQUESTS, 0)]))[REQUESTS, 0]
        life = await scene.life()
        await until(lambda: any(c.get((REQUESTS, 0), Commit(0)).offset == end for c in life.log.committed))
        await life.stop()

        assert len(life.done) == 4
        assert (await scene.committed())[0] == end >= 16

    async def test_a_commit_that_failed_is_tried_again(self, bench: Bench) -> None:
        """It does not wait for the offset to move."""

        async def step(envelope: Envelope) -> None:
            if envelope.offset == 2:  # set before the record counts as done, no commit of it can be earlier
                scene.lives[0].log.failing_commits = 2

        scene = Scene(bench, step)
        life = await scene.life()
        await bench.fill((REQUESTS, 0), 3)
        await until(lambda: any(c.get((REQUESTS, 0), Commit(0)).offset == 3 for c in life.log.committed))
        await life.stop()

        assert life.log.failing_commits == 0
        assert (await scene.committed())[0] == 3

    async def test_of_two_workers_of_one_name_the_older_ends(self, bench: Bench) -> None:
        """It says whose fault it is, and does not take the name back from the younger."""
        scene = Scene(bench, nothing)
        old = await scene.life("m1")
        await bench.fill((REQUESTS, 0), 1)
        await until(lambda: old.done == [(0, 0)])
        young = await scene.life("m1")
        await until(lambda: bool(old.failures))
        assert isinstance(old.failures[0], Fenced)
        assert "--instance" in str(old.failures[0])
        await old.stop()
        await bench.fill((REQUESTS, 0), 3)
        await until(lambda: (0, 3) in young.done)

        assert young.failures == []
        await young.stop()

    async def test_a_stage_that_fails_everything_stops(self, bench: Bench) -> None:
        """Past its limit it is paused, acknowledges nothing more, and goes on once it is resumed."""
        broken = [True]

        async def step(_: Envelope) -> None:
            if broken[0]:
                raise ValueError

        scene = Scene(bench, step, concurrency=1)
        await bench.fill((REQUESTS, 0), 20)
        life = await scene.life(limits=LetterLimits(consecutive=5))
        await until(lambda: life.world.pauses.stage(GROUP) is not None)
        await scene.until_committed(0, 5)
        await asyncio.sleep(1.2)  # two rounds of commits
        assert ((await scene.committed())[0], len(await scene.letters())) == (5, 5)
        events = [Codec().decode(value) for value in await scene.values(CONTROL_EVENTS)]
        assert [(e.name, e.actor) for e in events] == [(GROUP, "dead-letter limit")]
        assert "5 records in a row" in events[0].reason

        broken[0] = False
        await tell(life.world.outbox, Resumed(STAGE, GROUP, "ada", "fixed", 1))
        await until(lambda: (0, 19) in life.done)
        await life.stop()
        # The record that met the limit had failed already.
        assert ((await scene.committed())[0], len(await scene.letters())) == (20, 6)

    async def test_a_share_of_failures_stops_a_stage_too(self, bench: Bench) -> None:
        """Every second record dies, which no row of failures shows."""

        async def step(envelope: Envelope) -> None:
            if envelope.offset % 2:
                raise ValueError

        scene = Scene(bench, step, concurrency=1)
        await bench.fill((REQUESTS, 0), 60)
        life = await scene.life(limits=LetterLimits(ratio=0.5, sample=10))
        await until(lambda: life.world.pauses.stage(GROUP) is not None)
        await asyncio.sleep(0.3)

        assert len(await scene.letters()) == 5
        await life.kill()

    async def test_a_record_that_ends_its_process_is_set_aside(self, bench: Bench) -> None:
        """After a crash suspects run alone; the third that one causes alone makes it a dead letter."""
        at_once: list[int] = []

        async def step(envelope: Envelope) -> None:
            life = len(scene.lives)
            running[life] += 1
            await asyncio.sleep(0.01)
            if envelope.value == b"6":
                at_once.append(running[life])
                scene.lives[-1].killed.set()
                await asyncio.Event().wait()
            running[life] -= 1

        running: Counter[int] = Counter()
        scene = Scene(bench, step, chunk=2)
        await bench.fill((REQUESTS, 0), 12)
        for _ in range(4):
            life = await scene.life()
            await asyncio.wait_for(life.killed.wait(), PATIENCE_S)
            await life.kill()
        last = await scene.life()
        await until(lambda: (0, 11) in last.done)
        await last.stop()
        (letter,) = await scene.letters()

        assert (letter.offset, letter.value) == (6, b"6")
        assert (letter.error_class, letter.attempts) == ("PoisonRecord", 3)
        assert at_once[1:] == [1, 1, 1]
        assert {offset for _, offset in scene.done} == set(range(12)) - {6}
        assert (await scene.committed())[0] == 12

    async def test_a_kill_from_outside_sets_nothing_aside(self, bench: Bench) -> None:
        """Three lives are ended, each with another record alone in flight: no record has three."""
        held = asyncio.Event()

        async def step(envelope: Envelope) -> None:
            if len(scene.lives) <= 4 and envelope.offset == 2 * (len(scene.lives) - 1):
                scene.lives[-1].killed.set()
                await held.wait()

        scene = Scene(bench, step)
        await bench.fill((REQUESTS, 0), 12)
        for _ in range(4):
            life = await scene.life()
            await asyncio.wait_for(life.killed.wait(), PATIENCE_S)
            await life.kill()
        last = await scene.life()
        await until(lambda: len(scene.done) == 12)
        await last.stop()

        assert await scene.letters() == []

    async def test_a_clean_end_leaves_no_suspects(self, bench: Bench) -> None:
        """Who drains and leaves takes its mark back: the next life runs nothing alone."""
        scene = Scene(bench, nothing)
        await bench.fill((REQUESTS, 0), 5)
        life = await scene.life()
        await until(lambda: len(life.done) == 5)
        await life.stop()
        asker = bench.log.consumer(f"{bench.log.prefix}.{GROUP}", [REQUESTS], "asker")
        bench.afterwards.append(asker.stop)
        found = await asker.committed([(REQUESTS, 0)])
        commits = Commits(asker, bench.log, "m1", dict)
        await commits.assigned(frozenset({(REQUESTS, 0)}), 512)

        assert (found[REQUESTS, 0].offset, found[REQUESTS, 0].metadata) == (5, "")
        assert not commits.is_suspect((REQUESTS, 0), 5)
