"""How an archive is encoded: every column of every table by what it holds, and read back the same."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from replay.archive_encoding import encoding
from replay.archive_files import Files, hidden
from replay.archive_rows import KINDS, schema_of

VALUES: dict[str, Any] = {
    "string": "text",
    "int64": -7,
    "int32": 7,
    "double": 0.5,
    "bool": True,
    "binary": b"any",
    "fixed_size_binary[16]": b"x" * 16,
    "timestamp[ms, tz=UTC]": datetime(2026, 1, 1, tzinfo=UTC),
}


def some(kind: pa.DataType) -> Any:
    """Return a value of *kind* that leaves nothing out."""
    if pa.types.is_struct(kind):
        return {field.name: some(field.type) for field in kind}
    return [some(kind.value_type)] * 2 if pa.types.is_list(kind) else VALUES[str(kind)]


@pytest.mark.parametrize("bodies", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_column_is_encoded_by_what_it_holds(tmp_path: Path, kind: str, *, bodies: bool) -> None:
    """Text has a dictionary, whole numbers are differences, nothing else has either; rows come back equal."""
    schema = schema_of(kind, bodies=bodies)
    table = pa.Table.from_pylist([{field.name: some(field.type) for field in schema}] * 3, schema=schema)
    files = Files(str(tmp_path))
    files.put_table("folder/t.parquet", table)
    file = pq.ParquetFile(files.path(hidden("folder/t.parquet")))
    group = file.metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    text = {c.path_in_schema for c in columns if c.physical_type == "BYTE_ARRAY" and c.has_dictionary_page}
    whole = {c.path_in_schema for c in columns if "DELTA_BINARY_PACKED" in c.encodings}

    assert file.read().equals(table)
    assert text == set(encoding(schema)["use_dictionary"])
    assert whole == {c.path_in_schema for c in columns if c.physical_type in {"INT32", "INT64"}}
    assert {c.path_in_schema for c in columns if c.has_dictionary_page} == text
    assert {c.compression for c in columns} == {"ZSTD"}
