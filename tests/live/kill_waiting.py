"""Waiting for what other processes do, which tells nobody when it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(check: Callable[[], Awaitable[bool]], by: float, every_s: float = 0.05) -> bool:
    """Return whether *check* came true before the monotonic clock said *by*; asks at least once."""
    while not await check():
        if time.monotonic() > by:
            return False
        await asyncio.sleep(every_s)
    return True


async def until_true(check: Callable[[], bool], by: float, every_s: float = 0.05) -> bool:
    """As `until`, of what can be told at once."""

    async def asked() -> bool:
        return check()

    return await until(asked, by, every_s)
