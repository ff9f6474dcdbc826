"""Decisions are made again from an archive as from the log that it was made of: the same answer."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import signalbox
from agents.decision import failed
from agents.dispatch import DEAD_LETTERED, TAKEN_BACK
from agents.errors import InvalidRecord
from replay.archive import Source, archive
from replay.archive_care import Retention, compact, retain
from replay.archive_commits import commits_in, put_commit
from replay.archive_files import Files
from replay.archived_cases import archived_evidence
from replay.decide import Evidence, Report, decide_again
from replay.view import LogView, MemoryLog
from schemas.codec import Codec, committed
from schemas.decision import Decision, DecisionMeta, Input
from tests.histories.test_histories import PACKED, unpacked
from tests.replay.logs import PARTITIONS, START, LogBuilder, kept
from tests.replay.test_decide import _OlderCodec, _without_depths

DAY_S = 86_400
UNREADABLE = "it could not be read when it was archived"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: no power is lost here."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def eventful() -> LogBuilder:
    """Return a log of two tenants with all that may befall a decision."""
    builder, codec = LogBuilder(), Codec()
    for number in range(120):
        builder.decided(number)
    for failure in (DEAD_LETTERED, TAKEN_BACK):
        request, origin = builder.request(1)
        core = failed(request.policy_hash, request.recipe, failure)
        meta = DecisionMeta((), 0, 0)
        builder.append("decisions", 1, Decision(request.request_id, origin, core, meta), request.request_id)
    request, origin = builder.request(6, model="tiny")
    builder.decision(request, origin, [], [])
    builder.decision(request, origin, [], [Input("heuristics", 0)])  # of somebody else
    builder.append("decisions", 3, b"\x00\x00\x00\x00\x03 not ours")
    for at, envelope in enumerate(builder.envelopes):
        if envelope.topic == "requests" and at % 3:
            request = replace(codec.decode(envelope.value), tenant="other / one")
            builder.envelopes[at] = replace(envelope, value=codec.encode(request))
    return builder


def archived(view: LogView, where: Path, chunk: int = 16) -> Files:
    """Archive *view* at *where*."""
    files = Files(str(where))
    archive(Source(view, "cluster-1", "signalbox"), files, chunk=chunk)
    return files


def answer(log: LogView | Evidence, decider: str = "agents.decision:decide") -> Report:
    """Return what comes of deciding again, in this process only."""
    return decide_again(log, decider=decider, seeds=())


@pytest.mark.parametrize("shape", ["small", "whole", "merged"])
def test_an_archive_gives_the_answer_of_its_log(tmp_path: Path, shape: str) -> None:
    """Given up, taken back, by name, without signals, unreadable, of two tenants, however it is stored."""
    builder = eventful()
    view = MemoryLog(builder.envelopes, builder.policies)
    files = archived(view, tmp_path, chunk=512 if shape == "whole" else 16)
    if shape == "merged":
        assert sum(compact(files, ("decisions", p), fan=2) for p in range(PARTITIONS)) > 0
    was, found = answer(view), answer(archived_evidence(str(tmp_path)))
    places = [
        [(c.partition, c.offset) for c in e.cases]
        for e in (Evidence.of(view), archived_evidence(str(tmp_path)))
    ]

    assert found == was
    assert places[0] == places[1]
    assert (was.decisions, was.reproduced, was.missing_inputs, was.unreadable) == (125, 123, 1, 1)
    assert len({f.folder for c in commits_in(files, ("decisions", 0)) for f in c.files}) == 2


def test_what_two_writers_wrote_is_decided_once(tmp_path: Path) -> None:
    """Where commits overlap, of decisions, of signals and of what was unreadable, the answer is the same."""
    builder = eventful()
    view = MemoryLog(builder.envelopes, builder.policies)
    files, late = archived(view, tmp_path / "a"), archived(view, tmp_path / "b", chunk=23)
    for commit in commits_in(late):
        for stored in commit.files:
            files.put_hidden(stored.name, late.read_bytes(stored.name))
        put_commit(files, commit)
    overlaps = {commit.topic.split(".")[0] for commit in commits_in(files) if commit.skip}

    assert overlaps >= {"decisions", "signals"}
    assert answer(archived_evidence(str(tmp_path / "a"))) == answer(view)


@pytest.mark.parametrize("packed", PACKED, ids=lambda path: path.name)
def test_archived_histories_are_reproduced_whole(packed: Path, tmp_path: Path) -> None:
    """What earlier engines decided, in an archive, is what their logs are."""
    log = unpacked(packed, tmp_path)
    archived(log, tmp_path / "archive")
    found = answer(archived_evidence(str(tmp_path / "archive")))

    assert found.complete
    assert found == answer(log)


@pytest.mark.parametrize("fault", ["draw", "arrival_order", "float_arrival"])
def test_the_first_difference_is_the_same(tmp_path: Path, fault: str) -> None:
    """What comes out otherwise is noticed, and the error names the same decision, field and inputs."""
    decider = f"tests.replay.planted:{fault}"
    builder = eventful()
    view = MemoryLog(builder.envelopes, builder.policies)
    archived(view, tmp_path)
    was, found = answer(view, decider), answer(archived_evidence(str(tmp_path)), decider)
    assert was.first_difference is not None
    assert found.first_difference is not None

    assert found.changed == was.changed > 10
    assert replace(found.first_difference, now="") == replace(was.first_difference, now="")


def test_cores_are_compared_under_the_schema_that_logged_them(tmp_path: Path) -> None:
    """A field that the log's schema did not have cannot count as a difference there either."""
    builder = LogBuilder(codec=_OlderCodec())
    for number in range(20):
        builder.decided(number)
    schemas = {**committed(), 3: _without_depths()}
    archived(MemoryLog(builder.envelopes, builder.policies, schemas), tmp_path)
    report = answer(archived_evidence(str(tmp_path)), "tests.replay.planted:depths")

    assert (report.reproduced, report.changed) == (20, 0)


