"""Large bodies behind the S3 API, spoken by Arrow's client. The only module that knows it.

Credentials come from where AWS's own clients take them (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_SHARED_CREDENTIALS_FILE`, a role), never from the place's address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pyarrow import ArrowException, fs

from agents.errors import ConfigError, StoreFull, Unavailable
from schemas.claims import is_reference
from streams.clients.claims import Stored, checked, missing, probe, too_large

_OPTIONS = {"endpoint", "region"}
_FULL_WORDS = ("QuotaExceeded", "StorageFull", "InsufficientStorage", "InsufficientCapacity")
_TIMEOUT_S = 10.0
_DETAIL = 160


class S3Claims:
    """Objects of one bucket, below one prefix."""

    def __init__(self, place: str) -> None:
        """Read *place*, `s3://bucket/prefix?endpoint=http://host:port&region=name`.

        Raises `ConfigError` if it holds credentials, unknown options or no bucket.
        """
        parts = urlsplit(place)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.username or parts.password:
            raise ConfigError("the claim store's address must hold no credentials: set AWS_ACCESS_KEY_ID ...")
        if not parts.netloc or set(options) - _OPTIONS:
            raise ConfigError(
                "the claim store's address must look like s3://bucket/prefix?endpoint=URL&region=NAME"
            )
        self.name = f"s3://{parts.netloc}{parts.path}"
        self._root = f"{parts.netloc}{parts.path}".rstrip("/")
        self._client = _client(options)

    async def put(self, reference: str, data: bytes) -> None:
        """Put the object; the store has acknowledged it when the stream is closed."""
        await self._run(self._put, checked(reference), data)

    async def get(self, reference: str, limit: int) -> bytes:
        """Get the object."""
        found: bytes = await self._run(self._get, checked(reference), limit)
        return found

    async def delete(self, reference: str) -> None:
        """Delete the object."""
        await self._run(self._delete, checked(reference))

    async def stored(self) -> AsyncIterator[Stored]:
        """List the objects, one of the prefix's parts after the other."""
        for part in range(256):
            for found in await self._run(self._listed, f"{part:02x}"):
                yield found

    async def check(self) -> None:
        """Keep and drop a few bytes."""
        await probe(self)

    async def _run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(work, *arguments)
        except (OSError, ArrowException) as error:
            text = str(error)
            if any(word in text for word in _FULL_WORDS):
                raise StoreFull(
                    f"the claim store {self.name} takes nothing more: raise its quota, "
                    "or run `signalbox claims gc`"
                ) from error
            raise Unavailable(f"the claim store {self.name} failed: {text[:_DETAIL]}") from error

    def _put(self, reference: str, data: bytes) -> None:
        with self._client.open_output_stream(f"{self._root}/{reference}") as out:
            out.write(data)

    def _get(self, reference: str, limit: int) -> bytes:
        try:
            with self._client.open_input_stream(f"{self._root}/{reference}") as found:
                data = bytes(found.read(limit + 1))
        except FileNotFoundError:
            raise missing(self, reference) from None
        if len(data) > limit:
            raise too_large(reference, limit)
        return data

    def _delete(self, reference: str) -> None:
        try:
            self._client.delete_file(f"{self._root}/{reference}")
        except FileNotFoundError:
            return

    def _listed(self, part: str) -> list[Stored]:
        selector = fs.FileSelector(f"{self._root}/{part}", allow_not_found=True)
        found = []
        for info in self._client.get_file_info(selector):
            reference = f"{part}/{info.base_name}"
            if info.type == fs.FileType.File and is_reference(reference):
                found.append(Stored(reference, info.size, info.mtime_ns // 1_000_000))
        return found


def _client(options: dict[str, str]) -> Any:
    arguments: dict[str, Any] = {"connect_timeout": _TIMEOUT_S, "request_timeout": _TIMEOUT_S}
    if "region" in options:
        arguments["region"] = options["region"]
    endpoint = options.get("endpoint")
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        if scheme not in {"http", "https"} or not host:
            raise ConfigError("the claim store's endpoint must look like https://host:port")
        arguments |= {
            "scheme": scheme,
            "endpoint_override": host,
            "region": options.get("region", "us-east-1"),
        }
    return fs.S3FileSystem(**arguments)
