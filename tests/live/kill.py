"""Kill every role at seeded moments while requests flow, and judge what became of them: `make kill`.

Leaves in OUT what the checker reads (`tests.live.checker`), and the stack's own files in OUT/stack.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from agents.errors import RouterError
from infra.local.errors import StackError
from infra.local.stack import LocalStack
from infra.local.workers import Worker
from schemas.logdir import LogDirError
from streams.app import make_world
from streams.kafka import KafkaLog, KafkaSettings
from streams.keep import keep_log
from streams.settings import wall_clock
from streams.telemetry import Telemetry
from tests.live.checker import judge, read, report
from tests.live.kill_load import Load, Tail
from tests.live.kill_phase import Groups, life_of, phase_of
from tests.live.kill_stack import kill_policy, kill_stack

_ENTRIES = {"": "signalbox", "commit_early": "tests.live.kill_early"}
_AGAIN = 1 / 3
"""The share of kills that are followed by another one while the worker comes back."""
_BLIND = 1 / 4
"""The share of kills that do not wait until the role has something to do."""
_BUSY_S = 10.0
_SEEN_S = 0.3
_DRAIN_S, _SABOTAGED_DRAIN_S = 180.0, 45.0
_USAGE, _DOWN = 2, 3


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL; *time* in seconds since the epoch, *in_flight* requests then."""

    time: float
    role: str
    instance: int
    pid: int
    phase: str
    round: int
    in_flight: int


@dataclass(slots=True)
class Killer:
    """Kills workers of a running stack, and writes down when and how it found them."""

    stack: LocalStack
    load: Load
    tail: Tail
    groups: Groups
    rng: random.Random
    kills: list[Kill] = field(default_factory=list)

    async def round(self, number: int) -> None:
        """Kill one worker of every role, in seeded order and at seeded moments."""
        roles = sorted({worker.spec.role for worker in self.stack.workers})
        self.rng.shuffle(roles)
        for role in roles:
            worker = self.rng.choice([w for w in self.stack.workers if w.spec.role == role])
            await _ready(worker)
            if self.rng.random() >= _BLIND:
                await self._busy(worker)
            await asyncio.sleep(self.rng.uniform(0.0, 0.5))
            await self._kill(worker, number)
            if self.rng.random() < _AGAIN:
                await self._kill_again(worker, number)

    async def _busy(self, worker: Worker) -> None:
        """Wait, within bounds, until records reach *worker*'s role, all others being there to send them."""
        until = time.monotonic() + _BUSY_S
        for other in self.stack.workers:
            await _ready(other)
        while await self.groups.idle(worker.spec.role):
            await asyncio.sleep(0.02)
            if time.monotonic() > until:
                break

    async def _kill(self, worker: Worker, number: int) -> None:
        life = await life_of(worker)
        pid = worker.pid
        if pid is None or not worker.send(signal.SIGKILL):
            return
        now = time.time()
        in_flight = self.load.open
        await asyncio.sleep(_SEEN_S)
        phase = await phase_of(worker, life, self.groups, self.tail)
        spec = worker.spec
        self.kills.append(Kill(now, spec.role, spec.instance, pid, phase, number, in_flight))

    async def _kill_again(self, worker: Worker, number: int) -> None:
        """Kill the next life between its first sign and its readiness."""
        old = self.kills[-1].pid
        await _until(lambda: worker.pid not in (None, old) and worker.port_file.exists())
        await asyncio.sleep(self.rng.uniform(0.0, 0.25))
        await self._kill(worker, number)


