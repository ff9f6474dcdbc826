"""What the log says of a run: its own records only, the first of each counts, and nothing is invented."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from schemas.codec import Codec
from schemas.completion import Result
from schemas.control import RunOpened, TopicPosition
from schemas.dead_letter import DeadLetter, LetterClosed
from schemas.envelope import Envelope
from schemas.identity import Origin
from schemas.topics import CONTROL_EVENTS, DEAD_LETTERS, REQUESTS, RESULTS
from streams.memory import MemoryLog
from streams.runs import RunView, collect, counts, find_run, follow, take
from tests.suites.log_suite import until

CODEC = Codec()
POSITIONS = tuple(TopicPosition(topic, 0, 0) for topic in (REQUESTS, RESULTS, DEAD_LETTERS))
OPENED = RunOpened("r", "default", "0" * 64, 1, POSITIONS)
A, B = b"a" * 16, b"b" * 16
RESULT = Result(
    request_id=A, tenant="default", status=200, error_code="", error_message="", provider="p", model="m",
    decision="d", attempt=0, cost_usd=0.0, finished_at=2, accepted_at=1, policy_hash="h",
    origin=Origin(0, 0), run="r", custom_id=None, line=1,
)  # fmt: skip
DEAD = DeadLetter("provider.p", "E", "why", "jobs.p.batch", 0, 0, 1, 1, "h", 2, request_id=A)


@pytest.fixture
def log() -> MemoryLog:
    """Return a log with the topics that a run is followed in."""
    return MemoryLog(dict.fromkeys((CONTROL_EVENTS, REQUESTS, RESULTS, DEAD_LETTERS), 1), lambda: 1)


def view() -> RunView:
    """Return the run as it was opened."""
    return RunView(OPENED)


def read(record: object, offset: int = 0) -> Envelope:
    """Return *record* as it is read from the log, or bytes that are none."""
    value = record if record is None or isinstance(record, bytes) else CODEC.encode(record)
    return Envelope(DEAD_LETTERS, 0, offset, 1, None, value)


def test_the_first_result_in_the_log_is_the_effective_one() -> None:
    """A result that comes again, of another attempt, changes nothing."""
    found = view()
    for status in (200, 500):
        assert take(CODEC, found, read(replace(RESULT, status=status))) == A
    assert (counts(found)["completed"], counts(found)["failed"]) == (1, 0)


@pytest.mark.parametrize("other", [{"run": "q"}, {"tenant": "acme"}, {"run": ""}])
def test_results_of_others_are_none_of_the_runs(other: dict[str, str]) -> None:
    """Another run, another tenant and the inbox share the topics."""
    found = view()
    assert take(CODEC, found, read(replace(RESULT, **other))) is None  # type: ignore[arg-type]
    assert found.outcomes == {}


@pytest.mark.parametrize("value", [None, b"", b"\x00garbage"])
def test_bytes_of_others_are_passed_over(value: bytes | None) -> None:
    """Whatever lies in the topics, it is no outcome."""
    assert take(CODEC, view(), read(value)) is None


def test_a_signals_dead_letter_ends_nothing() -> None:
    """The request is decided without that signal; any other stage's dead letter is its end."""
    found = view()
    assert take(CODEC, found, read(replace(DEAD, stage="signal.embedding"))) is None
    assert counts(found)["dead_lettered"] == 0
    assert take(CODEC, found, read(DEAD)) == A
    assert counts(found)["dead_lettered"] == 1


async def test_dead_letters_of_other_runs_are_not_counted(log: MemoryLog) -> None:
    """A dead letter does not name its run, so the requests of the run say whose it is."""
    log.append((DEAD_LETTERS, 0), A, CODEC.encode(DEAD))
    found = view()
    await collect(log, CODEC, found)
    assert counts(found)["dead_lettered"] == 0


async def test_following_ends_when_every_request_has_ended(log: MemoryLog) -> None:
    """A result ends one, a dead letter the other; progress counts them."""
    log.append((RESULTS, 0), A, CODEC.encode(RESULT))
    log.append((DEAD_LETTERS, 0), B, CODEC.encode(replace(DEAD, request_id=B)))
    seen: list[int] = []
    await follow(log, CODEC, view(), {A, B}, seen.append)
    assert seen == [1, 2]


def closed(offset: int, verb: str = "redriven") -> LetterClosed:
    """Return the record that closes the letter at *offset*."""
    return LetterClosed(0, offset, verb, "ada", 3, "jobs.p.batch", 0, 1, A)


def test_a_redriven_letter_closes_itself_and_no_later_one() -> None:
    """A redriven request may die again before its redrive is noted: that letter still ends it."""
    found = view()
    for offset, record in enumerate((DEAD, DEAD, closed(0))):
        assert take(CODEC, found, read(record, offset)) == A
    assert counts(found)["dead_lettered"] == 1
    take(CODEC, found, read(closed(1), 3))
    assert counts(found)["dead_lettered"] == 0


async def test_following_waits_for_what_was_redriven_before(log: MemoryLog) -> None:
    """The letter of a redriven request is in the log though it is under way again; its answer is awaited."""
    for record in (DEAD, closed(0)):
        log.append((DEAD_LETTERS, 0), A, CODEC.encode(record))
    found, seen = view(), list[int]()
    following = asyncio.create_task(follow(log, CODEC, found, {A}, seen.append))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not following.done()
    log.append((RESULTS, 0), A, CODEC.encode(RESULT))
    await asyncio.wait_for(following, 60)
    assert (found.outcomes[A].result, seen) == (RESULT, [1])


async def test_following_waits_for_what_is_redriven_meanwhile(log: MemoryLog) -> None:
    """While others are awaited a dead letter may be redriven: its request is awaited again."""
    log.append((DEAD_LETTERS, 0), A, CODEC.encode(DEAD))
    found, seen = view(), list[int]()
    following = asyncio.create_task(follow(log, CODEC, found, {A, B}, seen.append))
    await until(lambda: len(seen) == 1)
    for record, topic in ((closed(0), DEAD_LETTERS), (replace(RESULT, request_id=B), RESULTS)):
        count = len(seen)
        log.append((topic, 0), A, CODEC.encode(record))
        await until(lambda count=count: len(seen) > count)  # type: ignore[misc]
    for _ in range(20):
        await asyncio.sleep(0)
    assert not following.done()
    log.append((RESULTS, 0), A, CODEC.encode(RESULT))
    await asyncio.wait_for(following, 60)
    assert (counts(found)["completed"], seen) == (2, [1, 0, 1, 2])


async def test_a_run_is_found_by_name_and_tenant(log: MemoryLog) -> None:
    """Without a tenant, the run of that name that was opened first is meant."""
    for tenant in ("default", "acme"):
        log.append((CONTROL_EVENTS, 0), b"r", CODEC.encode(replace(OPENED, tenant=tenant)))
    found = [await find_run(log, CODEC, "r", tenant) for tenant in (None, "acme", "nobody")]
    assert [v and v.opened.tenant for v in found] == ["default", "acme", None]
    assert await find_run(log, CODEC, "q") is None
