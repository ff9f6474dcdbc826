"""The log on disk, written and read: `DIR/<full topic name>/<partition>.avro` and `manifest.json`.

Topics go by their logical names here; folders and the manifest carry full names. A log is written
beside its place and moved there when it is complete, so that a directory with a manifest is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import fastavro
import fastavro.write
from fastavro.schema import parse_schema, to_parsing_canonical_form

from schemas.claims import FOLDER as CLAIMS
from schemas.codec import SchemaEntry, committed
from schemas.envelope import ENVELOPE_SCHEMA, Envelope
from schemas.topics import full_name, logged_name

MANIFEST = "manifest.json"
_ENVELOPES = fastavro.parse_schema(ENVELOPE_SCHEMA)
_BLOCK_BYTES = 64 * 1024
_SPILL_BYTES = 256 * 1024


class LogDirError(Exception):
    """A log on disk cannot be read or written; the message says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a log says of itself: topics are logical names with their number of partitions.

    `folders` says where each topic lies: the name that it had, with the major version of its time.
    """

    cluster_id: str
    prefix: str
    folders: Mapping[str, str]
    topics: Mapping[str, int]
    records: Mapping[str, Mapping[int, int]]
    schemas: Mapping[int, SchemaEntry]
    policies: Mapping[str, str]


class _PartitionFile:
    """One partition's container, kept closed between spills, so that any number may be open."""

    def __init__(self, path: Path, codec: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._buffer = BytesIO()
        self._writer = fastavro.write.Writer(
            self._buffer, _ENVELOPES, codec=codec, sync_interval=_BLOCK_BYTES
        )
        self.last = -1
        self.records = 0

    def append(self, envelope: Envelope) -> None:
        if envelope.offset <= self.last:
            message = f"offset {envelope.offset} after {self.last} in {self._path}: offsets must ascend"
            raise LogDirError(message)
        headers = [{"key": key, "value": value} for key, value in envelope.headers]
        self._writer.write(
            {
                "offset": envelope.offset,
                "timestamp": envelope.timestamp,
                "key": envelope.key,
                "headers": headers,
                "value": envelope.value,
            }
        )
        self.last = envelope.offset
        self.records += 1
        if self._buffer.tell() >= _SPILL_BYTES:
            self._spill()

    def _spill(self) -> None:
        with self._path.open("ab") as file:
            file.write(self._buffer.getvalue())
        self._buffer.seek(0)
        self._buffer.truncate()

    def close(self) -> None:
        self._writer.flush()
        self._spill()


class LogWriter:
    """A log in the making. Nothing shows at *directory* until `close`; leave a ``with`` to abort.

    Raises `LogDirError` if *directory* holds anything but a log of ours, which `close` replaces.
    """

    def __init__(self, directory: Path | str, cluster_id: str, prefix: str, codec: str = "deflate") -> None:
        self._target = Path(directory).resolve()
        _refuse_foreign(self._target)
        self._cluster_id = cluster_id
        self._prefix = prefix
        self._codec = codec
        self._partitions: dict[str, int] = {}
        self._files: dict[tuple[str, int], _PartitionFile] = {}
        self._claims = 0
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f".{self._target.name}.", dir=self._target.parent))

    def declare(self, topic: str, partitions: int) -> None:
        """State how many partitions logical *topic* has, though some may hold no record."""
        self._partitions[topic] = max(partitions, self._partitions.get(topic, 0))

    def append(self, envelope: Envelope) -> None:
        """Add *envelope*; topics in any order, offsets ascending within a partition."""
        place = (envelope.topic, envelope.partition)
        file = self._files.get(place)
        if file is None:
            path = self._folder / full_name(self._prefix, envelope.topic) / f"{envelope.partition}.avro"
            file = self._files[place] = _PartitionFile(path, self._codec)
            self.declare(envelope.topic, envelope.partition + 1)
        file.append(envelope)

    def keep(self, reference: str, data: bytes) -> None:
        """Keep the bytes that a record claims under *reference*, which is one of ours."""
        path = self._folder / CLAIMS / reference
        path.parent.mkdir(parents=True, exist_ok=True)
        self._claims += not path.exists()
        path.write_bytes(data)

    def close(self, policies: Mapping[str, str]) -> None:
        """Write the manifest with *policies* (hash to normal form) and move the log to its place."""
        for file in self._files.values():
            file.close()
        text = json.dumps(self._manifest(policies), indent=2, ensure_ascii=False) + "\n"
        with (self._folder / MANIFEST).open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        # mkdtemp makes folders that only their owner may enter; a log is an ordinary folder.
        self._folder.chmod(0o755)
        _refuse_foreign(self._target)
        replaced = self._folder.with_name(self._folder.name + ".replaced")
        if self._target.exists():
            self._target.rename(replaced)
        try:
            self._folder.rename(self._target)
        except OSError:
            if replaced.exists():
                replaced.rename(self._target)
            raise
        shutil.rmtree(replaced, ignore_errors=True)

    def abort(self) -> None:
        """Remove what was written so far; what is at the directory stays as it was."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abort, unless the log was closed."""
        self.abort()

    def _manifest(self, policies: Mapping[str, str]) -> dict[str, Any]:
        topics: dict[str, Any] = {}
        for topic, partitions in sorted(self._partitions.items()):
            counts = {str(p): file.records for (t, p), file in sorted(self._files.items()) if t == topic}
            topics[full_name(self._prefix, topic)] = {"partitions": partitions, "records": counts}
        schemas = {str(e.schema_id): _schema_row(e) for e in committed().values()}
        return {
            "cluster_id": self._cluster_id,
            "prefix": self._prefix,
            "topics": topics,
            "schemas": schemas,
            "policies": dict(policies),
            "claims": self._claims,
        }


