"""The stack that the bench measures: its policy, its simulated providers without latency, its meters."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agents.policy import Policy
from infra.local.deployment import Needs, WorkerSpec
from infra.local.identity import PROC, read_stat
from infra.local.routing import Routing
from infra.local.stack import LocalStack, StackConfig
from infra.local.workers import Worker
from streams.log import TP, Log
from triton_models.build import Options, build

PROFILE = """
providers:
  north:
    models:
      north-small: {length: {median: 32}}
      north-large: {length: {median: 32}}
  south:
    models:
      south-coder: {length: {median: 32}}
"""
"""Answers at once, always, 32 tokens long."""

ENCODER = "encoder"
CONSTANT = "constant"
CLIENT = "client: submit"
BESIDE = ("broker", "triton", "simulator")
_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Code:
    """A tree of the project whose workers are measured, and what it is called in the table."""

    name: str
    root: Path


class Benched(Routing):
    """The routing deployment, its classifier from another repository if *repository* is given."""

    def __init__(self, policy: Policy, repository: Path | None) -> None:
        super().__init__(policy)
        self._repository = repository

    def needs(self) -> Needs:
        """Return what the routing needs, from our repository."""
        found = super().needs()
        return found if self._repository is None else replace(found, repository=self._repository)


def constant_as_encoder(folder: Path, cache: Path) -> Path:
    """Return a repository in *folder* whose `encoder` is the constant-time model."""
    repository = folder / "constant-repository"
    build(repository, cache, Options(models=(CONSTANT,)))
    model = (repository / CONSTANT).rename(repository / ENCODER)
    config = model / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(f'name: "{CONSTANT}"', f'name: "{ENCODER}"'), encoding="utf-8")
    return repository


def stack_of(folder: Path, deployment: Benched) -> LocalStack:
    """Return a stack in *folder* with providers that answer at once; not started."""
    folder.mkdir(parents=True, exist_ok=True)
    profile = folder / "profile.yaml"
    profile.write_text(PROFILE, encoding="utf-8")
    return LocalStack(StackConfig(folder=folder, profile=profile), deployment)


@asynccontextmanager
async def workers_of(stack: LocalStack, code: Code) -> AsyncIterator[list[Worker]]:
    """Run every role from *code* on the started *stack*, and stop them afterwards."""
    started: list[Worker] = []
    try:
        for spec in stack.deployment.workers(stack.endpoints):
            worker = await stack.spawn_worker(_from(code, spec))
            started.append(worker)
        for worker in started:
            await worker.ready()
        yield started
    finally:
        for worker in started:
            await worker.stop()
            stack.workers.remove(worker)


def _from(code: Code, spec: WorkerSpec) -> WorkerSpec:
    # -P: the folder that the bench runs in must not come before the tree that is measured.
    argv = (sys.executable, "-P", *spec.argv[1:])
    return replace(spec, argv=argv, env={**spec.env, "PYTHONPATH": str(code.root)})


def cpu_us(stack: LocalStack, workers: list[Worker]) -> dict[str, int]:
    """Return CPU microseconds so far (user and system, all threads and children) by role."""
    services = {"broker": stack.broker, "triton": stack.triton, "simulator": stack.providers}
    sessions = {worker.pid: worker.spec.role for worker in workers}
    for name, service in services.items():
        if service is not None and service.process is not None:
            sessions[service.process.pid] = name
    used = dict.fromkeys(sessions.values(), 0)
    for entry in PROC.iterdir():
        stat = read_stat(int(entry.name)) if entry.name.isdigit() else None
        if stat is not None and stat.session in sessions:
            used[sessions[stat.session]] += _ticks(entry) * _TICK_US
    return used


def _ticks(entry: Path) -> int:
    try:
        text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])


async def ends_of_all(log: Log) -> Mapping[TP, int]:
    """Return the end of every partition of every topic of *log*."""
    tps = [(topic, p) for topic in await log.topics() for p in range(await log.partitions(topic))]
    return await log.ends(tps)


def messages(before: Mapping[TP, int], after: Mapping[TP, int]) -> dict[str, int]:
    """Return how many records each topic gained, by logical name."""
    gained: dict[str, int] = {}
    for (topic, partition), end in sorted(after.items()):
        gained[topic] = gained.get(topic, 0) + end - before.get((topic, partition), 0)
    return {topic: count for topic, count in gained.items() if count}


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return what each role used between two readings."""
    return {role: after[role] - before.get(role, 0) for role in after}
