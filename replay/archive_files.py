"""The files of an archive: each is written under another name and moved, so that none is ever partial.

A folder on disk, or any place that pyarrow has a filesystem for (``s3://...``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

_UNDER_WAY = "_tmp-"
"""What the name of a file begins with until it is whole; readers of Parquet folders skip it."""


class Files:
    """Files below one place, by relative path."""

    def __init__(self, where: str) -> None:
        if "://" in where:
            self.fs, self.root = fs.FileSystem.from_uri(where)
        else:
            self.fs, self.root = fs.LocalFileSystem(), str(Path(where).resolve())

    def path(self, name: str) -> str:
        """Return the path of *name* on the filesystem."""
        return f"{self.root}/{name}"

    def put_table(self, name: str, table: pa.Table) -> None:
        """Write *table* to *name*, replacing what is there."""
        under_way = self._under_way(name)
        self.write_table(under_way, table)
        self.move(under_way, name)

    def put_json(self, name: str, document: Any) -> None:  # noqa: ANN401 - plain values
        """Write *document* to *name*, replacing what is there."""
        self.put_bytes(name, json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode())

    def put_bytes(self, name: str, data: bytes) -> None:
        """Write *data* to *name*, replacing what is there."""
        under_way = self._under_way(name)
        self.write_bytes(under_way, data)
        self.move(under_way, name)

    def _under_way(self, name: str) -> str:
        folder, _, last = name.rpartition("/")
        self.fs.create_dir(self.path(folder) if folder else self.root, recursive=True)
        return f"{folder}/{_UNDER_WAY}{last}" if folder else f"{_UNDER_WAY}{last}"

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write the Parquet file *name*, one row group."""
        with self.fs.open_output_stream(self.path(name)) as out:
            pq.write_table(table, out, row_group_size=max(1, len(table)), compression="zstd")

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write the file *name*."""
        with self.fs.open_output_stream(self.path(name)) as out:
            out.write(data)

    def move(self, name: str, target: str) -> None:
        """Give file *name* its final name."""
        self.fs.move(self.path(name), self.path(target))

    def delete(self, name: str) -> None:
        """Remove file *name*."""
        self.fs.delete_file(self.path(name))

    def names(self, folder: str = "") -> list[str]:
        """Return every file below *folder*, sorted; none if there is no such folder."""
        base = self.path(folder) if folder else self.root
        found = self.fs.get_file_info(fs.FileSelector(base, allow_not_found=True, recursive=True))
        names = (info.path[len(self.root) + 1 :] for info in found if info.type == fs.FileType.File)
        return sorted(names)

    def read_bytes(self, name: str) -> bytes:
        """Return what is in *name*."""
        with self.fs.open_input_stream(self.path(name)) as file:
            data: bytes = file.read()
            return data

    def parquet(self, name: str, dictionaries: list[str]) -> pq.ParquetFile:
        """Open *name*, reading columns *dictionaries* as codes."""
        return pq.ParquetFile(self.fs.open_input_file(self.path(name)), read_dictionary=dictionaries)