async def run(out: Path, rounds: int, seed: int, sabotage: str = "", *, faults: bool = False) -> None:
    """Do the run and leave its files in *out*; raises `StackError` or `RouterError` if it cannot be done."""
    async with AsyncExitStack() as closing:
        stack = kill_stack(out / "stack", seed, _ENTRIES[sabotage], faults=faults)
        await closing.enter_async_context(stack)
        await stack.start_workers()
        log = KafkaLog(KafkaSettings(stack.endpoints.broker))
        await log.start()
        closing.push_async_callback(log.stop)
        world = make_world(log, Telemetry(wall_clock, "kill", quiet=True), "kill")
        await world.policies.start()
        closing.push_async_callback(world.policies.stop)
        admin = AIOKafkaAdminClient(bootstrap_servers=stack.endpoints.broker)
        await admin.start()
        closing.push_async_callback(admin.close)
        load = Load(world, kill_policy(), await log.cluster_id(), seed)
        tail, groups = Tail(load), Groups(log, admin)
        killer = Killer(stack, load, tail, groups, random.Random(seed))
        following = asyncio.create_task(tail.follow(), name="tail")
        loading = asyncio.create_task(load.run(), name="load")
        try:
            await asyncio.sleep(2.0)
            for number in range(1, rounds + 1):
                await killer.round(number)
                _fail_if_over(loading, following)
                _say(f"round {number} of {rounds}: {len(load.ended)} of {len(load.sent)} ended")
            await _end(loading)
            await _drain(stack, load, groups, _SABOTAGED_DRAIN_S if sabotage else _DRAIN_S)
        finally:
            await _end(loading)
            await _end(following)
            load.write(out / "submitted.jsonl")
            _write(out / "kills.jsonl", killer.kills)
        await asyncio.gather(*(worker.stop() for worker in stack.workers))
        await keep_log(log, world.policies, out / "log")
        if stack.providers is not None:
            shutil.copyfile(stack.providers.calls, out / "provider_calls.jsonl")


async def _ready(worker: Worker) -> None:
    """Wait for *worker*; unlike `Worker.ready` not discouraged by the deaths that we cause."""
    while not await worker.health():  # noqa: ASYNC110 - another process has no event to wait for
        await asyncio.sleep(0.05)


async def _until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.01)


async def _end(task: asyncio.Task[None]) -> None:
    """Stop *task*; what the load did not see acknowledged stays unacknowledged."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _fail_if_over(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        if task.done():
            task.result()


async def _drain(stack: LocalStack, load: Load, groups: Groups, within: float) -> None:
    """Wait, within bounds, until every request has ended and every group has committed its source."""
    until = time.monotonic() + within
    roles = sorted({worker.spec.role for worker in stack.workers})
    while time.monotonic() < until:
        if load.open == 0 and all([await groups.idle(role) for role in roles]):
            return
        await asyncio.sleep(0.5)
    behind = [role for role in roles if not await groups.idle(role)]
    _say(f"after {within:.0f} s {load.open} requests have not ended; behind: {', '.join(behind) or 'none'}")


def _write(path: Path, kills: Sequence[Kill]) -> None:
    path.write_text("".join(json.dumps(asdict(kill)) + "\n" for kill in kills), encoding="utf-8")


def _say(text: str) -> None:
    sys.stderr.write(f"kill: {text}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and judge; exit code 0 nothing wrong, 1 something lost or doubled, 2 bad input, 3 stack down."""
    given = _parser().parse_args(arguments)
    if given.out.exists() and any(given.out.iterdir()):
        _say(f"{given.out} is not empty: give another OUT, or remove it")
        return _USAGE
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        if given.sabotage == "faust_consumer":
            from tests.live.faust_consumer import compare  # noqa: PLC0415 - only this sabotage needs Faust's own

            return asyncio.run(compare(given.out, given.seed))
        asyncio.run(run(given.out, given.rounds, given.seed, given.sabotage, faults=given.faults))
        verdict = judge(read(given.out))
    except (StackError, RouterError, LogDirError) as error:
        _say(str(error))
        return _DOWN
    sys.stdout.write(report(verdict) + f"\ntook {time.monotonic() - began:.0f} s\n")
    return 0 if verdict.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.live.kill", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each role is killed")
    parser.add_argument("--seed", type=int, default=1, help="of moments, order, prompts and the simulator")
    parser.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--broker", choices=("kafka",), default="kafka", help="which log")
    parser.add_argument(
        "--sabotage", choices=("", "commit_early", "faust_consumer"), default="", help="a fault to plant"
    )
    parser.add_argument("--faults", action="store_true", help="let the providers fail some calls")
    return parser


if __name__ == "__main__":
    sys.exit(main())
