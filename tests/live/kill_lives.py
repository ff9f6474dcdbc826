"""The lives of a stack's workers, as a kill run needs to know them: when each began, how each ended.

A worker says in its log when it was given partitions and when it lost them; whatever one life wrote there
lies after the place where the life began.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from infra.local.events import StackEvent, WorkerDied, WorkerStarted
from infra.local.workers import Worker
from tests.live.kill_waiting import until_true

_KILLED = -9


@dataclass(frozen=True, slots=True)
class Life:
    """One process of a worker: when it began (seconds since the epoch), and where in the log."""

    pid: int
    born: float
    log_from: int


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that ended without our SIGKILL: by itself, or told to by a rolling restart."""

    time: float
    role: str
    instance: int
    pid: int
    exit_code: int


class Lives:
    """Listens to what a stack tells; *folder* is where its workers log."""

    def __init__(self, folder: Path) -> None:
        self.deaths: list[Death] = []
        self._folder = folder
        self._lives: dict[tuple[str, int], Life] = {}

    def hear(self, event: StackEvent) -> None:
        """Take in one event of the stack."""
        match event:
            case WorkerStarted():
                log = self._folder / f"{event.role}-{event.instance}.log"
                size = log.stat().st_size if log.exists() else 0
                self._lives[event.role, event.instance] = Life(event.pid, time.time(), size)
            case WorkerDied() if event.exit_code != _KILLED:
                self.deaths.append(Death(time.time(), event.role, event.instance, event.pid, event.exit_code))
            case _:
                pass

    def of(self, worker: Worker) -> Life:
        """Return the present, or last, life of *worker*."""
        return self._lives[worker.spec.role, worker.spec.instance]

    def joins(self, worker: Worker) -> bool:
        """Return whether the present life has begun to join: a member first gives up what it has, nothing."""
        life = self.of(worker)
        told = any("PartitionsRevoked" in line for line in _lines(worker.log, life.log_from))
        return told and life.pid == worker.pid

    def assigned(self, worker: Worker) -> bool:
        """Return whether the present life has taken partitions over and not lost them since."""
        held = False
        for line in _lines(worker.log, self.of(worker).log_from):
            if "PartitionsAssigned" in line or "PartitionsRevoked" in line:
                held = json.loads(line).get("event") == "PartitionsAssigned"
        return held


def _lines(path: Path, start: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(start)
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.split("\n")[:-1] if line.startswith("{")]


def cpu_ms(pid: int) -> float:
    """Return the CPU time that process *pid* has used, in ms; 0 where it is gone."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except (OSError, ValueError):
        return total / 1e6
    return total / 1e6


async def stopped(pid: int, within: float = 1.0) -> None:
    """Return when the kernel shows every thread of *pid* as stopped, or after *within* seconds."""
    await until_true(lambda: _state(pid) in "TZX", time.monotonic() + within, 0.001)


def _state(pid: int) -> str:
    """Return the kernel's letter for the state of *pid*; X for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
