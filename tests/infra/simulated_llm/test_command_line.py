"""The process: where it says it listens, how it stops, and that a killed client is in its log."""

import asyncio
import json
import signal
import sys
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

_PATIENCE_S = 60.0
CALLER = """
import asyncio, aiohttp, sys
async def main():
    async with aiohttp.ClientSession() as client:
        body = {"model": "dead", "messages": [{"role": "user", "content": "x"}]}
        await client.post(sys.argv[1], json=body, headers={"Idempotency-Key": "killed"})
asyncio.run(main())
"""


async def spawn(*arguments: str) -> Process:
    """Start the simulator with *arguments*."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infra.simulated_llm", *arguments, stdout=PIPE, stderr=PIPE
    )


@asynccontextmanager
async def simulator(tmp_path: Path) -> AsyncIterator[tuple[Process, str]]:
    """Run the simulator with a model that hangs; yield the process and the model's URL."""
    (tmp_path / "profile.yaml").write_text(
        "providers: {p: {models: {dead: {faults: {hang: 1}}}}}", encoding="utf-8"
    )
    process = await spawn(
        *("--profile", str(tmp_path / "profile.yaml"), "--calls", str(tmp_path / "calls.jsonl")),
        *("--port-file", str(tmp_path / "port"), "--seed", "1"),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            said = json.loads(await process.stdout.readline())
        yield process, f"{said['providers']['p']}/chat/completions"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def in_flight(url: str) -> int:
    """Return how many calls the simulator is serving."""
    health = url.replace("/p/v1/chat/completions", "/health")
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(health, timeout=_PATIENCE_S).read())  # noqa: S310 - loopback
    return int(json.loads(text)["in_flight"])


async def call_and_wait(url: str) -> Process:
    """Start a client that waits for an answer; return once the simulator has its call."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLER, url, stdout=DEVNULL, stderr=DEVNULL
    )
    async with asyncio.timeout(_PATIENCE_S):
        while await in_flight(url) == 0:  # noqa: ASYNC110 - what is awaited happens beyond a socket or in a file
            await asyncio.sleep(0.02)
    return client


def logged(tmp_path: Path) -> list[tuple[str, int]]:
    """Return (key, status) of each line of the log."""
    lines = (tmp_path / "calls.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["idempotency_key"], line["status"]) for line in map(json.loads, lines)]


async def test_a_client_killed_with_sigkill_leaves_its_call_in_the_log(tmp_path: Path) -> None:
    """The call of a process that died is written within moments, with status 0."""
    async with simulator(tmp_path) as (_, url):
        client = await call_and_wait(url)
        client.kill()
        await client.wait()
        async with asyncio.timeout(_PATIENCE_S):
            while not logged(tmp_path):  # noqa: ASYNC110 - what is awaited happens beyond a socket or in a file
                await asyncio.sleep(0.02)
        calls = logged(tmp_path)

    assert calls == [("killed", 0)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_cleanly_and_completes_the_log(
    number: signal.Signals, tmp_path: Path
) -> None:
    """On SIGTERM or SIGINT it exits 0 and has logged the calls that it cut off; it said its port."""
    async with simulator(tmp_path) as (process, url):
        client = await call_and_wait(url)
        process.send_signal(number)
        async with asyncio.timeout(_PATIENCE_S):
            code = await process.wait()
            await client.wait()

    assert code == 0
    assert logged(tmp_path) == [("killed", 0)]
    assert f":{(tmp_path / 'port').read_text(encoding='utf-8').strip()}/" in url


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--profile", "/nowhere/profile.yaml"), 2, b"Correct the file named by --profile"),
        (("--calls", "/nowhere/calls.jsonl"), 2, b"Give another --calls"),
        (("--host", "192.0.2.1"), 3, b"cannot listen on 192.0.2.1:0"),
    ],
)
async def test_what_it_cannot_use_ends_it_with_the_reason(
    arguments: tuple[str, ...], code: int, told: bytes
) -> None:
    """Bad input exits 2 and an address that cannot be had exits 3, with one line on stderr."""
    process = await spawn(*arguments)
    async with asyncio.timeout(_PATIENCE_S):
        _, stderr = await process.communicate()

    assert process.returncode == code
    assert told in stderr
    assert stderr.count(b"\n") == 1
