"""Where large bodies are kept: the port `ClaimStore`, a folder behind it, and a fake in memory.

What `put` returned from is durable. References are checked before they become a path.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from agents.errors import ConfigError, InvalidRecord, StoreFull, Unavailable
from schemas.claims import is_reference

RESERVE_BYTES = 64 * 1024 * 1024
P = ParamSpec("P")
T = TypeVar("T")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_PART = ".part"
_TOO_OLD_S = 3600.0


@dataclass(frozen=True, slots=True)
class Stored:
    """Something that a store holds; *modified* is when it was put, in ms since the epoch."""

    reference: str
    size: int
    modified: int


class ClaimStore(Protocol):
    """Bytes by reference."""

    name: str

    async def put(self, reference: str, data: bytes) -> None:
        """Keep *data* durably; raises `StoreFull`, with nothing kept, or `Unavailable`."""
        ...

    async def get(self, reference: str, limit: int) -> bytes:
        """Return what is kept; raises `InvalidRecord` if nothing is, or more than *limit* bytes are.

        Raises `Unavailable` if the store does not answer.
        """
        ...

    async def delete(self, reference: str) -> None:
        """Drop what is kept; nothing happens if nothing is. Raises `Unavailable`."""
        ...

    def stored(self) -> AsyncIterator[Stored]:
        """Iterate over what the store holds; raises `Unavailable`."""
        ...

    async def check(self) -> None:
        """Write, read and delete something of its own; raises `Unavailable` or `StoreFull`."""
        ...


async def probe(store: ClaimStore) -> None:
    """Put, get and delete a few bytes; raises `Unavailable` or `StoreFull`."""
    reference = f"00/{'0' * 32}-00{secrets.token_hex(15)}"
    await store.put(reference, b"signalbox")
    try:
        if await store.get(reference, 64) != b"signalbox":
            raise Unavailable(f"the claim store {store.name} gave out other bytes than it was given")
    finally:
        await store.delete(reference)


def checked(reference: str) -> str:
    """Return *reference*, which is ours; raises `InvalidRecord` for one that could lead elsewhere."""
    if not is_reference(reference):
        raise InvalidRecord("a claim does not have the form of a reference of ours")
    return reference


def missing(store: ClaimStore, reference: str) -> InvalidRecord:
    """Return the error for a claim whose bytes are gone."""
    return InvalidRecord(f"claim {reference} is not in the claim store {store.name}: it was deleted or moved")


def too_large(reference: str, limit: int) -> InvalidRecord:
    """Return the error for a claim of more bytes than its record says."""
    return InvalidRecord(f"claim {reference} holds more than the {limit} bytes that its record says")


Free = Callable[[Path], int]
"""Return how many bytes may still be written below a folder."""


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that *folder* is on."""
    return shutil.disk_usage(folder).free


