"""The files of an archive, on a disk or on S3: whole or not there, and hidden until they are committed.

A table's file is written under a hidden name, which readers of Parquet folders skip; the commit that
lists it makes it count, and only then is it given its own name. Once its rows are in a merged file it is
set aside, under a name of which such readers know nothing, for those who listed it before. Whoever goes by
commits finds it under any of these.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from replay.archive_encoding import encoding
from replay.archive_place import filesystem_at

_HIDDEN = "_new-"
"""What the name of a table's file begins with until it is committed."""
_UNDER_WAY = "_tmp-"
"""What the name of any other file begins with until it is whole."""
_ASIDE = ".merged"
"""What the name of a table's file that is set aside ends with; it begins as hidden ones do."""
GROUP = 65_536
"""Rows of a row group, at most."""


def hidden(name: str) -> str:
    """Return where the table's file *name* lies until it is committed."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{_HIDDEN}{last}"


def revealed(name: str) -> str:
    """Return *name* as a commit has it; the same for a file that is not hidden."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.removeprefix(_HIDDEN)}"


def aside(name: str) -> str:
    """Return where the table's file *name* lies once it is set aside."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/_{last}{_ASIDE}"


def is_aside(name: str) -> bool:
    """Tell whether *name* is of a file that is set aside."""
    return name.endswith(_ASIDE)


def is_under_way(name: str) -> bool:
    """Tell whether *name* is of a file that was not whole when its writer died."""
    return name.rpartition("/")[2].startswith(_UNDER_WAY)


class TakenAway(FileNotFoundError):
    """A table's file that a commit listed, and that is in the archive no more."""

    def __init__(self, path: str) -> None:
        why = (
            "taken away while the archive was read: retention dropped it, or it was merged longer ago than "
            "merged files are kept (SIGNALBOX_ARCHIVE_MERGED_S); run the command again"
        )
        super().__init__(errno.ENOENT, why, path)


class TableFile:
    """A table's file that stays readable where it gets another name meanwhile: it is opened again then.

    On a disk what is open stays so; an object of S3 is asked for at each read.
    """

    def __init__(self, opened: Callable[[], pq.ParquetFile]) -> None:
        self._open = opened
        self._file = opened()
        self.metadata: Any = self._file.metadata
        self.schema_arrow: pa.Schema = self._file.schema_arrow
        self.num_row_groups: int = self._file.num_row_groups

    def read(self, columns: list[str] | None = None, *, use_threads: bool = True) -> pa.Table:
        """Return all rows; raises `TakenAway`, `OSError`, `ArrowInvalid`."""
        return self._again(lambda: self._file.read(columns=columns, use_threads=use_threads))

    def read_row_group(
        self, number: int, columns: list[str] | None = None, *, use_threads: bool = True
    ) -> pa.Table:
        """Return the rows of a group; raises as `read` does."""
        return self._again(
            lambda: self._file.read_row_group(number, columns=columns, use_threads=use_threads)
        )

    def _again(self, read: Callable[[], pa.Table]) -> pa.Table:
        try:
            return read()
        except OSError:  # what Arrow raises for an object that is gone has no type of its own
            self._file = self._open()
            return read()


class Files:
    """Files below one place, by relative path: a folder, or a URI that pyarrow knows (``s3://...``)."""

    def __init__(self, where: str) -> None:
        """Open *where*; raises `ConfigError` if that cannot be the place of one."""
        self.fs, self.root = filesystem_at(where)
        self.root = self.root.rstrip("/")
        self._local = self.fs.type_name == "local"

    def path(self, name: str) -> str:
        """Return the path of *name* on the filesystem."""
        return f"{self.root}/{name}" if name else self.root

    def put_table(self, name: str, table: pa.Table) -> None:
        """Write *table* for *name*, hidden."""
        out = pa.BufferOutputStream()
        pq.write_table(table, out, row_group_size=GROUP, **encoding(table.schema))
        self.put_hidden(name, memoryview(out.getvalue()))

    def put_hidden(self, name: str, data: bytes | memoryview) -> None:
        """Write *data* for the table's file *name*, hidden."""
        self._folder(name)
        self.write_bytes(hidden(name), data)

    def reveal(self, name: str) -> None:
        """Give the table's file *name* its own name."""
        self.move(hidden(name), name)

    def set_aside(self, name: str) -> None:
        """Hide the table's file *name*, whose rows count elsewhere now, and let its time be this moment."""
        for each in (name, hidden(name)):
            if self.exists(each):
                if self._local:  # elsewhere a new name is a copy, with a time of its own
                    os.utime(self.path(each))
                self.move(each, aside(name))

    def put_json(self, name: str, document: Any) -> None:  # noqa: ANN401 - plain values
        """Write *document* to *name*, replacing what is there."""
        self.put_bytes(name, json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode())

    def put_bytes(self, name: str, data: bytes) -> None:
        """Write *data* to *name*, replacing what is there."""
        folder, _, last = name.rpartition("/")
        under_way = f"{folder}/{_UNDER_WAY}{last}" if folder else f"{_UNDER_WAY}{last}"
        self._folder(name)
        self.write_bytes(under_way, data)
        self.move(under_way, name)

    def _folder(self, name: str) -> None:
        if self._local:  # elsewhere a folder is no more than a part of the name
            self.fs.create_dir(self.path(name.rpartition("/")[0]), recursive=True)

    def write_bytes(self, name: str, data: bytes | memoryview) -> None:
        """Write the file *name*; on a disk it outlasts a loss of power."""
        if self._local:
            with Path(self.path(name)).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            return
        with self.fs.open_output_stream(self.path(name)) as out:
            out.write(data)

    def move(self, name: str, target: str) -> None:
        """Give file *name* another name, replacing what has it."""
        if self._local:
            Path(self.path(name)).replace(self.path(target))
            folder = os.open(Path(self.path(target)).parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            return
        self.fs.move(self.path(name), self.path(target))

    def delete(self, name: str) -> None:
        """Remove file *name*."""
        self.fs.delete_file(self.path(name))

    def exists(self, name: str) -> bool:
        """Tell whether there is a file *name*."""
        return bool(self.fs.get_file_info(self.path(name)).type == fs.FileType.File)

    def names(self, folder: str = "") -> list[str]:
        """Return every file below *folder*, sorted; none if there is no such folder."""
        return sorted(self.ages(folder))

    def ages(self, folder: str = "") -> dict[str, float]:
        """Return every file below *folder*, and when each was written (seconds since the epoch)."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True, recursive=True)
        found = [info for info in self.fs.get_file_info(selector) if info.type == fs.FileType.File]
        return {info.path[len(self.root) + 1 :]: (info.mtime_ns or 0) / 1e9 for info in found}

    def read_bytes(self, name: str) -> bytes:
        """Return what is in *name*."""
        with self.fs.open_input_stream(self.path(name)) as file:
            data: bytes = file.read()
            return data

    def parquet(self, name: str, dictionaries: list[str]) -> TableFile:
        """Open the table's file *name* that a commit lists, reading columns *dictionaries* as codes.

        Raises `TakenAway` if it is not there any more.
        """

        def opened() -> pq.ParquetFile:
            return pq.ParquetFile(self._found(name), read_dictionary=dictionaries)

        return TableFile(opened)

    def _found(self, name: str) -> Any:  # noqa: ANN401 - a file of Arrow
        # In the order in which it gets these names; its own twice, since it may get it just now.
        for each in (name, hidden(name), name, aside(name)):
            with suppress(FileNotFoundError):
                return self.fs.open_input_file(self.path(each))
        raise TakenAway(self.path(name))
