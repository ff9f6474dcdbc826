"""A kill run on real components: Kafka, Triton, simulated providers, one process per worker."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agents.errors import Unavailable
from infra.local.errors import StartFailed
from infra.local.stack import LocalStack
from infra.local.workers import Worker
from streams.app import make_world
from streams.kafka import KafkaLog, KafkaSettings
from streams.keep import keep_log
from streams.runners import World
from streams.settings import wall_clock
from streams.telemetry import Telemetry
from tests.live.kill_aim import Aim
from tests.live.kill_beside import Beside
from tests.live.kill_lives import Lives
from tests.live.kill_load import POISON_EVERY, Load, until_open, write_lines, write_rows
from tests.live.kill_phase import Groups, Looker
from tests.live.kill_sabotage import SABOTAGES
from tests.live.kill_schedule import Round, Schedule
from tests.live.kill_stack import kill_claims, kill_policy, kill_stack
from tests.live.kill_tail import Tail

LEAST_IN_FLIGHT = 200
_GAP_S, _LATEST_S = 4.0, 13.0
"""Between two kills, the second of which is not aimed at the same worker's start; and at the latest."""
_WARM_S, _BESIDE_S, _DRAIN_S = 180.0, 300.0, 600.0
_STILL_S, _SABOTAGED_STILL_S = 75.0, 16.0
"""So long without any progress, and what has not ended never will: a takeover takes `CALL_S` and a jump."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked to do; *outage_s* is how long the broker stays away."""

    out: Path
    rounds: int
    seed: int
    sabotage: str = ""
    outage_s: float = 10.0
    faults: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL; *time* in seconds since the epoch, *in_flight* requests then; *aimed* at which phase."""

    time: float
    role: str
    instance: int
    pid: int
    phase: str
    round: int
    in_flight: int
    aimed: str
    signal: str = "KILL"


@dataclass(slots=True)
class Killer:
    """Kills workers of a running stack as a schedule says, and writes down how it found them."""

    stack: LocalStack
    load: Load
    aim: Aim
    beside: Beside
    schedule: Schedule
    rng: random.Random
    kills: list[Kill] = field(default_factory=list)
    _last: float = field(default_factory=time.monotonic)

    async def round(self, this: Round) -> None:
        """Do one round: begin what goes wrong beside it, aim, kill."""
        for name in this.beside:
            self.beside.begin(name)
        again = this.phase == "being_assigned"
        worker = self._choose(this, again=again)
        if again and worker.pid is not None and await worker.health():
            await self._kill(worker, this, "", self._last + _LATEST_S)
        if not again:
            await asyncio.sleep(max(0.0, self._last + _GAP_S - time.monotonic()))
        await self._kill(worker, this, this.phase, self._last + _LATEST_S)

    def _choose(self, this: Round, *, again: bool) -> Worker:
        free = [w for w in self.stack.workers if w not in self.aim.busy]
        mine = [w for w in free if w.spec.role == this.role]
        if again and self.kills and self.kills[-1].role == this.role:
            mine = [w for w in mine if w.spec.instance == self.kills[-1].instance] or mine
        return self.rng.choice(mine or free)

    async def _kill(self, worker: Worker, this: Round, phase: str, until: float) -> None:
        if self.beside.broker_down:
            await self._sleep(until)
            phase, found = "", "unknown"
            worker = await self._alive(worker)
            await self.aim.hold(worker)
        else:
            self.aim.busy.add(worker)
            try:
                found = await self.aim.at(worker, phase, until)
            finally:
                self.aim.busy.discard(worker)
            worker = await self._alive(worker)
        pid = worker.pid
        # What we kill is no sign that a worker cannot live: the supervisor must not hold it back for that.
        worker._backoff.quick_deaths = 0
        if pid is None or not worker.send(signal.SIGKILL):
            return
        self._last = time.monotonic()
        self.schedule.hit(worker.spec.role, found)
        self.kills.append(
            Kill(
                time.time(),
                worker.spec.role,
                worker.spec.instance,
                pid,
                found,
                this.number,
                self.load.open,
                phase,
            )
        )

    async def _sleep(self, until: float) -> None:
        """Wait with a blind kill, but for no longer than the broker stays away."""
        wait = min(until - time.monotonic(), self.rng.uniform(4.0, 10.0))
        await asyncio.sleep(max(wait, 0.0))

    async def _alive(self, worker: Worker) -> Worker:
        """Return *worker*, or another one where it has no life to end just now."""
        while worker.pid is None:
            others = [w for w in self.stack.workers if w.pid is not None]
            if others:
                return self.rng.choice(others)
            await asyncio.sleep(0.1)
        return worker


async def run(options: Options) -> dict[str, Any]:
    """Do the run, leave its files in `options.out`, and return what else a report tells.

    Raises `StackError` or `RouterError` if it cannot be done.
    """
    out, began = options.out, time.time()
    write_lines(out / "requests.jsonl", options.seed)
    lives = Lives(out / "stack" / "workers")
    stack = kill_stack(
        out / "stack", options.seed, lives.hear, sabotage=options.sabotage, faults=options.faults
    )
    async with AsyncExitStack() as closing:
        await closing.enter_async_context(stack)
        await stack.start_workers()
        world, loading_world = await _world(stack, closing), await _world(stack, closing)
        load = await _load(loading_world, options)
        tail = Tail(world, load.hear)
        load.place = tail.place
        log: Any = world.log
        groups = Groups(log, stack.endpoints.broker)
        closing.push_async_callback(groups.close)
        aim = Aim(stack, Looker(groups, tail, lives), lives, load)
        beside = Beside(stack, aim, random.Random(options.seed), options.outage_s)
        roles = sorted({worker.spec.role for worker in stack.workers})
        directed = SABOTAGES[options.sabotage].directed if options.sabotage else ()
        schedule = Schedule(roles, options.rounds, options.seed, directed)
        killer = Killer(stack, load, aim, beside, schedule, random.Random(options.seed))
        try:
            await _play(killer, tail, groups, sabotaged=bool(options.sabotage))
        finally:
            load.write(out)
            ends = [_death(asdict(death)) for death in lives.deaths]
            write_rows(out / "kills.jsonl", [*map(asdict, killer.kills), *ends])
            write_rows(out / "disturbances.jsonl", beside.log)
        await asyncio.gather(*(worker.stop() for worker in stack.workers))
        await keep_log(world.log, world.policies, out / "log")
        if stack.providers is not None:
            shutil.copyfile(stack.providers.calls, out / "provider_calls.jsonl")
    return {
        "least_in_flight": load.least,
        "decoys": load.decoys,
        "missing_cells": [f"{role}/{phase}" for role, phase in schedule.missing],
        "took_s": round(time.time() - began, 1),
    }


async def _world(stack: LocalStack, closing: AsyncExitStack) -> World:
    log = KafkaLog(KafkaSettings(stack.endpoints.broker))
    await log.start()
    closing.push_async_callback(_stopped, log)
    telemetry = Telemetry(wall_clock, "kill", quiet=True)
    world = make_world(log, telemetry, "kill", kill_claims(stack.folder))
    await world.policies.start()
    closing.push_async_callback(world.policies.stop)
    return world


async def _stopped(log: KafkaLog) -> None:
    with suppress(Unavailable, TimeoutError, OSError):
        await asyncio.wait_for(log.stop(), 10.0)


async def _load(world: World, options: Options) -> Load:
    lines = (options.out / "requests.jsonl").read_bytes().splitlines()
    load = Load(world, kill_policy(), await world.log.cluster_id(), lines)
    load.poison_every = POISON_EVERY
    if options.sabotage:
        load.poison_every = SABOTAGES[options.sabotage].poison_every or POISON_EVERY
    return load


async def _play(killer: Killer, tail: Tail, groups: Groups, *, sabotaged: bool) -> None:
    """Load, do the rounds, let everything end; the files are written by the caller, however this ends."""
    load = killer.load
    following = asyncio.create_task(tail.follow(), name="tail")
    disturbing = asyncio.create_task(killer.beside.run(), name="beside")
    loading = asyncio.create_task(load.run(), name="load")
    tasks = (following, disturbing, loading)
    try:
        if not await until_open(load, LEAST_IN_FLIGHT, _WARM_S):
            raise StartFailed(f"{load.open} requests in flight after {_WARM_S:.0f} s: the load cannot begin")
        load.watched = True
        while (this := killer.schedule.next()) is not None:
            await killer.round(this)
            _fail_if_over(*tasks)
            kill = killer.kills[-1]
            _say(
                f"round {this.number}: {kill.role} {kill.phase} (aimed at {kill.aimed or 'any'}), "
                f"{load.ended} of {len(load.sent)} ended, {load.open} in flight"
            )
        over: Awaitable[None] = killer.beside.over()
        await asyncio.wait_for(over, _BESIDE_S)
        load.watched = False
        await _end(loading)
        await _drain(killer.stack, load, groups, _SABOTAGED_STILL_S if sabotaged else _STILL_S)
    finally:
        for task in tasks:
            await _end(task)


async def _end(task: asyncio.Task[None]) -> None:
    """Stop *task*; what the load did not see acknowledged stays unacknowledged."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _fail_if_over(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        if task.done():
            task.result()