class FileClaims:
    """A folder, one file a claim; written beside its place, synced, and moved there when it is whole.

    Refuses what would leave less than *reserve* bytes free, so that a full disk stops admission
    before it stops whatever else lives on the disk.
    """

    def __init__(self, root: Path, *, reserve: int = RESERVE_BYTES, free: Free = free_bytes) -> None:
        self.name = str(root)
        self._root = root
        self._reserve = reserve
        self._free = free

    async def put(self, reference: str, data: bytes) -> None:
        """Write, sync, move into place, sync the folder."""
        await self._run(self._put, checked(reference), data)

    async def get(self, reference: str, limit: int) -> bytes:
        """Read the file."""
        return await self._run(self._get, checked(reference), limit)

    async def delete(self, reference: str) -> None:
        """Remove the file."""
        await self._run(self._delete, checked(reference))

    async def stored(self) -> AsyncIterator[Stored]:
        """Walk the folder, one of its parts after the other."""
        for part in await self._run(self._parts):
            for found in await self._run(self._listed, part):
                yield found

    async def check(self) -> None:
        """Keep and drop a few bytes."""
        await probe(self)

    async def _run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(work, *arguments, **named)
        except OSError as error:
            if error.errno in _FULL:
                raise StoreFull(self._full()) from error
            raise Unavailable(
                f"the claim store {self._root} failed: {error.strerror or type(error).__name__}"
            ) from error

    def _full(self) -> str:
        return (
            f"the claim store {self._root} is full (less than {self._reserve} bytes would be left): "
            "free some space, or run `signalbox claims gc`"
        )

    def _put(self, reference: str, data: bytes) -> None:
        path = self._root / reference
        for folder in (self._root, path.parent):  # of their parents only the last takes the mode
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._free(self._root) - len(data) < self._reserve:
            raise StoreFull(self._full())
        part = path.with_name(path.name + _PART)
        try:
            with open(part, "xb", opener=_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
            for folder in (path.parent, self._root):
                _sync(folder)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _get(self, reference: str, limit: int) -> bytes:
        try:
            with (self._root / reference).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            if not self._root.is_dir():
                raise Unavailable(f"the claim store {self._root} is not there: is it mounted?") from None
            raise missing(self, reference) from None
        if len(data) > limit:
            raise too_large(reference, limit)
        return data

    def _delete(self, reference: str) -> None:
        (self._root / reference).unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        return sorted(part for part in self._root.glob("[0-9a-f][0-9a-f]") if part.is_dir())

    def _listed(self, part: Path) -> list[Stored]:
        found = []
        for path in sorted(part.iterdir()):
            with suppress(FileNotFoundError):  # gone since it was listed
                stat = path.stat()
                reference = f"{part.name}/{path.name}"
                if is_reference(reference):
                    found.append(Stored(reference, stat.st_size, stat.st_mtime_ns // 1_000_000))
                elif path.name.endswith(_PART) and _age_s(stat) > _TOO_OLD_S:
                    path.unlink(missing_ok=True)  # of a writer that was killed
        return found


def _age_s(stat: os.stat_result) -> float:
    return time.time() - stat.st_mtime


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class MemoryClaims:
    """A fake: claims in a dictionary. *full* and *down* make it refuse and fail."""

    name = "memory"

    def __init__(self, clock: Callable[[], int] = lambda: 0) -> None:
        self.kept: dict[str, tuple[bytes, int]] = {}
        self.full = False
        self.down = False
        self.failures = 0
        """So many more calls fail."""
        self._clock = clock

    async def put(self, reference: str, data: bytes) -> None:
        """Keep *data*."""
        self._answer()
        if self.full:
            raise StoreFull("the claim store in memory is full: it was told so")
        self.kept[checked(reference)] = (data, self._clock() // 1000)

    async def get(self, reference: str, limit: int) -> bytes:
        """Return what is kept."""
        self._answer()
        if checked(reference) not in self.kept:
            raise missing(self, reference)
        data, _ = self.kept[reference]
        if len(data) > limit:
            raise too_large(reference, limit)
        return data

    async def delete(self, reference: str) -> None:
        """Drop it."""
        self._answer()
        self.kept.pop(checked(reference), None)

    async def stored(self) -> AsyncIterator[Stored]:
        """Iterate over what is kept."""
        self._answer()
        for reference, (data, modified) in sorted(self.kept.items()):
            yield Stored(reference, len(data), modified)

    async def check(self) -> None:
        """Keep and drop a few bytes."""
        await probe(self)

    def _answer(self) -> None:
        if self.down or self.failures > 0:
            self.failures -= 1
            raise Unavailable("the claim store in memory is down: it was told so")


def store_at(place: str) -> ClaimStore:
    """Return the store that *place* names: a folder, `file:///folder`, or `s3://bucket/prefix?endpoint=URL`.

    Raises `ConfigError` for anything else, or an S3 place that cannot be used.
    """
    scheme, separator, rest = place.partition("://")
    if not separator:
        return FileClaims(Path(place).absolute())
    if scheme == "file" and rest.startswith("/"):
        return FileClaims(Path(rest))
    if scheme == "s3":
        from streams.clients.claims_s3 import S3Claims  # noqa: PLC0415 - loads Arrow, which S3 alone needs

        return S3Claims(place)
    raise ConfigError(
        f"claim store {scheme}://... is not known: use a folder, file:///FOLDER, or s3://BUCKET/PREFIX"
    )
