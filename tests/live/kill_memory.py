"""A kill run over the log in memory: workers are tasks, and are abandoned. For development only.

The same schedule, load, files and checker as on Kafka, in seconds instead of minutes; nothing else goes wrong
beside the kills, and requests in flight are not held at 200 while a role is brought to idle.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from agents.errors import CallTimeout, ConfigError
from agents.ports import HttpReply
from agents.testing import HashClassifier
from infra.simulated_llm.calls import CallLog
from infra.simulated_llm.in_process import InProcess
from infra.simulated_llm.profile import load as load_profile
from streams.app import Context, Ports, Tuning, make_world, roles_for, runners_for, topic_counts
from streams.host import Fleet, Host
from streams.keep import keep_log
from streams.memory import MemoryLog
from streams.policies import publish
from streams.settings import wall_clock
from streams.telemetry import Telemetry
from tests.live.kill_load import IN_FLIGHT, Load, until_open, write_lines, write_rows
from tests.live.kill_phase import sources_of
from tests.live.kill_run import LEAST_IN_FLIGHT, Kill, Options
from tests.live.kill_schedule import Round, Schedule
from tests.live.kill_stack import DECISION_WORKERS, kill_policy, profile_text
from tests.live.kill_tail import Tail
from tests.live.kill_waiting import until_true
from tests.streams.plays import Cable, Worker

_PARTITIONS = 6
_PACE = 0.1
"""Of calls and their timeout, against a run on Kafka."""
_AIM_S, _DRAIN_S, _STILL_S = 3.0, 120.0, 8.0
_BURST = 60


@dataclass(slots=True)
class Ground:
    """One log, its groups, and the workers on it."""

    log: MemoryLog
    ports: Ports
    workers: dict[tuple[str, int], Worker] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    async def start(self, role: str, instance: int, made: Callable[[Worker], None] | None = None) -> None:
        """Start a worker; *made* is told of it before it joins its group."""
        name = f"{role}-{instance}"
        cable = Cable(self.log)
        self.sent[name] = 0
        cable.on_sent = lambda _topic: self._count(name)
        telemetry = Telemetry(wall_clock, role, quiet=True)
        world = make_world(cable, telemetry, name)
        ports = Ports(self.ports.infer, cable.guard(self.ports.complete))
        runners = runners_for([role], world, ports, Tuning(), {}, Context("memory", _PARTITIONS))
        hosts = [Host(runner, cable, telemetry, name, world.pauses) for runner in runners]
        worker = Worker(name, cable, Fleet(f"kill-{name}-{time.monotonic_ns()}", hosts), world)
        telemetry.failed = lambda stage, error: worker.failures.append((stage, error))
        self.workers[role, instance] = worker
        if made is not None:
            made(worker)
        await world.policies.start()
        await worker.fleet.start()

    def _count(self, name: str) -> None:
        self.sent[name] += 1

    def behind(self, role: str) -> Mapping[tuple[str, int], tuple[int, int]]:
        """Return partition -> (committed, end) of the role's sources."""
        group = self.log._groups.get(f"{self.log.prefix}.{role}")
        commits = {} if group is None else group.commits
        return {
            (s, p): (commits[s, p].offset if (s, p) in commits else 0, len(self.log._records[s, p]))
            for s in sources_of(role)
            for p in range(self.log._counts[s])
        }

    def idle(self, role: str) -> bool:
        """Return whether the role committed all that is before it."""
        return all(committed >= end for committed, end in self.behind(role).values())


@dataclass(slots=True)
class Abandoner:
    """Ends workers in wanted phases, and starts them again."""

    ground: Ground
    load: Load
    rng: random.Random
    schedule: Schedule
    kills: list[Kill] = field(default_factory=list)

    async def round(self, this: Round) -> None:
        """Do one round."""
        mine = sorted(place for place in self.ground.workers if place[0] == this.role)
        place = self.rng.choice(mine)
        ways = {"idle": self._idle, "in_step": self._in_step, "being_assigned": self._being_assigned}
        phase = await ways.get(this.phase, self._produced)(place)
        self.schedule.hit(this.role, phase)
        in_flight = self.load.open
        self.kills.append(Kill(time.time(), *place, 0, phase, this.number, in_flight, this.phase))
        await self._end(place)
        await self.ground.start(*place)

    async def _end(self, place: tuple[str, int]) -> None:
        await self.ground.workers[place].kill()

    async def _dry(self, role: str) -> bool:
        """Let the role work off all that is before it; a signal's role needs the load to stop for that."""
        self.load.target = 0
        found = await until_true(lambda: self.ground.idle(role), time.monotonic() + _AIM_S, 0.02)
        self.load.target = IN_FLIGHT
        return found

    async def _idle(self, place: tuple[str, int]) -> str:
        return "idle" if await self._dry(place[0]) else await self._phase(place)

    async def _in_step(self, place: tuple[str, int]) -> str:
        if not await self._dry(place[0]):
            return await self._phase(place)
        name = f"{place[0]}-{place[1]}"
        self.ground.sent[name] = 0
        members = self.ground.workers[place].cable.members
        positions = [dict(member._position) for member in members]
        bursting = asyncio.create_task(self.load.burst(_BURST))

        def reading() -> bool:
            return any(dict(m._position) != p for m, p in zip(members, positions, strict=True))

        found = await until_true(reading, time.monotonic() + _AIM_S, 0.0)
        phase = "in_step" if found and self.ground.sent[name] == 0 else "produced_uncommitted"
        self.ground.workers[place].cable.kill()
        await bursting
        return phase

    async def _produced(self, place: tuple[str, int]) -> str:
        worker = self.ground.workers[place]
        worker.dies_after("", self.rng.randint(1, 20))
        if await until_true(lambda: worker.cable.cut, time.monotonic() + _AIM_S, 0.02):
            return "produced_uncommitted"
        return await self._phase(place)

    async def _being_assigned(self, place: tuple[str, int]) -> str:
        await self._end(place)
        caught = asyncio.Event()
        starting = asyncio.create_task(
            self.ground.start(*place, lambda worker: _die_assigned(worker, caught))
        )
        with suppress(TimeoutError):
            await asyncio.wait_for(caught.wait(), _AIM_S)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return "being_assigned" if caught.is_set() else "starting"

    async def _phase(self, place: tuple[str, int]) -> str:
        return "idle" if self.ground.idle(place[0]) else "unknown"


