"""What goes wrong beside the kills: outages, hangs and clocks, one after the other, while rounds go on."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from infra.local.errors import StackError
from infra.local.stack import LocalStack
from infra.local.workers import Worker
from tests.live.kill_aim import Aim
from tests.live.kill_stack import CALL_S, DECISION_WORKERS, clock_file, full_file
from tests.live.kill_waiting import until

SESSION_S = 10.0
"""The session timeout of a worker's consumer."""
_JUMP_S, _JUMPED_S, _FULL_S = 45, 8.0, 6.0
_READY_S = 60.0


@dataclass(slots=True)
class Beside:
    """Runs disturbances in the background; `log` says what was done when."""

    stack: LocalStack
    aim: Aim
    rng: random.Random
    outage_s: float
    log: list[dict[str, Any]] = field(default_factory=list)
    broker_down: bool = False
    _queue: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    def begin(self, name: str) -> None:
        """Let disturbance *name* begin when those before it are over."""
        self._queue.put_nowait(name)

    async def run(self) -> None:
        """Work off what was begun, until cancelled."""
        does: Mapping[str, Callable[[], Awaitable[str]]] = {
            "stop": self._stop_short,
            "stop_long": self._stop_long,
            "broker_kill": self._broker_kill,
            "broker_outage": self._broker_outage,
            "rolling_restart": self._rolling_restart,
            "provider_hang": self._provider_hang,
            "triton_kill": self._triton_kill,
            "clock_jump": self._clock_jump,
            "claim_store_full": self._claim_store_full,
        }
        while True:
            name = await self._queue.get()
            row: dict[str, Any] = {"kind": name, "began": time.time(), "role": "", "what": "", "ended": None}
            self.log.append(row)
            row["what"] = await does[name]()
            row["ended"] = time.time()
            self._queue.task_done()

    async def over(self) -> None:
        """Wait until everything that was begun is over."""
        await self._queue.join()

    def _worker(self, *, providers: bool = True) -> Worker:
        return self.rng.choice(
            [
                w
                for w in self.stack.workers
                if w not in self.aim.busy and (providers or not w.spec.role.startswith("provider."))
            ]
        )

    async def _stop_short(self) -> str:
        return await self._stop(self._worker(), self.rng.uniform(1.0, 4.0))

    async def _stop_long(self) -> str:
        # A provider's worker is left out: with its calls it would outsleep their timeout, and what it then
        # calls again is no consequence of a kill.
        return await self._stop(self._worker(providers=False), SESSION_S + self.rng.uniform(3.0, 5.0))

    async def _stop(self, worker: Worker, seconds: float) -> str:
        self.aim.busy.add(worker)
        try:
            if await self.aim.hold(worker):
                await asyncio.sleep(seconds)
                worker.send(signal.SIGCONT)
        finally:
            self.aim.busy.discard(worker)
        return f"SIGSTOP of {_name(worker)} for {seconds:.1f} s"

    async def _broker_kill(self) -> str:
        self.broker_down = True
        broker: Any = self.stack.broker
        try:
            await broker.kill()
            await asyncio.sleep(1.0)
            await _again(broker.start)
        finally:
            self.broker_down = False
        return "SIGKILL of the broker, started again on its data"

    async def _broker_outage(self) -> str:
        process = self.stack.broker.process
        if process is None:
            return "the broker is not ours to stop"
        self.broker_down = True
        try:
            process.identity.send(signal.SIGSTOP)
            await asyncio.sleep(self.outage_s)
        finally:
            process.identity.send(signal.SIGCONT)
            self.broker_down = False
        return f"the broker did not answer for {self.outage_s:.0f} s (SIGSTOP)"

    async def _rolling_restart(self) -> str:
        for worker in list(self.stack.workers):
            await self._restart(worker)
        return f"SIGTERM of {len(self.stack.workers)} workers, one after the other"

    async def _restart(self, worker: Worker) -> None:
        self.aim.busy.add(worker)
        try:
            old = worker.pid
            if old is None or not worker.send(signal.SIGTERM):
                return

            async def back() -> bool:
                return worker.pid not in {None, old} and await worker.health()

            await until(back, time.monotonic() + _READY_S, 0.1)
        finally:
            self.aim.busy.discard(worker)

    async def _provider_hang(self) -> str:
        provider = self.rng.choice(sorted(self.stack.endpoints.providers))
        await self.aim.force(provider, "hang")
        try:
            await asyncio.sleep(CALL_S + 3.0)
        finally:
            await self.aim.force(provider, "profile")
        return f"{provider} answered no call for {CALL_S + 3.0:.0f} s"

    async def _triton_kill(self) -> str:
        triton: Any = self.stack.triton
        await triton.kill()
        await asyncio.sleep(1.0)
        await _again(triton.start)
        return "SIGKILL of Triton, started again"

    async def _clock_jump(self) -> str:
        role = self.rng.choice(sorted({w.spec.role for w in self.stack.workers}))
        instance = self.rng.randrange(DECISION_WORKERS) if role == "decision" else 0
        seconds = self.rng.choice((-_JUMP_S, _JUMP_S))
        self.log[-1]["role"] = role
        path = clock_file(self.stack.folder, role, instance)
        path.write_text(str(seconds * 1000))
        await asyncio.sleep(_JUMPED_S)
        path.unlink()
        return f"the clock of {role}-{instance} jumped by {seconds} s for {_JUMPED_S:.0f} s"

    async def _claim_store_full(self) -> str:
        full = full_file(self.stack.folder)
        full.touch()
        await asyncio.sleep(_FULL_S)
        full.unlink()
        return f"the claim store had no room for {_FULL_S:.0f} s"


def _name(worker: Worker) -> str:
    return f"{worker.spec.role}-{worker.spec.instance}"


async def _again(start: Callable[[], Awaitable[Any]]) -> None:
    """Start a component, patiently."""
    for _ in range(2):
        with suppress(StackError):
            await start()
            return
    await start()
