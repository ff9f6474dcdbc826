"""The HTTP client of providers: what it sends, what it bounds, and what its errors keep quiet about."""

import asyncio
import gzip
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import SecretStr

from agents.errors import CallTimeout, ConfigError, NotSent, Unavailable
from agents.ports import Complete, HttpCall, HttpReply
from agents.providers.openai import OpenAI
from infra.simulated_llm.profile import parse
from infra.simulated_llm.server import Server
from streams.clients.provider import Endpoint, HttpProviders

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KEY = "sk-invented-key"
PROMPT = b'{"prompt": "the-callers-words"}'


def call(timeout_s: float = 5.0, path: str = "/chat/completions") -> HttpCall:
    """Return a call with an identity."""
    return HttpCall(path, PROMPT, {"idempotency-key": "job", "x-request-id": "request"}, timeout_s)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Serve *handler* at every path; yield the base URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def providers(url: str, reply_limit: int = 1000) -> HttpProviders:
    """Return a client of one provider, called p."""
    return HttpProviders({"p": Endpoint(url, SecretStr(KEY))}, concurrency=4, reply_limit=reply_limit)


async def test_a_call_arrives_as_it_was_written_with_the_key_added() -> None:
    """Path, body and identity are those of the call; the reply has lower-case headers and a time."""
    seen: list[tuple[str, bytes, dict[str, str]]] = []

    async def handler(request: web.Request) -> web.Response:
        names = {name.lower(): value for name, value in request.headers.items()}
        seen.append((request.path, await request.read(), names))
        return web.Response(status=429, body=b"{}", headers={"Retry-After": "2", "X-Request-ID": "theirs"})

    async with serving(handler) as url, providers(url) as client:
        complete: Complete = client
        reply = await complete("p", call())

    ((path, body, headers),) = seen
    assert (path, body) == ("/v1/chat/completions", PROMPT)
    assert headers["idempotency-key"] == "job"
    assert headers["x-request-id"] == "request"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (429, b"{}", "2")
    assert 0 < reply.elapsed_s < 5
    assert math.isnan(reply.ttft_s)


async def test_a_key_may_travel_bare_in_another_header() -> None:
    """Azure wants the key in `api-key`, without Bearer."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["api-key"])
        return web.Response()

    async with (
        serving(handler) as url,
        HttpProviders({"p": Endpoint(url, SecretStr(KEY), "api-key")}) as client,
    ):
        await client("p", call())

    assert seen == [KEY]


async def test_connections_are_kept_and_bounded() -> None:
    """Forty calls at once run over at most four connections."""
    peers: set[object] = set()

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        peers.add(request.transport.get_extra_info("peername") if request.transport else None)
        await asyncio.sleep(0.002)
        return web.Response(body=b"{}")

    async with serving(handler) as url, providers(url) as client:
        replies = await asyncio.gather(*(client("p", call()) for _ in range(40)))

    assert {reply.status for reply in replies} == {200}
    assert 1 <= len(peers) <= 4


async def test_a_call_without_an_answer_ends_at_its_timeout() -> None:
    """A provider that hangs, before or within its answer, costs the timeout and no more."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if request.path.endswith("slow"):
            await response.prepare(request)
            await response.write(b"{")
        await asyncio.sleep(30)
        return response

    async with serving(handler) as url, providers(url) as client:
        started = asyncio.get_running_loop().time()
        for path in ("/hang", "/slow"):
            with pytest.raises(CallTimeout, match=r"p gave no answer within 0\.1 s"):
                await client("p", call(0.1, path))
        took = asyncio.get_running_loop().time() - started

    assert 0.15 < took < 15


@pytest.mark.parametrize("way", ["plain", "chunked", "compressed"])
async def test_an_answer_that_is_too_large_is_refused_however_it_comes(way: str) -> None:
    """The limit holds for what is announced, what is not, and what a small body expands to."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if way == "plain":
            return web.Response(body=b"x" * 1001)
        if way == "compressed":
            return web.Response(body=gzip.compress(b"x" * 100_000), headers={"content-encoding": "gzip"})
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(11):
            await response.write(b"x" * 100)
        return response

    async with serving(handler) as url, providers(url) as client:
        with pytest.raises(Unavailable, match="p sent more than 1000 bytes"):
            await client("p", call())


async def test_an_answer_at_the_limit_is_accepted() -> None:
    """The limit itself is allowed, chunked and compressed too."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("plain"):
            return web.Response(body=b"x" * 1000)
        return web.Response(body=gzip.compress(b"x" * 1000), headers={"content-encoding": "gzip"})

    async with serving(handler) as url, providers(url) as client:
        bodies = [(await client("p", call(path=path))).body for path in ("/plain", "/compressed")]

    assert bodies == [b"x" * 1000] * 2