def test_a_stretch_of_time_is_the_same(tmp_path: Path) -> None:
    """The commands print the same JSON and exit alike for kept log and archive, with and without a span."""
    builder = LogBuilder()
    for number in range(40):
        builder.decided(number)
    kept(str(tmp_path / "kept"), builder.envelopes, builder.policies)
    archived(MemoryLog(builder.envelopes, builder.policies), tmp_path / "archive")
    times = sorted(e.timestamp for e in builder.envelopes if e.topic == "decisions")
    for span in ([], ["--since", str(times[5]), "--until", str(times[15])]):
        command = ["replay", "decide", "--json", *span, "--log"]
        ways = [CliRunner().invoke(signalbox.app, [*command, str(tmp_path / n)]) for n in ("kept", "archive")]

        assert [way.exit_code for way in ways] == [0, 0]
        assert ways[0].stdout == ways[1].stdout
        assert orjson.loads(ways[1].stdout)["reproduced"] == (10 if span else 40)


def test_signals_that_were_dropped_are_missed_and_told(tmp_path: Path) -> None:
    """Decisions that outlive their signals are not proved: the exit is 4, and it is said what is gone."""
    builder = LogBuilder()
    for number in range(8):
        builder.decided(number)
    files = archived(MemoryLog(builder.envelopes, builder.policies), tmp_path)
    retain(files, Retention.of({"signals": 1}, "a file"), START / 1000 + 9 * DAY_S)
    run = CliRunner().invoke
    as_json = run(signalbox.app, ["replay", "decide", "--log", str(tmp_path), "--json"])
    plain = run(signalbox.app, ["replay", "decide", "--log", str(tmp_path)])
    told = orjson.loads(as_json.stdout)

    assert (as_json.exit_code, plain.exit_code) == (4, 4)
    assert (told["decisions"], told["missing_inputs"]) == (8, 8)
    assert told["dropped"]["signals"]["rows"] == 16
    assert "dropped by age: 16 signals of 2026-09-21 to 2026-09-21" in plain.stdout


def _without_a_field(data: bytes) -> bytes:
    """Return the Parquet file *data* as if a build had written it whose decisions had no `meta` yet."""
    out = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(data)).drop_columns(["meta"]), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "why"),
    [(_without_a_field, "lacks fields that this build reads"), (lambda data: data[:-9], "damaged")],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, change: Callable[[bytes], bytes], why: str
) -> None:
    """Nothing is made of half a record: the error tells what to do, and the exit is 2."""
    builder = LogBuilder()
    builder.decided(0)
    files = archived(MemoryLog(builder.envelopes, builder.policies), tmp_path)
    (stored,) = commits_in(files, ("decisions", 0))[0].files
    files.write_bytes(stored.name, change(files.read_bytes(stored.name)))
    result = CliRunner().invoke(signalbox.app, ["replay", "decide", "--log", str(tmp_path)])

    assert result.exit_code == 2
    assert why in result.stderr
    with pytest.raises(InvalidRecord, match=why):
        answer(archived_evidence(str(tmp_path)))


def test_what_could_not_be_read_counts_in_every_stretch_of_time(tmp_path: Path) -> None:
    """Its time is not archived, so no stretch is called complete beside it; the error says where it is."""
    builder = eventful()
    archived(MemoryLog(builder.envelopes, builder.policies), tmp_path)
    command = ["replay", "decide", "--log", str(tmp_path), "--until", str(START + 100), "--json"]
    result = CliRunner().invoke(signalbox.app, command)
    told = orjson.loads(result.stdout)

    assert result.exit_code == 4
    assert told["unreadable"] == 1
    assert told["first_missing"].startswith("decisions, partition 3, offset")
    assert told["first_missing"].endswith(UNREADABLE)
