"""The log on disk keeps every record, is written whole or not at all, and says when it is damaged."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

import avro.datafile
import avro.io
import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.codec import committed
from schemas.envelope import Envelope
from schemas.logdir import LogDir, LogDirError, LogWriter

POLICIES = {"ab" * 32: '{"version":"v0.3"}'}


def _envelope(offset: int, topic: str = "requests", partition: int = 0) -> Envelope:
    value = f"value {offset}".encode() * 50
    return Envelope(topic, partition, offset, 1_000 + offset, b"key", value, (("ce_id", b"1"),))


def _written(folder: Path, envelopes: Iterable[Envelope], codec: str = "deflate") -> LogDir:
    with LogWriter(folder, "cluster-1", "signalbox", codec) as writer:
        for envelope in envelopes:
            writer.append(envelope)
        writer.close(POLICIES)
    return LogDir(folder)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["requests", "signals.heuristics", "dead-letters"]),
            st.integers(0, 3),
            st.none() | st.binary(max_size=20),
            st.none() | st.binary(max_size=50),
            st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2).map(tuple),
        ),
        max_size=30,
    ),
    st.sampled_from(["deflate", "null"]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_appended_is_read_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]],
    codec: str,
) -> None:
    """Every envelope comes back unchanged, partition by partition in offset order, gaps included."""
    envelopes = [
        Envelope(topic, partition, 3 * at, at, key, value, headers)
        for at, (topic, partition, key, value, headers) in enumerate(rows)
    ]
    log = _written(tmp_path_factory.mktemp("log") / "log", envelopes, codec)

    for topic, partitions in log.topics().items():
        for partition in range(partitions):
            wanted = [e for e in envelopes if (e.topic, e.partition) == (topic, partition)]
            assert list(log.read(topic, partition)) == wanted
        assert len(list(log.read(topic))) == sum(e.topic == topic for e in envelopes)


def test_the_manifest_has_the_agreed_shape(tmp_path: Path) -> None:
    """Other programs read cluster id, topics by full name, schemas by id and policies by hash."""
    with LogWriter(tmp_path / "log", "cluster-1", "signalbox") as writer:
        writer.declare("decisions", 4)
        writer.append(_envelope(0))
        writer.close(POLICIES)
    manifest = json.loads((tmp_path / "log" / "manifest.json").read_text())

    assert manifest["cluster_id"] == "cluster-1"
    assert manifest["prefix"] == "signalbox"
    assert manifest["topics"]["signalbox.requests.v1"]["partitions"] == 1
    assert manifest["topics"]["signalbox.decisions.v1"]["partitions"] == 4
    assert manifest["policies"] == POLICIES
    assert manifest["schemas"]["3"] == {
        "fingerprint": committed()[3].fingerprint,
        "schema": committed()[3].text,
    }
    assert (tmp_path / "log" / "signalbox.requests.v1" / "0.avro").is_file()


def test_plain_avro_reads_the_files(tmp_path: Path) -> None:
    """The reference library alone reads the envelopes, with the agreed fields."""
    _written(tmp_path / "log", [_envelope(7)])
    path = tmp_path / "log" / "signalbox.requests.v1" / "0.avro"
    with path.open("rb") as file:
        (row,) = list(avro.datafile.DataFileReader(file, avro.io.DatumReader()))

    assert row == {
        "offset": 7,
        "timestamp": 1_007,
        "key": b"key",
        "headers": [{"key": "ce_id", "value": b"1"}],
        "value": b"value 7" * 50,
    }


def test_the_manifest_gives_back_the_schemas_and_policies(tmp_path: Path) -> None:
    """A reader has the writer's schemas though its own may be newer by then."""
    log = _written(tmp_path / "log", [])

    assert log.schemas() == committed()
    assert log.policies() == POLICIES
    assert log.manifest.cluster_id == "cluster-1"


def test_an_empty_partition_needs_no_file(tmp_path: Path) -> None:
    """A declared partition without records reads as empty."""
    log = _written(tmp_path / "log", [_envelope(0, partition=2)])

    assert list(log.read("requests", 0)) == []
    assert [e.partition for e in log.read("requests")] == [2]


def test_offsets_must_ascend(tmp_path: Path) -> None:
    """A repeated offset is refused, since a log could then not be trusted."""
    with LogWriter(tmp_path / "log", "c", "signalbox") as writer:
        writer.append(_envelope(4))
        with pytest.raises(LogDirError, match="offsets must ascend"):
            writer.append(_envelope(4))


