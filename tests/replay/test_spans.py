"""A stretch of time, topics read as a log, and memory that does not grow: what `replay decide` reads by."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import replay.cli
from agents.errors import ConfigError
from replay.archive import archive
from replay.archive_files import Files
from replay.bills import PAID, Bills, Part
from replay.span import Span
from schemas.envelope import Envelope
from streams.live_view import TopicView, _Loop
from streams.memory import MemoryLog
from tests.replay.logs import POLICY_YAML, START, LogBuilder, kept
from tests.replay.test_archive import built, source
from tests.replay.test_archive_worker import log_of


@pytest.fixture(scope="module")
def builder() -> LogBuilder:
    """A log of twenty answered requests in four partitions."""
    return built(*range(20))


def topics_of(log: MemoryLog, builder: LogBuilder, loop: _Loop) -> TopicView:
    """Return *log* as a view of topics."""
    spans = {place: (0, len(records)) for place, records in log._records.items()}
    return TopicView(loop, log, spans, builder.policies)


def test_topics_are_read_up_to_the_ends_that_they_had(builder: LogBuilder) -> None:
    """Every record is there, partition by partition; what is appended afterwards is not."""
    log, loop = log_of(builder.envelopes), _Loop()
    view = topics_of(log, builder, loop)
    log.append(("decisions", 0), b"", b"later")
    found = [e for topic in view.topics() for e in view.read(topic)]
    of_one = list(view.read("requests", 1))
    loop.close()

    def place(envelope: Envelope) -> tuple[str, int, int]:
        return envelope.topic, envelope.partition, envelope.offset

    known = [e for e in builder.envelopes if e.topic in view.topics()]
    assert sorted(found, key=place) == sorted(known, key=place)
    assert of_one == [e for e in builder.envelopes if (e.topic, e.partition) == ("requests", 1)]


def moments(builder: LogBuilder) -> tuple[str, str]:
    """Return a stretch of time with half of the decisions in it."""
    times = sorted(e.timestamp for e in builder.envelopes if e.topic == "decisions")
    return str(times[5]), str(times[15])


def test_archive_kept_log_and_topics_of_a_range_give_the_same(builder: LogBuilder, tmp_path: Path) -> None:
    """The same JSON, byte for byte, for the same stretch of time."""
    loop = _Loop()
    view = topics_of(log_of(builder.envelopes), builder, loop)
    app = typer.Typer()
    replay.cli.register(app, lambda _broker, _folder: nullcontext(view))
    kept(str(tmp_path / "kept"), builder.envelopes, builder.policies)
    archive(source(builder), Files(str(tmp_path / "archive")), chunk=7)
    other = tmp_path / "other.yaml"
    other.write_text(POLICY_YAML.replace("priority: 20", "priority: 5"))
    since, until = moments(builder)
    common = ["replay", "decide", "--policy", str(other), "--since", since, "--until", until, "--json"]
    ways = [["--log", str(tmp_path / "kept")], ["--log", str(tmp_path / "archive")], ["--broker", "h:1"]]
    answers = [CliRunner().invoke(app, [*common, *way]) for way in ways]
    again = CliRunner().invoke(app, ["replay", "decide", "--broker", "h:1", "--since", since, "--json"])
    loop.close()

    assert [a.exit_code for a in answers] == [0, 0, 0]
    assert answers[0].stdout == answers[1].stdout == answers[2].stdout
    assert orjson.loads(answers[0].stdout)["decisions"] == 10
    assert (again.exit_code, orjson.loads(again.stdout)["reproduced"]) == (0, 15)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1790000000000", START),
        ("2026-09-21T14:13:20Z", START),
        ("2026-09-21T16:13:20+02:00", START),
        ("2026-09-21", 1_789_948_800_000),
        ("20260921", 1_789_948_800_000),
        ("100000000", 100_000_000),
    ],
)
def test_times_are_iso_or_milliseconds(text: str, moment: int) -> None:
    """A time without a zone is UTC; eight digits are a day, more of them milliseconds."""
    assert Span.of(text, None) == Span(moment)


def test_what_is_no_time_is_refused() -> None:
    """The error says what can be given; neither bound is no span at all."""
    assert Span.of(None, None) is None
    with pytest.raises(ConfigError, match="'yesterday' is no time"):
        Span.of(None, "yesterday")


def completions(rows: list[tuple[int, int, float]]) -> pa.Table:
    """Return completions of (request, attempt, cost)."""
    origins = pa.array(
        [{"partition": 0, "offset": o} for o, _, _ in rows],
        pa.struct([("partition", pa.int64()), ("offset", pa.int64())]),
    )
    columns = {name: pa.array([0] * len(rows), pa.int64()) for name in ("step", "branch")}
    columns |= {"attempt": pa.array([a for _, a, _ in rows], pa.int64())}
    columns |= {name: pa.array([1] * len(rows), pa.int64()) for name in PAID[:2]}
    columns |= {"latency_ms": pa.array([1.0] * len(rows))}
    columns |= {"model": pa.array(["m"] * len(rows)), "cost_usd": pa.array([c for _, _, c in rows])}
    return pa.table({"origin": origins, **columns})


_ROWS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2), st.integers(1, 9)), max_size=60)


@given(_ROWS, st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_bills_are_the_same_whatever_the_parts(rows: list[tuple[int, int, int]], size: int) -> None:
    """Of each job the first completion of the log counts; requests are billed by their neighbourhood only."""
    wanted: dict[int, dict[int, int]] = {}
    for origin, attempt, cost in rows:
        wanted.setdefault(origin, {}).setdefault(attempt, cost)
    loaded: list[int] = []
    parts = []
    for at in range(0, len(rows), size):
        some = [(o, a, float(c)) for o, a, c in rows[at : at + size]]
        load = partial(_load, loaded, at, completions(some))
        parts.append(Part(load, (min(o for o, _, _ in some), max(o for o, _, _ in some))))
    bills = Bills(parts)
    for low in range(0, 41, 5):
        offsets = np.arange(low, low + 5)
        bill = bills.of(offsets)
        place, paid = bill.rows_of(offsets)
        got = {
            int(o): float(bill.cost[row]) for o, row, known in zip(offsets, place, paid, strict=True) if known
        }
        assert got == {o: float(sum(wanted[o].values())) for o in offsets.tolist() if o in wanted}
    assert len(loaded) == len(set(loaded))


def _load(loaded: list[int], at: int, table: pa.Table) -> pa.Table:
    loaded.append(at)
    return table