def _die_assigned(worker: Worker, caught: asyncio.Event) -> None:
    """Let *worker* be cut off while it takes its partitions over."""
    runner: Any = worker.fleet.hosts[0].runner

    async def assigned(_partitions: Any) -> None:
        worker.cable.kill()
        caught.set()
        await asyncio.Event().wait()

    runner.assigned = assigned


async def run_in_memory(options: Options) -> dict[str, Any]:
    """Do the run, leave its files in `options.out`, and return what else a report tells.

    Raises `ConfigError` for a sabotage, which needs processes to be planted in.
    """
    if options.sabotage:
        raise ConfigError("a sabotage is planted in worker processes: use BROKER=kafka")
    out, began = options.out, time.time()
    write_lines(out / "requests.jsonl", options.seed)
    policy = kill_policy(_PACE)
    counts = topic_counts(policy.provider_names, _PARTITIONS)
    log = MemoryLog(counts, lambda: wall_clock() // 1000)
    world = make_world(log, Telemetry(wall_clock, "kill", quiet=True), "kill")
    await publish(world.outbox, policy, "kill", world.now(), activate=True)
    await world.policies.start()
    with CallLog(out / "provider_calls.jsonl") as calls:
        profile = out / "profile.yaml"
        profile.write_text(profile_text(_PACE, faults=options.faults), encoding="utf-8")
        complete = InProcess(
            load_profile(profile), options.seed, reply=HttpReply, timed_out=CallTimeout, calls=calls
        )
        ground = Ground(log, Ports(HashClassifier(), complete))
        places = [
            (role, n)
            for role in roles_for(policy)
            for n in range(DECISION_WORKERS if role == "decision" else 1)
        ]
        for place in places:
            await ground.start(*place)
        load = Load(world, policy, "memory", (out / "requests.jsonl").read_bytes().splitlines())
        schedule = Schedule(sorted({role for role, _ in places}), options.rounds, options.seed)
        killer = Abandoner(ground, load, random.Random(options.seed), schedule)
        await _play(killer, world)
        load.write(out)
        write_rows(out / "kills.jsonl", [asdict(kill) for kill in killer.kills])
        for worker in ground.workers.values():
            await worker.stop()
        await keep_log(log, world.policies, out / "log")
    await world.policies.stop()
    return {
        "least_in_flight": load.least,
        "decoys": load.decoys,
        "missing_cells": [f"{role}/{phase}" for role, phase in schedule.missing],
        "took_s": round(time.time() - began, 1),
    }


async def _play(killer: Abandoner, world: Any) -> None:
    tail = Tail(world, killer.load.hear)
    killer.load.place = tail.place
    tasks = [asyncio.create_task(tail.follow()), asyncio.create_task(killer.load.run())]
    try:
        await until_open(killer.load, LEAST_IN_FLIGHT, 30.0)
        while (this := killer.schedule.next()) is not None:
            await killer.round(this)
            kill = killer.kills[-1]
            sys.stderr.write(f"kill: round {this.number}: {kill.role} {kill.phase} (aimed at {kill.aimed})\n")
        tasks[1].cancel()
        await _drain(killer)
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _drain(killer: Abandoner) -> None:
    roles = sorted({role for role, _ in killer.ground.workers})
    began = moved = time.monotonic()
    last: Any = None
    while time.monotonic() - moved < _STILL_S and time.monotonic() - began < _DRAIN_S:
        state = (killer.load.open, [killer.ground.behind(role) for role in roles])
        if killer.load.open == 0 and all(killer.ground.idle(role) for role in roles):
            return
        if state != last:
            last, moved = state, time.monotonic()
        await asyncio.sleep(0.1)
