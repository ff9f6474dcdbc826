"""What the log says of a run: its own records only, the first of each counts, and nothing is invented."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.codec import Codec
from schemas.completion import Result
from schemas.control import RunOpened, TopicPosition
from schemas.dead_letter import DeadLetter
from schemas.identity import Origin
from schemas.topics import CONTROL_EVENTS, DEAD_LETTERS, REQUESTS, RESULTS
from streams.memory import MemoryLog
from streams.runs import RunView, collect, counts, find_run, follow, take

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


def test_the_first_result_in_the_log_is_the_effective_one() -> None:
    """A result that comes again, of another attempt, changes nothing."""
    found = view()
    for status in (200, 500):
        assert take(CODEC, found, CODEC.encode(replace(RESULT, status=status))) == A
    assert (counts(found)["completed"], counts(found)["failed"]) == (1, 0)


@pytest.mark.parametrize("other", [{"run": "q"}, {"tenant": "acme"}, {"run": ""}])
def test_results_of_others_are_none_of_the_runs(other: dict[str, str]) -> None:
    """Another run, another tenant and the inbox share the topics."""
    found = view()
    assert take(CODEC, found, CODEC.encode(replace(RESULT, **other))) is None  # type: ignore[arg-type]
    assert found.outcomes == {}


@pytest.mark.parametrize("value", [None, b"", b"\x00garbage"])
def test_bytes_of_others_are_passed_over(value: bytes | None) -> None:
    """Whatever lies in the topics, it is no outcome."""
    assert take(CODEC, view(), value) is None


def test_a_signals_dead_letter_ends_nothing() -> None:
    """The request is decided without that signal; any other stage's dead letter is its end."""
    found = view()
    assert take(CODEC, found, CODEC.encode(replace(DEAD, stage="signal.embedding"))) is None
    assert counts(found)["dead_lettered"] == 0
    assert take(CODEC, found, CODEC.encode(DEAD)) == A
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


async def test_a_run_is_found_by_name_and_tenant(log: MemoryLog) -> None:
    """Without a tenant, the run of that name that was opened first is meant."""
    for tenant in ("default", "acme"):
        log.append((CONTROL_EVENTS, 0), b"r", CODEC.encode(replace(OPENED, tenant=tenant)))
    found = [await find_run(log, CODEC, "r", tenant) for tenant in (None, "acme", "nobody")]
    assert [v and v.opened.tenant for v in found] == ["default", "acme", None]
    assert await find_run(log, CODEC, "q") is None
