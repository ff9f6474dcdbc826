"""The retry tiers: where a record waits that must not hold up its partition, and how it comes back.

A tier is a topic in which every record waits equally long, so that it is due in the order in which
it came: whoever reads a tier need only look at its head. A longer wait goes through several tiers.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.topology import Emit, RetryStage
from schemas.dead_letter import Header
from schemas.envelope import Envelope
from schemas.job import Job
from schemas.retry import Retry
from schemas.topics import retry_topic

TIERS: tuple[tuple[str, int], ...] = (
    ("1s", 1_000),
    ("10s", 10_000),
    ("1m", 60_000),
    ("10m", 600_000),
    ("1h", 3_600_000),
)
"""Name and delay (ms) of each tier, the shortest first."""

DELAYS = {retry_topic(name): delay for name, delay in TIERS}
"""Topic of each tier -> its delay (ms)."""

IN_PROCESS_MS = 2_000
"""A worker itself waits no longer than this for a job that it handed on; beyond, the job goes to a tier."""


def retry_stage() -> RetryStage:
    """Return the stage that empties every tier."""
    return RetryStage("retry", "retry", tuple(DELAYS))


def tier_for(wait_ms: int) -> str | None:
    """Return the topic of the longest tier that is no longer than *wait_ms*; None below the shortest."""
    fitting = [name for name, delay in TIERS if delay <= wait_ms]
    return retry_topic(fitting[-1]) if fitting else None


def wakes_at(envelope: Envelope, retry: Retry) -> int:
    """Return when (ms) the record at *envelope* goes on: after its tier's delay, or earlier if it is due."""
    return min(envelope.timestamp + DELAYS[envelope.topic], retry.due_at)


def next_tier(retry: Retry, now: int) -> str | None:
    """Return the tier that *retry* waits on in at *now* (ms); None where it goes home.

    What is left below the shortest tier is waited for at home.
    """
    return tier_for(retry.due_at - now)


def parked(  # noqa: PLR0913 - a record, and why it waits
    emit: Emit, value: bytes, headers: Sequence[tuple[str, bytes]], now: int, stage: str, code: str
) -> Emit | None:
    """Return *emit*, a job encoded as *value*, bound for a tier; None where it need not wait in one."""
    job: Job = emit.record
    tier = tier_for(job.not_before - now) if job.not_before - now > IN_PROCESS_MS else None
    if tier is None:
        return None
    retry = Retry(
        job.request_id,
        job.origin,
        emit.topic,
        emit.partition,
        job.not_before,
        now,
        stage,
        code,
        emit.key,
        value,
        tuple(Header(name, text) for name, text in headers),
    )
    return Emit(tier, emit.partition, emit.key, retry)
