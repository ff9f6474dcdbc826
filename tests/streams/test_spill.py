"""A partition that is larger than its share of memory gives out the same records."""

from __future__ import annotations

import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.errors import Unavailable
from schemas.codec import Codec
from schemas.decision import Decision
from schemas.envelope import Envelope
from schemas.logdir import LogDir
from schemas.topics import DECISIONS
from streams.keep import keep_log
from streams.memory import MemoryLog
from streams.policies import Policies
from streams.spill import Records, Spill
from tests.schemas.records import SAMPLES

DECISION = Codec().encode(next(record for record in SAMPLES if isinstance(record, Decision)))


def envelope(offset: int, size: int) -> Envelope:
    """Return a record of *size* bytes."""
    return Envelope("t", 0, offset, offset * 10, b"k%d" % offset, b"v" * size, (("a", b"b"),))


@settings(max_examples=60)
@given(
    st.lists(st.none() | st.integers(0, 900), max_size=120),
    st.lists(st.tuples(st.integers(0, 130), st.integers(0, 130)), max_size=12),
)
def test_every_part_is_what_a_list_would_give(sizes: list[int | None], parts: list[tuple[int, int]]) -> None:
    """Whatever is in memory and whatever in the file, gaps included, read in any order."""
    rows = [None if size is None else envelope(n, size) for n, size in enumerate(sizes)]
    records = Records(Spill(), hot_bytes=2000)
    for row in rows:
        records.append(row)

    assert len(records) == len(rows)
    for start, stop in parts:
        assert records.part(start, stop) == rows[start:stop]


def test_partitions_share_a_file_and_not_their_records() -> None:
    """What one writes does not show in the other, though their pieces alternate."""
    spill = Spill()
    one, other = Records(spill, 1000), Records(spill, 1000)
    for n in range(60):
        one.append(envelope(n, n))
        other.append(envelope(n, 500 - n))

    assert one.part(0, 60) == [envelope(n, n) for n in range(60)]
    assert other.part(0, 60) == [envelope(n, 500 - n) for n in range(60)]
    assert spill.size > 0


def peak_mib() -> float:
    """Return the most memory that this process ever had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _append(log: MemoryLog, count: int) -> list[int]:
    """Append *count* decisions; return the CPU time of each hundred, ns, sorted."""
    spans = []
    for n in range(count // 100):
        began = time.thread_time_ns()
        for p in range(100):
            log.append((DECISIONS, p % 2), b"0123456789abcdef", DECISION)
        spans.append(time.thread_time_ns() - began)
        del n
    return sorted(spans)


def test_scar_12_a_million_decisions_leave_memory_and_hot_path_flat() -> None:
    """The last hundred thousand cost what the first did, at the 99th percentile, and no more memory."""
    log = MemoryLog({DECISIONS: 2}, lambda: 0, spill=Spill())
    first = _append(log, 100_000)
    before = peak_mib()
    for _ in range(8):
        _append(log, 100_000)
    last = _append(log, 100_000)

    assert peak_mib() - before < 48
    assert last[len(last) * 99 // 100] < 5 * first[len(first) * 99 // 100]
    assert len(log.slice((DECISIONS, 0), 499_999, 10)[0]) == 1


@pytest.fixture
async def logged() -> tuple[MemoryLog, Policies]:
    """A log of three thousand decisions."""
    log = MemoryLog({DECISIONS: 2, "control.policy": 1}, lambda: 0, spill=Spill())
    for n in range(3000):
        log.append((DECISIONS, n % 2), b"%016d" % n, DECISION)
    return log, Policies(log, Codec())


class Dying(MemoryLog):
    """A log whose reader dies halfway, as a killed log writer does."""

    async def read(self, start: object, *, follow: bool = False) -> AsyncIterator[Envelope]:
        """Give out some, then fail."""
        count = 0
        async for found in super().read(start, follow=follow):  # type: ignore[arg-type]
            count += 1
            if count > 1000:
                raise Unavailable("killed")
            yield found


async def test_scar_12_a_log_writer_that_is_restarted_loses_nothing(
    tmp_path: Path, logged: tuple[MemoryLog, Policies]
) -> None:
    """A writer that dies halfway leaves the log that was there; the next one writes every record."""
    log, policies = logged
    await keep_log(log, policies, tmp_path / "log")
    log.append((DECISIONS, 0), b"%016d" % 3000, DECISION)
    dying = Dying({}, lambda: 0)
    dying._records, dying._counts = log._records, log._counts
    with pytest.raises(Unavailable):
        await keep_log(dying, policies, tmp_path / "log")
    kept = sum(1 for _ in LogDir(tmp_path / "log").read(DECISIONS))
    await keep_log(log, policies, tmp_path / "log")
    again = [(e.partition, e.offset, e.key) for e in LogDir(tmp_path / "log").read(DECISIONS)]

    assert kept == 3000
    assert again == [(e.partition, e.offset, e.key) for e in log.envelopes(DECISIONS)]
    assert len(again) == 3001
