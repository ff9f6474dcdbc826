"""Who may call a provider now: so many at once, or one alone that is suspected of ending the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """At most *limit* holders at once; one that is `alone` waits for those, and all others wait for it."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._one = asyncio.Lock()
        self._suspects = 0
        self._holders = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def held(self, *, alone: bool) -> AsyncIterator[None]:
        """Hold a slot while in the block; ahead of everything that waits for one if it is to be *alone*."""
        async with self._alone() if alone else self._beside_others():
            yield

    @asynccontextmanager
    async def _beside_others(self) -> AsyncIterator[None]:
        async with self._free:
            while self._suspects:
                await self._open.wait()
            self._holders += 1
            self._empty.clear()
            try:
                yield
            finally:
                self._holders -= 1
                if not self._holders:
                    self._empty.set()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        self._suspects += 1
        self._open.clear()
        try:
            async with self._one:
                await self._empty.wait()
                yield
        finally:
            self._suspects -= 1
            if not self._suspects:
                self._open.set()