async def test_a_provider_that_is_not_there_is_unavailable() -> None:
    """A refused connection says where, and asks the obvious question."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    async with serving(handler) as url:
        pass
    async with providers(url) as client:
        with pytest.raises(Unavailable, match=r"cannot connect .* is it running") as caught:
            await client("p", call())

    assert url in str(caught.value)
    assert not isinstance(caught.value, CallTimeout)


async def test_a_broken_connection_is_unavailable_and_the_call_is_not_repeated() -> None:
    """Whether to call again is the worker's decision: it has a ledger to keep."""
    calls = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        if calls == 2 and request.transport is not None:
            request.transport.abort()
        return web.Response()

    async with serving(handler) as url, providers(url) as client:
        await client("p", call())
        with pytest.raises(Unavailable, match="connection broke"):
            await client("p", call())

    assert calls == 2


async def test_errors_show_neither_key_nor_prompt() -> None:
    """No error, nor its cause, nor the endpoint's text, holds the key or the body."""

    async def handler(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async with serving(handler) as url, providers(url) as client:
        with pytest.raises(Unavailable) as caught:
            await client("p", call())

    told = f"{caught.value!r} {caught.value.__cause__!r} {Endpoint(url, SecretStr(KEY))!r}"
    assert KEY not in told
    assert "callers-words" not in told


async def test_redirects_are_not_followed() -> None:
    """A key must not travel to where a provider points."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"location": "http://127.0.0.1:1/"})

    async with serving(handler) as url, providers(url) as client:
        assert (await client("p", call())).status == 307


async def test_a_provider_without_an_endpoint_is_unavailable_and_named() -> None:
    """The error lists the providers that are set."""
    async with providers("http://127.0.0.1:1/v1") as client:
        with pytest.raises(Unavailable, match=r"'q' \(set: p\)"):
            await client("q", call())


@pytest.mark.parametrize(
    "url",
    ["", "localhost:80", "ftp://host/v1", "http:///v1", "http://user:pw@host/v1", "http://host/v1?key=1"],
)
def test_a_base_url_that_cannot_be_used_is_a_configuration_error(url: str) -> None:
    """What is wrong shows at the start, not at the first call; nothing of the URL is quoted."""
    with pytest.raises(ConfigError, match="provider 'p': the base URL must look like"):
        HttpProviders({"p": Endpoint(url)})


@pytest.mark.parametrize("key", ["", "schlüssel", "two\nlines"])
def test_a_key_that_no_header_can_carry_is_a_configuration_error(key: str) -> None:
    """A pasted key with a line break is told before it is sent."""
    with pytest.raises(ConfigError, match="provider 'p': the API key"):
        HttpProviders({"p": Endpoint("http://host/v1", SecretStr(key))})


async def test_dialect_client_and_simulator_agree() -> None:
    """A written call, sent over a socket to the simulator and read back, is an answer with usage."""
    server = Server(parse("providers: {p: {models: {m: {}}}}"), 0)
    port = await server.start("127.0.0.1", 0)
    dialect = OpenAI()
    body = b'{"model": "auto", "messages": [{"role": "user", "content": "hello"}], "stream": true}'
    try:
        async with HttpProviders({"p": Endpoint(f"http://127.0.0.1:{port}/p/v1/")}) as client:
            written = dialect.write(body, "m", idempotency_key="job", request_id="request", timeout_s=5)
            reply: HttpReply = await client("p", written)
    finally:
        await server.stop()
    read = dialect.read(reply)

    assert (read.outcome, read.model, read.finish_reason, read.completion_tokens) == ("ok", "m", "stop", 64)
    assert reply.headers["x-request-id"] == "request"


async def test_an_answer_that_comes_after_the_timeout_is_heard() -> None:
    """The call is over at its timeout; its answer still comes to whoever asks for it."""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(0.4)
        return web.Response(body=b"{}")

    async with serving(handler) as url, HttpProviders({"p": Endpoint(url)}, linger_s=20.0) as client:
        with pytest.raises(CallTimeout, match=r"within 0\.1 s") as caught:
            await client("p", call(0.1))
        assert caught.value.late is not None
        reply = await caught.value.late

    assert (reply.status, reply.body) == (200, b"{}")
    assert reply.elapsed_s >= 0.3


async def test_an_answer_that_never_comes_is_given_up() -> None:
    """Listening ends after its time, and at most so many calls are listened to."""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(60)
        return web.Response()

    async with serving(handler) as url:
        endpoints = {"p": Endpoint(url)}
        async with HttpProviders(endpoints, linger_s=0.1, lingering=2) as client:
            late = []
            for _ in range(3):
                with pytest.raises(CallTimeout) as caught:
                    await client("p", call(0.05))
                late.append(caught.value.late)
            ends = await asyncio.gather(*(one for one in late if one is not None), return_exceptions=True)

    assert len(ends) == 3
    assert all(isinstance(end, CallTimeout | asyncio.CancelledError) for end in ends)


async def test_a_date_is_there_to_measure_retry_after_by() -> None:
    """A server that sends no `Date` gets ours, so that a date in `Retry-After` means something."""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=429, headers={"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"})

    async with serving(handler) as url, providers(url) as client:
        reply = await client("p", call())

    assert OpenAI().read(reply).retry_after_s > 1e6


async def test_no_connection_is_told_apart_from_a_broken_one() -> None:
    """Only a call that certainly was not sent may be tried again unseen by the ledger."""
    async with HttpProviders({"p": Endpoint("http://127.0.0.1:9/v1")}) as client:
        with pytest.raises(NotSent):
            await client("p", call())