class LogDir:
    """A log on disk, opened for reading. Raises `LogDirError` if there is none at *directory*."""

    def __init__(self, directory: Path | str) -> None:
        self._folder = Path(directory)
        self.manifest = _read_manifest(self._folder)

    def topics(self) -> Mapping[str, int]:
        """Return the number of partitions of each topic, by logical name."""
        return self.manifest.topics

    def schemas(self) -> Mapping[int, SchemaEntry]:
        """Return the schemas that the log was written with, by id."""
        return self.manifest.schemas

    def policies(self) -> Mapping[str, str]:
        """Return the normal form of every policy that decided in this log, by hash."""
        return self.manifest.policies

    def read(self, topic: str, partition: int | None = None) -> Iterator[Envelope]:
        """Yield the records of logical *topic* in offset order, one partition after another.

        Holds one block at a time. Raises `LogDirError` for a topic or partition that the log does
        not have, and for a file that is missing, truncated or corrupt.
        """
        partitions = self.manifest.topics.get(topic)
        if partitions is None:
            known = ", ".join(sorted(self.manifest.topics)) or "none"
            message = f"{self._folder}: the log has no topic {topic!r}; it has: {known}"
            raise LogDirError(message)
        if partition is not None and not 0 <= partition < partitions:
            message = f"{self._folder}: {topic} has partitions 0 to {partitions - 1}, not {partition}"
            raise LogDirError(message)
        for number in range(partitions) if partition is None else (partition,):
            yield from self._partition(topic, number)

    def _partition(self, topic: str, partition: int) -> Iterator[Envelope]:
        path = self._folder / self.manifest.folders[topic] / f"{partition}.avro"
        promised = self.manifest.records[topic].get(partition)
        if not path.exists():
            if promised:
                message = f"{path}: missing, though the manifest counts {promised} records; {_AGAIN}"
                raise LogDirError(message)
            return
        count = 0
        for row, headers in _rows(path):
            count += 1
            yield Envelope(
                topic, partition, row["offset"], row["timestamp"], row["key"], row["value"], headers
            )
        if promised is not None and count != promised:
            message = f"{path}: {count} records, but the manifest counts {promised}; {_AGAIN}"
            raise LogDirError(message)


_ENVELOPE = to_parsing_canonical_form(parse_schema(ENVELOPE_SCHEMA))
_AGAIN = "copy the log again, or keep it again with --keep-log"


def _rows(path: Path) -> Iterator[tuple[Any, tuple[tuple[str, bytes], ...]]]:
    try:
        with path.open("rb") as file:
            reader = fastavro.reader(file)
            _refuse_other_records(path, reader.writer_schema)
            for row in reader:
                yield row, tuple((h["key"], h["value"]) for h in cast("Any", row)["headers"])
    except LogDirError:
        raise
    except Exception as error:
        # Whatever a damaged container makes the library raise, it means the same here.
        message = f"{path}: truncated or corrupt ({type(error).__name__}); {_AGAIN}"
        raise LogDirError(message) from error


def _refuse_other_records(path: Path, schema: Any) -> None:
    """Refuse records of another shape; damage may have renamed a field."""
    if to_parsing_canonical_form(parse_schema(schema)) != _ENVELOPE:
        message = f"{path}: an Avro file, but not one of envelopes; {_AGAIN}"
        raise LogDirError(message)


def _schema_row(entry: SchemaEntry) -> dict[str, str]:
    return {"fingerprint": entry.fingerprint, "schema": entry.text}


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        message = f"{folder}: not a log, it has no {MANIFEST}; give a directory that --keep-log wrote"
        raise LogDirError(message) from None
    except (OSError, ValueError) as error:
        message = f"{path}: unreadable ({type(error).__name__}); {_AGAIN}"
        raise LogDirError(message) from None
    try:
        return _manifest_of(document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"{path}: not the manifest of a log ({type(error).__name__}: {error}); {_AGAIN}"
        raise LogDirError(message) from None


def _manifest_of(document: dict[str, Any]) -> Manifest:
    prefix = document["prefix"]
    folders = {logged_name(prefix, full): full for full in document["topics"]}
    rows = {topic: document["topics"][full] for topic, full in folders.items()}
    return Manifest(
        cluster_id=document["cluster_id"],
        prefix=prefix,
        folders=folders,
        topics={topic: int(row["partitions"]) for topic, row in rows.items()},
        records={t: {int(p): int(n) for p, n in row.get("records", {}).items()} for t, row in rows.items()},
        schemas={int(key): _entry(int(key), row) for key, row in document["schemas"].items()},
        policies=dict(document["policies"]),
    )


def _entry(schema_id: int, row: dict[str, Any]) -> SchemaEntry:
    text = row["schema"] if isinstance(row["schema"], str) else json.dumps(row["schema"])
    return SchemaEntry(schema_id, json.loads(text)["name"], row["fingerprint"], text)


def _refuse_foreign(target: Path) -> None:
    """Raise `LogDirError` if replacing *target* would destroy anything that is not a log of ours."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        document = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        _manifest_of(document)
        ours = {MANIFEST, *document["topics"], *([CLAIMS] if document.get("claims") else [])}
        foreign = sorted({entry.name for entry in target.iterdir()} - ours)
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        message = f"{target}: exists and is no log of ours; give an empty or a new directory"
        raise LogDirError(message) from None
    if foreign:
        message = f"{target}: holds {foreign[0]!r} besides a log; move it away or give another directory"
        raise LogDirError(message)
