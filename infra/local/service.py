"""The one shape of everything the stack starts, and waiting until it is healthy."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from infra.local.errors import StartFailed
from infra.local.process import Process

POLL = 0.1


class Service(Protocol):
    """A component of the stack, embedded (ours to start and stop) or external."""

    @property
    def name(self) -> str:
        """What logs and errors call it."""
        ...

    @property
    def address(self) -> str:
        """Where clients reach it."""
        ...

    @property
    def process(self) -> Process | None:
        """The process behind it; None if it is external or not started."""
        ...

    async def start(self) -> str:
        """Start, wait until healthy and return the address; external: only check.

        Raises:
            StackError: it cannot be started or reached; says what to do.
        """
        ...

    async def health(self) -> bool:
        """Return whether it answers now."""
        ...

    async def stop(self) -> None:
        """Stop what was started: SIGTERM, a grace period, SIGKILL. Idempotent."""
        ...


async def until_healthy(
    name: str, check: Callable[[], Awaitable[bool]], process: Process | None, *, within: float
) -> None:
    """Return when *check* answers true.

    Raises:
        StartFailed: the process died, or *within* seconds were not enough.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not await check():
        if process is not None and not process.running:
            code = await process.wait()
            raise StartFailed(died(name, code, process.command.log, process.tail()))
        if loop.time() > deadline:
            detail = "" if process is None else f"; the end of {process.command.log}:\n{process.tail()}"
            raise StartFailed(f"{name} was not healthy within {within:.0f} s{detail}")
        await asyncio.sleep(POLL)


def died(name: str, code: int, log: Path, text: str) -> str:
    """Say how a process ended and what it said last."""
    how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
    return f"{name} {how} before it was healthy; the end of {log}:\n{text}"
