"""How the columns of an archive's Parquet are encoded: what is read back in the least time, by any reader.

Text is few texts many times: a dictionary. Whole numbers are mostly the next ones (offsets, times): their
differences. Ids and fractions hardly ever repeat: a dictionary of them would be given up, after it was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa


def encoding(schema: pa.Schema) -> dict[str, Any]:
    """Return the options with which `pyarrow.parquet` writes a table of *schema*."""
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    whole = [path for path, kind in leaves if pa.types.is_integer(kind) or pa.types.is_timestamp(kind)]
    return {
        "compression": "zstd",
        "use_dictionary": [path for path, kind in leaves if _is_text(kind)],
        "column_encoding": dict.fromkeys(whole, "DELTA_BINARY_PACKED"),
    }


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind.value_type if pa.types.is_dictionary(kind) else kind))


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Yield the columns of a file below *path*, which holds *kind*, and what each holds."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path, kind
