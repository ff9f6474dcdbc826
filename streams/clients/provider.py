"""Calls to LLM providers over HTTP: the only module that opens connections to them.

Whole answers only; nothing is streamed. Bodies and keys are never logged or put into errors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from math import inf
from types import TracebackType
from typing import Self

import aiohttp
from pydantic import SecretStr
from yarl import URL

from agents.errors import CallTimeout, ConfigError, NotSent, Unavailable
from agents.ports import HttpCall, HttpReply

DEFAULT_CONCURRENCY = 64
DEFAULT_REPLY_LIMIT = 16 * 1024 * 1024
# Below the 60 to 75 s after which common proxies close an idle connection: a call must not be
# sent into one that is being closed.
_KEEPALIVE_S = 45.0
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is and how to prove who calls; *base_url* ends in its ``/v1``."""

    base_url: str
    api_key: SecretStr | None = None
    auth_header: str = "Authorization"
    """Takes ``Bearer KEY``; any other header (``api-key``) takes the bare key."""


@dataclass(frozen=True, slots=True)
class _Place:
    base_url: str
    headers: Mapping[str, str]


class HttpProviders:
    """Every provider by name behind one pool of kept connections; satisfies ``Complete``.

    Use it as an async context manager, or close it. At most *concurrency* calls within their timeout
    have connections; a call beyond that waits for one inside its own timeout. A call that timed out is
    listened to for *linger_s* seconds more, since an answer that comes late is paid for all the same; at
    most *lingering* such calls, of which the oldest is given up for a further one.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        reply_limit: int = DEFAULT_REPLY_LIMIT,
        linger_s: float = 0.0,
        lingering: int = DEFAULT_CONCURRENCY,
    ) -> None:
        """Check *endpoints*.

        Raises:
            ConfigError: a base URL is not an absolute HTTP URL, or a key cannot be sent.
        """
        self._places = {name: _place(name, endpoint) for name, endpoint in endpoints.items()}
        self._urls: dict[tuple[str, str], URL] = {}
        self._concurrency = concurrency
        self._reply_limit = reply_limit
        self._linger_s = linger_s
        self._lingering = lingering
        self._late: dict[asyncio.Task[HttpReply], None] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections and give late answers up; a later call opens new ones."""
        for task in self._late:
            task.cancel()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __call__(self, provider: str, call: HttpCall) -> HttpReply:
        """Return the provider's reply, whatever its status; redirects are not followed.

        Raises:
            CallTimeout: no whole reply within ``call.timeout_s``; it may have taken effect. Its ``late``
                ends with the reply if that comes within the time to linger, else with `Unavailable`.
            NotSent: no connection could be made.
            Unavailable: the connection broke, the reply is too large, or no such provider.
        """
        place = self._places.get(provider)
        if place is None:
            known = ", ".join(sorted(self._places)) or "none"
            raise Unavailable(
                f"no endpoint is set for provider {provider!r} (set: {known}); add it to the settings"
            )
        if not self._linger_s:
            return await self._replied(provider, place, call, call.timeout_s)
        task = asyncio.create_task(self._replied(provider, place, call, call.timeout_s + self._linger_s))
        try:
            done, _ = await asyncio.wait({task}, timeout=call.timeout_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            return task.result()
        raise CallTimeout(_silence(provider, call.timeout_s), self._listened_to(task))

    def _listened_to(self, task: asyncio.Task[HttpReply]) -> asyncio.Task[HttpReply]:
        """Return *task*, kept among the calls that are listened to beyond their timeout."""
        if len(self._late) >= self._lingering:
            oldest = next(iter(self._late))
            del self._late[oldest]
            oldest.cancel()
        self._late[task] = None
        task.add_done_callback(self._heard)
        return task

    def _heard(self, task: asyncio.Task[HttpReply]) -> None:
        self._late.pop(task, None)
        if not task.cancelled():
            task.exception()  # whoever awaits it learns of it; nobody need

    async def _replied(self, provider: str, place: _Place, call: HttpCall, timeout_s: float) -> HttpReply:
        started = time.perf_counter()
        try:
            status, headers, body = await self._post(provider, place, call, timeout_s)
        except TimeoutError:
            raise CallTimeout(_silence(provider, timeout_s)) from None
        except aiohttp.ClientConnectorError as error:
            raise NotSent(f"{provider} at {place.base_url}: {_reason(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            # The cause is dropped: aiohttp's errors carry the request's headers, the key among them.
            raise Unavailable(f"{provider} at {place.base_url}: {_reason(error)}") from None
        return HttpReply(status, headers, body, time.perf_counter() - started, float("nan"))

    async def _post(
        self, provider: str, place: _Place, call: HttpCall, timeout_s: float
    ) -> tuple[int, dict[str, str], bytes]:
        async with self._open().post(
            self._url(place, call.path),
            data=call.body,
            headers={**call.headers, **place.headers},
            # aiohttp rounds timeouts above 5 s up to whole seconds unless told otherwise; the ledger
            # trusts that a call is over when its timeout is.
            timeout=aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=inf),
            allow_redirects=False,
        ) as response:
            body = await self._read(provider, response)
            headers = {name.lower(): value for name, value in response.headers.items()}
            # A date in Retry-After is measured against it, and not every server sends it.
            headers.setdefault("date", formatdate(usegmt=True))
            return response.status, headers, body

    async def _read(self, provider: str, response: aiohttp.ClientResponse) -> bytes:
        """Read the body, or stop at the limit and drop the connection."""
        length = response.content_length
        if length is not None and length <= self._reply_limit and "content-encoding" not in response.headers:
            return await response.read()
        pieces, size = [], 0
        async for piece in response.content.iter_chunked(_CHUNK):
            pieces.append(piece)
            size += len(piece)
            if size > self._reply_limit:
                response.close()
                raise Unavailable(
                    f"{provider} sent more than {self._reply_limit} bytes; "
                    "lower max_tokens or raise the limit"
                )
        return b"".join(pieces)

    @property
    def _connections(self) -> int:
        """How many there may be: those of calls that are only listened to must not starve the others."""
        return self._concurrency + (self._lingering if self._linger_s else 0)

    def _url(self, place: _Place, path: str) -> URL:
        """Return the URL of *path*; parsing it anew would cost a tenth of a call."""
        url = self._urls.get((place.base_url, path))
        if url is None:
            url = self._urls[place.base_url, path] = URL(f"{place.base_url}/{path.lstrip('/')}")
        return url

    def _open(self) -> aiohttp.ClientSession:
        """Return the session, made at the first call since it belongs to the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_KEEPALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"user-agent": "signalbox"},
            )
        return self._session


def _place(name: str, endpoint: Endpoint) -> _Place:
    try:
        url = URL(endpoint.base_url)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or url.user or url.query_string or url.fragment:
        raise ConfigError(
            f"provider {name!r}: the base URL must look like https://host/v1, without user, query or fragment"
        )
    headers: dict[str, str] = {}
    if endpoint.api_key is not None:
        key = endpoint.api_key.get_secret_value()
        if not key.isascii() or not key.isprintable() or not key:
            raise ConfigError(
                f"provider {name!r}: the API key is empty or has characters that no header can carry"
            )
        bearer = endpoint.auth_header.lower() == "authorization"
        headers[endpoint.auth_header] = f"Bearer {key}" if bearer else key
    return _Place(str(url).rstrip("/"), headers)


def _silence(provider: str, timeout_s: float) -> str:
    return f"{provider} gave no answer within {timeout_s:g} s"


def _reason(error: Exception) -> str:
    """Say what broke, from the error's kind alone: its text may quote what was sent."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect ({error.os_error.strerror or type(error.os_error).__name__}); is it running?"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        return "the connection broke before the answer was complete"
    return f"the call failed ({type(error).__name__})"