async def _drain(stack: LocalStack, load: Load, groups: Groups, still_s: float) -> None:
    """Wait until every request has ended and every group committed its source, or nothing moves any more."""
    roles = sorted({worker.spec.role for worker in stack.workers})
    began = moved = time.monotonic()
    last: Any = None
    while time.monotonic() - moved < still_s and time.monotonic() - began < _DRAIN_S:
        state = await _state(load, groups, roles)
        if state is not None and state[0] == 0 and all(c >= e for _, c, e in state[1]):
            return
        if state is None or state != last:
            last, moved = state, time.monotonic()
        await asyncio.sleep(0.5)
    _say(f"{load.open} requests have not ended, and nothing moves any more")


async def _state(
    load: Load, groups: Groups, roles: list[str]
) -> tuple[int, list[tuple[str, int, int]]] | None:
    try:
        return load.open, [
            (role, sum(c for c, _ in behind.values()), sum(e for _, e in behind.values()))
            for role in roles
            for behind in [await groups.behind(role)]
        ]
    except Unavailable:
        return None


def _death(row: dict[str, Any]) -> dict[str, Any]:
    """Return a death that was not ours as a row beside our kills: by itself, or told to end."""
    phase = "terminated" if row["exit_code"] == 0 else "exited"
    return {**row, "phase": phase, "signal": "", "round": None, "in_flight": None, "aimed": ""}


def _say(text: str) -> None:
    sys.stderr.write(f"kill: {text}\n")


Runner = Callable[[Options], Awaitable[dict[str, Any]]]