def test_an_aborted_log_leaves_nothing(tmp_path: Path) -> None:
    """A writer that is left without close removes what it wrote, and keeps what was there."""
    _written(tmp_path / "log", [_envelope(0)])
    with LogWriter(tmp_path / "log", "other", "signalbox") as writer:
        writer.append(_envelope(0))

    assert LogDir(tmp_path / "log").manifest.cluster_id == "cluster-1"
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_log_of_ours_is_replaced_whole(tmp_path: Path) -> None:
    """Keeping a log where one was leaves only the new one."""
    _written(tmp_path / "log", [_envelope(0), _envelope(0, "decisions")])
    log = _written(tmp_path / "log", [_envelope(9)])

    assert set(log.topics()) == {"requests"}
    assert [e.offset for e in log.read("requests")] == [9]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    """A directory that was made beforehand will do."""
    (tmp_path / "log").mkdir()

    assert _written(tmp_path / "log", [_envelope(0)]).topics() == {"requests": 1}


@pytest.mark.parametrize("manifest", [None, "not json", "[]", "{}", '{"topics": {}, "schemas": {}}'])
def test_a_foreign_directory_is_refused(tmp_path: Path, manifest: str | None) -> None:
    """Nobody's files are replaced by a log."""
    (tmp_path / "thesis.txt").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)

    with pytest.raises(LogDirError, match="no log of ours"):
        LogWriter(tmp_path, "c", "signalbox")
    assert (tmp_path / "thesis.txt").exists()


def test_a_file_that_someone_put_beside_a_log_is_not_lost(tmp_path: Path) -> None:
    """A log is not replaced while anything else lives in its directory."""
    _written(tmp_path / "log", [_envelope(0)])
    (tmp_path / "log" / "notes.txt").write_text("mine")

    with pytest.raises(LogDirError, match=r"notes\.txt"):
        LogWriter(tmp_path / "log", "c", "signalbox")


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """Writing a log over a file is refused, reading one from it too."""
    (tmp_path / "log").write_text("a file")

    with pytest.raises(LogDirError):
        LogWriter(tmp_path / "log", "c", "signalbox")
    with pytest.raises(LogDirError, match="not a log"):
        LogDir(tmp_path / "log")


def test_no_log_is_said_to_be_none(tmp_path: Path) -> None:
    """A directory that does not exist, or has no manifest, is not a log."""
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(LogDirError, match=r"no manifest\.json"):
            LogDir(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"cluster_id": "c", "prefix": "p", "topics": {"x": {}}}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    """What is wrong, where, and what to do about it."""
    (tmp_path / "manifest.json").write_text(text)

    with pytest.raises(LogDirError, match=r"manifest\.json.*--keep-log"):
        LogDir(tmp_path)


def test_an_unknown_topic_or_partition_is_named(tmp_path: Path) -> None:
    """The message lists what the log does have."""
    log = _written(tmp_path / "log", [_envelope(0)])

    with pytest.raises(LogDirError, match="no topic 'nonsense'; it has: requests"):
        list(log.read("nonsense"))
    with pytest.raises(LogDirError, match="partitions 0 to 0, not 5"):
        list(log.read("requests", 5))


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    """A partition that the manifest counts records for cannot be absent."""
    log = _written(tmp_path / "log", [_envelope(0), _envelope(1)])
    (tmp_path / "log" / "signalbox.requests.v1" / "0.avro").unlink()

    with pytest.raises(LogDirError, match="missing, though the manifest counts 2 records"):
        list(log.read("requests"))


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@example(where=0.12890625, flip=1)  # renames a field of the headers
@settings(max_examples=80, deadline=None)
def test_damage_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, where: float, flip: int
) -> None:
    """A flipped byte or a cut anywhere raises `LogDirError`, or is in what deflate does not check."""
    folder = tmp_path_factory.mktemp("log") / "log"
    log = _written(folder, [_envelope(n) for n in range(300)])
    path = folder / "signalbox.requests.v1" / "0.avro"
    whole = path.read_bytes()
    at = int(where * len(whole))

    path.write_bytes(whole[:at])
    with pytest.raises(LogDirError):
        list(log.read("requests"))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    with contextlib.suppress(LogDirError):
        assert len(list(log.read("requests"))) == 300


def test_a_container_of_something_else_is_refused(tmp_path: Path) -> None:
    """An Avro file that is not of envelopes is named as such."""
    log = _written(tmp_path / "log", [_envelope(0)])
    with (tmp_path / "log" / "signalbox.requests.v1" / "0.avro").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Other", "fields": []}, [{}])

    with pytest.raises(LogDirError, match="not one of envelopes"):
        list(log.read("requests"))


def test_a_large_partition_is_neither_written_nor_read_from_memory(tmp_path: Path) -> None:
    """Records reach the disk while more are appended, and reading gives the first before the last."""
    with LogWriter(tmp_path / "log", "c", "signalbox", "null") as writer:
        for offset in range(5_000):
            writer.append(_envelope(offset))
        spilled = sum(path.stat().st_size for path in tmp_path.rglob("*.avro"))
        writer.close({})

    assert spilled > 1_000_000
    assert next(LogDir(tmp_path / "log").read("requests")).offset == 0
