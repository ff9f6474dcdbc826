"""End a worker that makes no progress: a watch inside the event loop, and a thread for a blocked loop.

Time during which the whole process was stopped or starved counts for nothing: only turns that were
taken count, each with at most two intervals.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from agents.errors import RouterError, Unavailable
from streams.host import Host
from streams.log import TP, Log
from streams.telemetry import Telemetry
from streams.vitals import BROKER, Finding, Vitals, Watch, concerns

STUCK_EXIT = 5
"""Exit code of a worker that ended itself because nothing moved."""

_ASK_S = 5.0
_ANSWER_S = 5.0
_TURNS = 8


class Stuck(RouterError):
    """Nothing moves and no known wait explains it; another process may fare better."""


class Turns:
    """Seconds by a clock that stands still while its process does; *interval* is the time between turns."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most = 2 * interval
        self._last = clock()
        self.now = 0.0

    def turn(self) -> float:
        """Take a turn and return the time."""
        seen = self._clock()
        self.now += min(seen - self._last, self._most)
        self._last = seen
        return self.now


class LoopMonitor:
    """A daemon thread that calls *end* with a reason once the event loop has not beaten for *limit_s*.

    It also ends a process that was told to stop and does not.
    """

    def __init__(self, limit_s: float, end: Callable[[str], None]) -> None:
        self._limit_s = limit_s
        self._end = end
        self._interval = max(min(1.0, limit_s / _TURNS), 0.01)
        self._turns = Turns(self._interval)
        self._beaten_at = 0.0
        self._ends_at: float | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loop monitor", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def beat(self) -> None:
        """Tell, from the event loop, that it turns."""
        self._beaten_at = self._turns.now

    def must_end(self, within_s: float) -> None:
        """Grant the process *within_s* seconds from now to end; the first grant counts."""
        if self._ends_at is None:
            self._ends_at = self._turns.now + within_s

    def stop(self) -> None:
        """Watch no longer."""
        self._done.set()

    def _run(self) -> None:
        while not self._done.wait(self._interval):
            now = self._turns.turn()
            if self._ends_at is not None and now > self._ends_at:
                self._end("it was told to stop and did not end in time")
                return
            if now - self._beaten_at > self._limit_s:
                self._end(f"the event loop has been blocked for {now - self._beaten_at:.0f} s")
                return


def end_process(telemetry: Telemetry, reason: str) -> None:
    """Say *reason* and where each thread stands, and end the process at once.

    What was not committed is done again, as after a crash.
    """
    try:
        telemetry.event("WorkerStuck", "error", reason=reason)
        faulthandler.dump_traceback(sys.stderr)
        sys.stderr.flush()
    finally:
        os._exit(STUCK_EXIT)


class Watchdog:
    """Looks at a host once in a while; what lasts too long is told to *failed*, once."""

    def __init__(
        self,
        log: Log,
        telemetry: Telemetry,
        limits: tuple[float, float],
        failed: Callable[[RouterError], None],
    ) -> None:
        stuck_s, outage_s = limits
        self._log = log
        self._telemetry = telemetry
        self._failed = failed
        self._interval = max(min(1.0, stuck_s / _TURNS), 0.01)
        self._turns = Turns(self._interval)
        self._watch = Watch(stuck_s, outage_s)
        self._ends: dict[TP, int] | None = {}
        self._asked_at = -_ASK_S
        self._moved: tuple[object, float] = (None, 0.0)
        self.vitals = Vitals()
        self.host: Host | None = None
        self.beat: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(self._interval)
            self.beat()
            await self.look()

    async def look(self) -> None:
        """Look once, count, and tell if the worker is stuck."""
        now_s = self._turns.turn()
        if self.host is None:
            return
        if now_s - self._asked_at >= min(_ASK_S, self._interval * _TURNS / 2):
            self._asked_at = now_s
            self._ends = await self._ask(self.host)
        self.vitals = seen = self.host.vitals(self._ends)
        if seen.moved != self._moved[0]:
            self._moved = (seen.moved, now_s)
        self._watch.observe(concerns(seen, self._telemetry.clock() // 1000), now_s)
        findings = self.findings
        self._telemetry.watched(self.host.runner.group, seen.unread, findings)
        if findings and findings[0].stuck:
            worst = findings[0]
            error = Unavailable if worst.name == BROKER else Stuck
            self._failed(error(f"{self.host.runner.group}: {worst}; see docs/runbooks"))

    @property
    def findings(self) -> list[Finding]:
        """Return what ought to move and does not, the nearest to its limit first."""
        return self._watch.findings(self._turns.now)

    @property
    def still_s(self) -> float:
        """Return for how many seconds nothing has been read, taken, finished or committed."""
        return self._turns.now - self._moved[1]

    async def _ask(self, host: Host) -> dict[TP, int] | None:
        """Return the ends of what *host* reads; None if the broker does not tell."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                return dict(await self._log.ends(sorted(host.consumer.assigned)))
        except (Unavailable, TimeoutError):
            return None

    def _details(self) -> dict[str, Any]:
        if self.host is None:
            return {}
        progress = self.host.runner.progress()
        return {"details": dict(progress.details), "lanes": dict(progress.lanes)}

    def report(self) -> dict[str, Any]:
        """Return what `/healthz` and `/readyz` tell of progress."""
        seen = self.vitals
        return {
            "still_s": round(self.still_s, 1),
            "waits_for": seen.paused_by or seen.waits_for,
            "unread": seen.unread,
            "in_flight": seen.in_flight,
            "queued": seen.queued,
            "done": seen.done,
            **self._details(),
            "broker": seen.unread is not None,
            "reasons": [str(finding) for finding in self.findings],
        }
