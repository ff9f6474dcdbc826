"""Brings a worker into a wanted phase and holds it there, so that a kill hits what it aims at.

A worker is stopped (SIGSTOP), looked at, and let go on (SIGCONT) until it is where it should be. While
requests flow a worker is hardly ever idle; so a dam is built, that is, workers further down (or up, for
a provider's) are held for some seconds: all that is in flight gathers there and the role runs dry. With
the dam in place a burst of new requests finds it just beginning.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import aiohttp

from agents.errors import Unavailable
from infra.local.stack import LocalStack
from infra.local.workers import Worker
from tests.live.kill_lives import Lives, cpu_ms, stopped
from tests.live.kill_load import Load
from tests.live.kill_phase import Looker
from tests.live.kill_waiting import until as wait_until
from tests.live.kill_waiting import until_true

DAM_S = 6.0
"""Below a session's timeout, and with the longest call still below a call's."""
_PROVIDER_DAM_S = 8.0
_LONGEST_HOLD_S = 8.5
"""Held for longer, a worker would take calls for timed out that were answered in time."""
_OVER_S = 1.0
_BURST = 48
_REFUSED_S = 3.0
"""What a refusing provider asks to wait: more than a worker waits itself, so that jobs go to a tier."""
_TOUCHED_MS = 4.0
"""CPU that a worker must have used since records lay before it, to count as having begun with them."""
_STARVED_S, _SETTLED_S = 2.0, 4.0


class Aim:
    """Aims at workers of *stack*."""

    def __init__(self, stack: LocalStack, looker: Looker, lives: Lives, load: Load) -> None:
        self._stack = stack
        self._looker = looker
        self._lives = lives
        self._load = load
        self.busy: set[Worker] = set()
        """Workers that something else holds or waits for."""

    async def at(self, worker: Worker, phase: str, until: float) -> str:
        """Hold *worker* still, in *phase* if that can be had before *until*; return the phase it is in."""
        ways = {
            "being_assigned": self._being_assigned,
            "idle": self._idle,
            **({} if worker.spec.role == "retry" else {"in_step": self._in_step}),
            "settled": self._settled,
            "starved": self._starved,
        }
        way = ways.get(phase) or partial(self._sampled, phase=phase)
        try:
            # A broker that goes away meanwhile must not keep anybody held, or a kill from coming.
            async with asyncio.timeout(max(until + _OVER_S - time.monotonic(), _OVER_S)):
                return await way(worker, until)
        except TimeoutError:
            await self.hold(worker)
            return "unknown"

    async def _sampled(self, worker: Worker, until: float, *, phase: str) -> str:
        if worker.spec.role == "retry" and phase in {"in_step", "produced_uncommitted"}:
            async with self._refusals():
                return await self._sample(worker, phase, until)
        return await self._sample(worker, phase, until)

    @asynccontextmanager
    async def _refusals(self) -> AsyncIterator[None]:
        """Let a provider refuse calls for as long as to send jobs into the retry tiers."""
        provider = min(self._stack.endpoints.providers)
        await self.force(provider, "rate_limit", retry_after_s=_REFUSED_S)
        try:
            yield
        finally:
            await self.force(provider, "profile")

    async def force(self, provider: str, mode: str, **more: float) -> None:
        """Tell the simulated *provider* how to behave."""
        if self._stack.providers is None:
            return
        order = json.dumps({"provider": provider, "mode": mode, **more})
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{self._stack.providers.address}/control", data=order)
            answer.raise_for_status()

    async def hold(self, worker: Worker) -> bool:
        """Stop *worker*; False if there is no life to stop."""
        pid = worker.pid
        if pid is None or not worker.send(signal.SIGSTOP):
            return False
        await stopped(pid)
        return worker.pid == pid

    async def _sample(self, worker: Worker, phase: str, until: float) -> str:
        """Look again and again until *worker* is in *phase* (any, if empty)."""
        await self._ready(worker, until)
        until = min(until, time.monotonic() + _LONGEST_HOLD_S)
        found = await self._held_in(worker)
        while phase and found != phase and time.monotonic() < until:
            await self._step(worker, 0.02)
            found = await self._held_in(worker)
        return found

    async def _held_in(self, worker: Worker) -> str:
        return await self._looker.look(worker) if await self.hold(worker) else "starting"

    async def _step(self, worker: Worker, seconds: float) -> float:
        """Let *worker* go on for some time, hold it again, and return the CPU ms that it used."""
        pid = self._lives.of(worker).pid
        before = cpu_ms(pid)
        worker.send(signal.SIGCONT)
        await asyncio.sleep(seconds)
        await self.hold(worker)
        return cpu_ms(pid) - before

    async def _idle(self, worker: Worker, until: float) -> str:
        await self._ready(worker, until)
        async with self._dam(worker):
            await self._dry(worker, until)
            return await self._sample(worker, "idle", min(until, time.monotonic() + 1.0))

    async def _dry(self, worker: Worker, until: float) -> None:
        """Wait until the role of *worker* has committed all that is before it, if it comes to that."""
        role = worker.spec.role
        limit = _PROVIDER_DAM_S if role.startswith("provider.") else DAM_S
        until = min(until, time.monotonic() + limit)
        with suppress(Unavailable):
            await wait_until(lambda: self._looker.groups.idle(role), until, 0.1)

    async def _in_step(self, worker: Worker, until: float) -> str:
        await self._ready(worker, until)
        is_provider = worker.spec.role.startswith("provider.")
        found = "unknown"
        while time.monotonic() < until and found != "in_step":
            async with self._dam(worker) as release:
                await self._dry(worker, until)
                if not await self.hold(worker):
                    return "starting"
                await (release() if is_provider else self._load.burst(_BURST))
                await self._filled(worker, min(until, time.monotonic() + 2.0))
                found = await self._nudge(worker, 0.15 if is_provider else 0.004)
            if found != "in_step" and time.monotonic() < until:
                worker.send(signal.SIGCONT)
        return found

    async def _filled(self, worker: Worker, until: float) -> None:
        """Wait until records lie before *worker*, which is held."""

        async def filled() -> bool:
            return not await self._looker.groups.idle(worker.spec.role)

        with suppress(Unavailable):
            await wait_until(filled, until, 0.02)
        if worker.spec.role in {"decision", "dispatch"}:
            await asyncio.sleep(0.5)  # until what it joins the requests with is there as well

    async def _nudge(self, worker: Worker, seconds: float) -> str:
        """Let *worker* begin: a little at a time, until it has touched what lies before it."""
        used, found = 0.0, "unknown"
        for _ in range(60):
            used += await self._step(worker, seconds)
            found = await self._looker.look(worker)
            if found != "in_step" or used >= _TOUCHED_MS:
                break
        return found

    async def _settled(self, worker: Worker, until: float) -> str:
        """Give the role time to commit what it has done."""
        await asyncio.sleep(_SETTLED_S)
        return await self._sample(worker, "", until)

    async def _starved(self, worker: Worker, _until: float) -> str:
        """Hold the slow signal back, so that decisions wait for it, and then the decision worker."""
        held = [w for w in self._stack.workers if w.spec.role == "signals.embedding" and await self.hold(w)]
        await asyncio.sleep(_STARVED_S)
        found = await self._held_in(worker)
        for other in held:
            other.send(signal.SIGCONT)
        return found

    async def _being_assigned(self, worker: Worker, until: float) -> str:
        """Catch *worker* between joining its group and having its partitions; it must just be starting."""
        # Looked at from its first moment on, it would hardly come to join while a loaded machine looks.
        await until_true(lambda: worker.pid is not None and self._lives.joins(worker), until, 0.005)
        found = "starting"
        while time.monotonic() < until and found in {"starting", "unknown"}:
            if found == "starting":
                await asyncio.sleep(0.004)
            found = await self._held_in(worker)
            if found in {"starting", "unknown"}:
                worker.send(signal.SIGCONT)
        if found in {"starting", "unknown"}:
            await self.hold(worker)
        return found

    async def _ready(self, worker: Worker, until: float) -> None:
        await wait_until(worker.health, until)

    @asynccontextmanager
    async def _dam(self, worker: Worker) -> AsyncIterator[Release]:
        """Hold those that make *worker* run dry, until left or released."""
        role = worker.spec.role
        below = role.startswith("provider.")
        held = [
            other
            for other in self._stack.workers
            if other is not worker and other not in self.busy and _dams(other.spec.role, below=below)
        ]
        held = [other for other in held if await self.hold(other)]
        release = Release(held)
        breaks = asyncio.get_running_loop().call_later(_LONGEST_HOLD_S, release.now)
        try:
            yield release
        finally:
            breaks.cancel()
            release.now()


class Release:
    """Lets go what a dam holds."""

    def __init__(self, held: list[Worker]) -> None:
        self._held = held

    async def __call__(self) -> None:
        """Let go; a second time does nothing."""
        self.now()

    def now(self) -> None:
        """Let go at once."""
        while self._held:
            self._held.pop().send(signal.SIGCONT)


def _dams(role: str, *, below: bool) -> bool:
    return role == "dispatch" if below else role.startswith("provider.")
